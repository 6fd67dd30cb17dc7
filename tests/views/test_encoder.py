"""The text encoder: each text once, in the order asked for, and a folder that is no encoder."""

import json

import pytest
import tiny_encoder
import torch

from llm4sbr import InputError
from llm4sbr.views.encoder import SentenceEncoder


def test_equal_texts_are_embedded_once_and_blank_ones_are_zero(tmp_path, monkeypatch):
    """Seen to fail with every text handed to the model."""
    encoder, given = SentenceEncoder(str(tiny_encoder.make(tmp_path / "encoder")), device="cpu"), []
    encode = encoder._model.encode
    monkeypatch.setattr(
        encoder._model, "encode", lambda texts, **how: given.append(texts) or encode(texts, **how)
    )
    rows = encoder.encode(["soap", " \n", "rose soap", "soap", ""])
    assert given == [["soap", "rose soap"]]
    assert (rows.shape, rows.dtype) == ((5, 32), torch.float32)
    assert torch.allclose(rows.norm(dim=1), torch.tensor([1.0, 0, 1, 1, 0]), atol=1e-5)
    assert torch.equal(rows[0], rows[3])
    assert not torch.allclose(rows[0], rows[2])
    assert encoder.encode([]).shape == (0, 32)


@pytest.mark.parametrize(("terminal", "texts"), [(True, 3), (True, 2), (False, 3)])
def test_many_texts_show_progress_on_a_terminal(tmp_path, monkeypatch, terminal, texts):
    """Elsewhere, and for a few texts, there is none."""
    encoder, shown = SentenceEncoder(str(tiny_encoder.make(tmp_path / "encoder")), device="cpu"), []
    encode = encoder._model.encode
    monkeypatch.setattr("llm4sbr.views.encoder._MANY", 3)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setattr(
        encoder._model,
        "encode",
        lambda given, show_progress_bar, **how: (
            shown.append(show_progress_bar) or encode(given, show_progress_bar=False, **how)
        ),
    )
    encoder.encode([f"soap {place}" for place in range(texts)])
    assert shown == [terminal and texts == 3]


def test_what_is_no_encoder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        SentenceEncoder(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match=f"{tmp_path}: the text encoder cannot be loaded"):
        SentenceEncoder(str(tmp_path), device="cpu").encode(["soap"])
