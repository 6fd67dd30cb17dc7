"""Folders whose tensors are missing or match nothing are refused: random weights would replace them."""

import json
from pathlib import Path

import pytest
import tiny_encoder
import torch
from safetensors.torch import load_file, save_file

from llm4sbr import InputError
from llm4sbr.tuning.lora import LoRA
from llm4sbr.views.complete_weights import require_all_weights
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.engines.language_model import LanguageModel


def change(folder: Path, harm, name: str = "model.safetensors") -> Path:
    """Change the tensors of a folder."""
    tensors = {key: value.clone() for key, value in load_file(folder / name).items()}
    save_file(harm(tensors), folder / name, {"format": "pt"})
    return folder


def without(part):
    return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


def renamed(tensors):
    return {f"other.{name}": value for name, value in tensors.items()}


def nan(tensors):
    tensors[sorted(tensors)[-1]].view(-1)[0] = torch.nan
    return tensors


def fewer_layers(folder: Path) -> Path:
    """Take a layer out of the configuration alone."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["num_hidden_layers"] -= 1
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:-1]
    file.write_text(json.dumps(config))
    return folder


HARMS = {
    "a layer": lambda folder: change(folder, without(".1.")),
    "one tensor": lambda folder: change(folder, without("embed")),
    "every name": lambda folder: change(folder, renamed),
    "the configuration": fewer_layers,
}


@pytest.mark.parametrize("harm", HARMS)
def test_an_encoder_with_missing_weights_is_refused(tmp_path, harm):
    """Seen to fail without `_require_weights`: the encoder was used with random weights."""
    folder = tiny_encoder.make(tmp_path / "encoder")
    assert SentenceEncoder(str(folder), device="cpu").encode(["rose soap"]).isfinite().all()
    HARMS[harm](folder)
    with pytest.raises(InputError, match=r"encoder: (\d+ of the model's weights|the files have layers)"):
        SentenceEncoder(str(folder), device="cpu").encode(["rose soap"])


def test_an_encoder_needs_no_pooler(tmp_path):
    folder = change(tiny_encoder.make(tmp_path / "encoder"), without("pooler"))
    assert SentenceEncoder(str(folder), device="cpu").encode(["rose soap"]).isfinite().all()


@pytest.mark.parametrize("harm", HARMS)
def test_a_language_model_with_missing_weights_is_refused(tiny_module, tmp_path, harm):
    """Seen to fail with the loading info not read."""
    folder = tiny_module.make(tmp_path / "llm")
    HARMS[harm](folder)
    with pytest.raises(InputError, match=r"llm: (\d+ of the model's weights|the files have layers)"):
        _ = LanguageModel(str(folder), device="cpu").model


def test_a_language_model_with_nan_is_refused(tiny_module, tmp_path):
    folder = change(tiny_module.make(tmp_path / "llm"), nan)
    with pytest.raises(InputError, match="language model's scores are not finite"):
        _ = LanguageModel(str(folder), device="cpu", dtype="float32").reads_trees


def test_weights_of_another_shape_are_refused():
    """transformers lists them where a caller lets it pass."""
    info = {"missing_keys": [], "mismatched_keys": [("a.weight", (2, 3), (3, 2))]}
    with pytest.raises(InputError, match=r"llm: 1 weights have another shape: a\.weight"):
        require_all_weights(torch.nn.Linear(2, 3), info, "llm")


def test_tensors_that_match_nothing_are_told(tiny_module, tmp_path):
    folder = tiny_module.make(tmp_path / "llm")
    change(folder, lambda tensors: {**tensors, "vision.weight": torch.ones(2)})
    with pytest.warns(UserWarning, match=r"1 tensors of the files match nothing .*vision\.weight"):
        _ = LanguageModel(str(folder), device="cpu").model


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda t: t, None),
        (without("layers.1"), "are missing"),
        (without("lora_B"), "are missing"),
        (renamed, "match nothing"),
        (lambda t: {name.replace("lora_A", "lora_X"): v for name, v in t.items()}, "match nothing"),
        (lambda t: {**t, "base_model.model.more.lora_A.weight": torch.ones(2, 2)}, "1 match nothing"),
        (lambda t: dict(list(t.items())[:1]), "are missing"),
        (nan, "not finite"),
    ],
)
def test_an_adapter_whose_tensors_do_not_fit_is_refused(tiny_llm, tmp_path, harm, told):
    """Seen to fail without `require_same_names`: the base model answered."""
    adapted = LoRA(rank=2).adapt(LanguageModel(tiny_llm, device="cpu", dtype="float32").base_model)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    change(tmp_path / "adapter", harm, "adapter_model.safetensors")
    used = LanguageModel(tiny_llm, str(tmp_path / "adapter"), device="cpu", dtype="float32")
    if told is None:
        _ = used.model
    else:
        with pytest.raises(InputError, match=told):
            _ = used.model
