"""The adapter's folder: written whole, loaded into the engine, refused where it is none."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llm4sbr.contracts.errors import InputError
from llm4sbr.tuning.adapter_writer import AdapterWriter
from llm4sbr.views.engines.transformers_engine import TransformersEngine


def save(model, folder):
    model.learn_titles(["rose soap", "silk powder", "x"])
    writer = AdapterWriter(folder)
    writer._save(model)
    return folder


def shaken(model):
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.normal_(0, 0.5)
    return model


def test_the_adapter_loads_into_the_engine_and_is_part_of_its_key(tuner, tiny_llm, tmp_path):
    folder = save(shaken(tuner()), tmp_path / "deep" / "adapter")
    assert {file.name for file in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert not [name for name in load_file(folder / "adapter_model.safetensors") if "lora" not in name]
    assert str(tmp_path) not in (folder / "adapter_config.json").read_text().replace(tiny_llm, "")
    options = {"dtype": "float32", "device": "cpu", "max_new_tokens": 8}
    bare, tuned = (
        TransformersEngine(tiny_llm, **options),
        TransformersEngine(tiny_llm, str(folder), **options),
    )
    assert bare.identity.key() != tuned.identity.key()
    assert tuned.identity.adapter.name == "adapter"
    prompts = ["1. rose soap", "2. silk powder", "x"]

    def texts(engine):
        replies = [reply for group in engine.generate(prompts) for reply in group]
        return [reply.outcome.text for reply in sorted(replies)]

    assert texts(bare) != texts(tuned)
    shutil.copytree(folder, tmp_path / "renamed")
    again = TransformersEngine(tiny_llm, str(tmp_path / "renamed"), **options)
    assert again.identity.key() == tuned.identity.key()  # by content, not by name
    other = save(shaken(tuner()), tmp_path / "other")
    file = other / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert TransformersEngine(tiny_llm, str(other), **options).identity.key() != tuned.identity.key()


def test_a_missing_or_half_adapter_is_named(tuner, tiny_llm, tmp_path):
    options = {"dtype": "float32", "device": "cpu"}
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match=r"adapter_config\.json") as caught:
            TransformersEngine(tiny_llm, str(place), **options)
        assert str(place) in str(caught.value)
    folder = save(tuner(), tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    for harm in ("gone", "cut", "other model"):
        weights.unlink(missing_ok=True)
        if harm == "cut":
            weights.write_bytes(content[: len(content) // 2])
        elif harm == "other model":
            weights.write_bytes(content)
            config = json.loads((folder / "adapter_config.json").read_text())
            (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["nowhere"]}))
        with pytest.raises(InputError, match="adapter cannot be loaded") as caught:
            list(TransformersEngine(tiny_llm, str(folder), **options).generate(["x"]))
        assert str(folder) in str(caught.value)


def test_the_adapter_is_written_whole_or_not_at_all(tuner, tmp_path, monkeypatch):
    """Killed while it writes: the one before stays as it was. Seen to fail with a write in place."""
    folder = save(tuner(), tmp_path / "adapter")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    model = shaken(tuner())

    def half(scratch, **_):
        (scratch / "adapter_config.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model.llm, "save_pretrained", half)
    with pytest.raises(InputError, match="adapter: this cannot be written: No space"):
        save(model, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_that_is_no_adapter_is_not_written_over(tuner, tmp_path):
    """It was deleted with all that was in it, at first."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not an adapter") as caught:
        AdapterWriter(mine)
    assert str(mine) in str(caught.value)
    (mine / "thesis.txt").unlink()
    save(tuner(), mine)  # an empty folder is fine
    save(tuner(), mine)


def test_the_best_is_kept(tuner, tmp_path):
    writer, model, losses = AdapterWriter(tmp_path / "a"), tuner(), [2.0, 1.0, 3.0, float("nan"), 0.5]
    written = []
    writer._save = lambda tuner: written.append(writer.best)

    class Fake:
        sanity_checking, fast_dev_run, is_global_zero, callback_metrics = False, False, True, {}

    run = Fake()
    writer.on_validation_end(run, model)  # nothing was measured
    for loss in losses:
        run.callback_metrics = {"val/loss": torch.tensor(loss)}
        writer.on_validation_end(run, model)
    assert written == [2.0, 1.0, 0.5]
    other = AdapterWriter(tmp_path / "a")
    other.load_state_dict(writer.state_dict())
    assert other.best == 0.5
