"""A model from its checkpoint alone: its parts, its weights, and nothing that it should not build."""

import pytest
import torch
from lightning.pytorch import Trainer

from llm4sbr import InputError, LLM4SBRWrapper, ModuleBackbone, SBRModule
from llm4sbr.backbones import CORE, SRGNN
from llm4sbr.backbones.core import TransformerSize
from llm4sbr.nn.alignment import Alignment
from llm4sbr.nn.heads import ItemTitles, RepeatExplore, ScoreHead, SequentialRules, TextScores
from llm4sbr.nn.losses import FullSoftmax
from llm4sbr.nn.scorers import CosineScores
from llm4sbr.testing import make_batch, make_examples

V, TEXT = 9, 6
BATCH = make_batch([[1, 2, 3], [4], [5, 5, 6]], [2, 3, 4])


def save(model, path):
    trainer = Trainer(accelerator="cpu", logger=False, barebones=True, max_epochs=0)
    trainer.strategy.connect(model)
    model.trainer = trainer
    trainer.save_checkpoint(path)
    return path


def test_every_part_comes_back(tmp_path):
    """Seen to fail with the heads left out of the description."""
    torch.manual_seed(0)
    model = LLM4SBRWrapper(
        SRGNN(V, 8, steps=2),
        text_dim=TEXT,
        fusion="residual",
        alignment=Alignment(0.3, uniform=False),
        interest_of_view=["short_term", "long_term"],
        heads=[TextScores(3), ItemTitles(2), RepeatExplore(), SequentialRules(0.5)],
        scorer=CosineScores(9.0),
        loss=FullSoftmax(0.2),
        ks=[3],
        top_k=4,
    ).eval()
    titles = torch.randn(V, TEXT)
    model.read_titles(titles, torch.ones(V, dtype=torch.bool))
    examples = make_examples([[1, 2, 3, 2], [5, 6]])
    model.read_training_sessions(examples, fitting=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    loaded = LLM4SBRWrapper.load_from_checkpoint(save(model, tmp_path / "one.ckpt")).eval()
    loaded.read_training_sessions(examples, fitting=False)
    batch = BATCH._replace(views=torch.randn(3, 2, TEXT), view_mask=torch.ones(3, 2, dtype=torch.bool))
    assert torch.equal(loaded(batch), model(batch))
    assert loaded.losses(batch) == model.losses(batch)
    assert (loaded.top_k, loaded.alignment.uniform, loaded.backbone.steps) == (4, False, 2)


def test_options_of_a_backbone_in_a_group(tmp_path):
    model = SBRModule(CORE(V, 8, transformer=TransformerSize(num_blocks=1, max_length=7))).eval()
    loaded = SBRModule.load_from_checkpoint(save(model, tmp_path / "one.ckpt")).eval()
    assert torch.equal(loaded(BATCH), model(BATCH))


class Mine(SRGNN):
    """A backbone that nobody registered."""


class Raise(ScoreHead):
    """A head that nobody registered."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, scores, session, batch):
        return scores + self.by


def test_a_class_of_ones_own_is_built_only_if_it_is_given(tmp_path):
    model = SBRModule(Mine(V, 8), heads=[Raise(2.0)]).eval()
    path = save(model, tmp_path / "one.ckpt")
    with pytest.raises(InputError, match="not registered"):
        SBRModule.load_from_checkpoint(path, classes=[Mine])
    loaded = SBRModule.load_from_checkpoint(path, classes=[Mine, Raise]).eval()
    assert torch.equal(loaded(BATCH), model(BATCH))


class Mean(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.items = torch.nn.Embedding(V + 1, 4, padding_idx=0)


def test_what_has_no_plain_form_must_be_given(tmp_path):
    def core():
        return ModuleBackbone(V, Mean(), lambda module, batch: module.items(batch.item_ids).mean(1), "items")

    model = SBRModule(core()).eval()
    path = save(model, tmp_path / "one.ckpt")
    with pytest.raises(InputError, match=r"backbone.*backbone=…"):
        SBRModule.load_from_checkpoint(path)
    loaded = SBRModule.load_from_checkpoint(path, backbone=core()).eval()
    assert torch.equal(loaded(BATCH), model(BATCH))


def test_what_is_not_a_checkpoint_of_the_class_is_refused(tmp_path):
    path = save(SBRModule(SRGNN(V, 8)), tmp_path / "one.ckpt")
    with pytest.raises(InputError, match="not of LLM4SBRWrapper"):
        LLM4SBRWrapper.load_from_checkpoint(path)
    with pytest.raises(InputError, match="no such checkpoint"):
        SBRModule.load_from_checkpoint(tmp_path / "two.ckpt")
    with pytest.raises(InputError, match="of another model"):
        SBRModule.load_from_checkpoint(path, backbone=SRGNN(V, 4))
    with pytest.raises(InputError, match="tensors and plain values only"):
        SBRModule.load_from_checkpoint(path, weights_only=False)
    checkpoint = torch.load(path, weights_only=True)
    whole = dict(checkpoint["state_dict"])
    missing = next(iter(whole))
    del checkpoint["state_dict"][missing]
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match=f"the model has {missing}, the checkpoint does not"):
        SBRModule.load_from_checkpoint(path)
    loaded = SBRModule.load_from_checkpoint(path, strict=False).state_dict()
    assert all(torch.equal(loaded[name], whole[name]) for name in checkpoint["state_dict"])
    del checkpoint["llm4sbr"]["model"]
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match="does not name its model"):
        SBRModule.load_from_checkpoint(path)


def test_heads_that_need_a_text_side_say_so_in_a_bare_model():
    for head in (ItemTitles(2), TextScores(2)):
        with pytest.raises(InputError, match="LLM4SBRWrapper"):
            SBRModule(SRGNN(V, 8), heads=[head])(BATCH)
