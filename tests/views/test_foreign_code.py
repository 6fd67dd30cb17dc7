"""Folders of encoders, adapters and models run none of their own code, and ask nothing on the terminal."""

import json
import sys

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.engines.language_model import LanguageModel
from llm4sbr.views.foreign_code import check_adapter, check_encoder

OURS = [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}]


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", [*OURS, {"idx": 1, "path": "x", "type": "stranger.Evil"}]),
        ("1_Dense/config.json", {"activation_function": "os.system"}),
        ("router_config.json", {"types": {"a": "stranger.Evil"}}),
        ("0_Words/wordembedding_config.json", {"tokenizer_class": "stranger.Evil"}),
        ("modules.json", [{"type": "sentence_transformers.util.os.system"}]),
    ],
)
def test_an_encoder_that_names_a_foreign_class_is_refused(tmp_path, monkeypatch, name, content):
    """Before anything is imported."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    folder = tmp_path / "encoder"
    put(folder, "config.json", {"model_type": "bert"})
    put(folder, "modules.json", OURS)
    check_encoder(folder)
    put(folder, name, content)
    with pytest.raises(InputError, match="outside its library"):
        SentenceEncoder(str(folder)).encode(["x"])
    assert "stranger" not in sys.modules


@pytest.mark.parametrize("key", ["megatron_config", "auto_mapping"])
def test_an_adapter_that_names_modules_is_refused(tmp_path, key):
    put(tmp_path, "adapter_config.json", {"peft_type": "LORA"})
    check_adapter(tmp_path)
    put(tmp_path, "adapter_config.json", {"peft_type": "LORA", key: {"a": "b"}})
    with pytest.raises(InputError, match=key):
        check_adapter(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "check"),
    [
        ("modules.json", "[1", check_encoder),
        ("1_Dense/config.json", "[" * 100_000, check_encoder),
        ("adapter_config.json", "[1", check_adapter),
        ("adapter_config.json", "[]", check_adapter),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, name, text, check):
    put(tmp_path, name, None)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"{name}: this (file cannot be read as JSON|is not the config)"):
        check(tmp_path)


@pytest.mark.parametrize("part", ["tokenizer", "base_model"])
def test_a_model_with_code_of_its_own_is_refused_without_a_question(tmp_path, part, monkeypatch):
    """Without `trust_remote_code=False`, transformers asks [y/N] on the terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    code = {
        "AutoConfig": "code.Evil",
        "AutoModelForCausalLM": "code.Evil",
        "AutoTokenizer": ["code.Evil", None],
    }
    put(tmp_path, "config.json", {"model_type": "stranger", "auto_map": code})
    put(tmp_path, "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["code.Evil", None]}})
    (tmp_path / "code.py").write_text("raise SystemExit('imported')")
    with pytest.raises(InputError, match="cannot be loaded"):
        getattr(LanguageModel(str(tmp_path), dtype="float32", device="cpu"), part)
