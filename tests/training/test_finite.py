"""Numbers that are not finite stop a run where they arise, and the message names the place."""

import pytest
import torch
from lightning.pytorch import Trainer
from plain import plain_bare, plain_wrapped
from shops import write_shop
from torch.optim import SGD

from llm4sbr import InputError, LLM4SBRWrapper, SBRModule
from llm4sbr.backbones import SRGNN
from llm4sbr.baselines import Popularity
from llm4sbr.baselines.module import BaselineModule
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.nn.alignment import Alignment
from llm4sbr.nn.heads import RepeatExplore, ScoreHead
from llm4sbr.testing import make_batch

BATCH = make_batch([[1, 2, 3], [4], [5, 5, 6]], [2, 3, 4])


class LogMean(SRGNN):
    """NaN from its read-out, while its weights stay finite."""

    def merge(self, interests):
        return super().merge(interests).mean(1, keepdim=True).abs().neg().log().expand(-1, 8)


class Wrong(ScoreHead):
    """Gives NaN from a call on."""

    def __init__(self, value=float("nan"), good_calls=0):
        super().__init__()
        self.value, self.good_calls = value, good_calls

    def forward(self, scores, session, batch):
        self.good_calls -= 1
        return scores + (0.0 if self.good_calls >= 0 else self.value)


@pytest.fixture
def shop(tmp_path):
    folder = write_shop(tmp_path / "shop", sessions=40)
    return SessionDataModule(str(folder), split=SplitBy(by="column"), batch_size=16)  # 4 steps an epoch


def trainer(tmp_path, **more):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **{"max_epochs": 2, "num_sanity_val_steps": 0, "enable_checkpointing": False, **more},
    )


@pytest.mark.parametrize(
    ("model", "step", "part"),
    [
        (lambda: plain_bare(LogMean(9, 8)), 1, "the session vector"),
        (lambda: plain_bare(SRGNN(9, 8), heads=[RepeatExplore(), Wrong(good_calls=3)]), 4, "the head Wrong"),
        (lambda: plain_bare(SRGNN(9, 8), heads=[Wrong(float("inf")), RepeatExplore()]), 1, "the head Wrong"),
        (lambda: plain_bare(SRGNN(9, 8), optimizer=lambda p: SGD(p, lr=1e38)), 2, "the (weight|backbone)"),
    ],
)
def test_training_stops_at_the_first_loss_that_is_not_finite(shop, tmp_path, model, step, part):
    """Seen to fail with `on_after_backward` removed: the training ran to its end."""
    torch.manual_seed(0)
    running = trainer(tmp_path)
    with pytest.raises(InputError, match=rf"of step {step} is not finite.*{part}"):
        running.fit(model(), shop)
    assert running.global_step == step - 1  # the weights of the step before


@pytest.mark.parametrize("place", ["views", "alignment"])
def test_the_loss_of_views_names_the_part(shop, tmp_path, place):
    class Broken(Alignment):
        def forward(self, z, h, mask):
            alignment, uniformity = super().forward(z, h, mask)
            return alignment * float("nan"), uniformity

    def views(batch):
        size = len(batch.lengths)
        known = torch.ones(size, 2, dtype=torch.bool)
        return torch.full((size, 2, 6), float("nan") if place == "views" else 1.0), known

    model = plain_wrapped(SRGNN(9, 8), text_dim=6, alignment=Broken() if place == "alignment" else None)
    model.view_table = views
    found = "those of the views" if place == "views" else r"\(alignment\) of step 1"
    with pytest.raises(InputError, match=found):
        trainer(tmp_path).fit(model, shop)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_stop_an_evaluation(shop, tmp_path, verb, value):
    """Seen to fail with the check of `finite_scores` removed."""
    model = plain_bare(SRGNN(9, 8), heads=[Wrong(value)])
    with pytest.raises(InputError, match=r"scores are not finite; .* those of the head Wrong"):
        getattr(trainer(tmp_path), verb)(model, shop)


def test_masked_items_are_no_error(shop, tmp_path):
    class OnlyFirst(ScoreHead):
        def forward(self, scores, session, batch):
            return scores.where(torch.arange(scores.size(1)) == 0, -torch.inf)

    model = plain_bare(SRGNN(9, 8), heads=[OnlyFirst()], top_k=3)
    trainer(tmp_path).validate(model, shop, verbose=False)
    (first, *_) = trainer(tmp_path).predict(model, shop)
    assert (first.items[:, 0] == 1).all()


def test_a_baseline_with_nan_is_stopped(shop, tmp_path):
    class Never(Popularity):
        def scores(self, batch):
            return super().scores(batch) * float("nan")

    with pytest.raises(InputError, match="scores are not finite"):
        trainer(tmp_path).test(BaselineModule(Never()), shop)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_with_broken_weights_is_refused_with_the_tensors_name(shop, tmp_path, value):
    """By each of the three readers."""
    model = plain_bare(SRGNN(9, 8))
    running = trainer(tmp_path)
    running.fit(model, shop)
    path = tmp_path / "good.ckpt"
    running.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    name = next(iter(dict(model.named_parameters())))
    content["state_dict"][name].view(-1)[3] = value
    broken = tmp_path / "broken.ckpt"
    torch.save(content, broken)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        SBRModule.load_from_checkpoint(broken)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        trainer(tmp_path).test(plain_bare(SRGNN(9, 8)), shop, ckpt_path=broken, weights_only=True)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[3] = value
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        running.save_checkpoint(path)  # the good file stays
    SBRModule.load_from_checkpoint(path)


def test_titles_that_are_not_finite_are_refused():
    model = LLM4SBRWrapper(SRGNN(9, 8), text_dim=6)
    titles = torch.randn(9, 6)
    titles[4, 2] = torch.inf
    with pytest.raises(InputError, match="title embeddings are not finite"):
        model.read_titles(titles, torch.ones(9, dtype=torch.bool))
