"""The wrapper: losses, masks, and a script of one's own with a plain Trainer."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from plain import plain_bare, plain_wrapped

from llm4sbr import InputError, LLM4SBRWrapper
from llm4sbr.backbones import SRGNN, GRU4Rec
from llm4sbr.nn.alignment import Alignment, alignment_loss, uniformity_loss
from llm4sbr.nn.fusion import FUSIONS
from llm4sbr.nn.heads import ScoreHead
from llm4sbr.nn.losses import FullSoftmax
from llm4sbr.nn.scorers import CosineScores
from llm4sbr.testing import make_batch
from llm4sbr.training.distributed import IdleParameters
from llm4sbr.training.schedules import CosineToEnd, fuse_on_cpu

SESSIONS = [[1, 2, 3], [4], [5, 5, 6], [7, 8]]


def with_views(batch, mask=None, text_dim=6):
    torch.manual_seed(0)
    size = len(batch.lengths)
    views = torch.randn(size, 2, text_dim)
    return batch._replace(views=views, view_mask=torch.ones(size, 2).bool() if mask is None else mask)


def small(**settings):
    torch.manual_seed(0)
    return plain_wrapped(SRGNN(10, 8), text_dim=6, **settings)


def test_loss_is_eq_15():
    model, batch = small(alignment=Alignment(0.3)), with_views(make_batch(SESSIONS, [2, 3, 4, 5]))
    losses = model.losses(batch)
    enhanced = model.enhance(batch)
    alignment = sum(alignment_loss(enhanced.z[:, k], enhanced.h[:, k]) for k in range(2)) / 2
    uniformity = (
        sum((uniformity_loss(enhanced.z[:, k]) + uniformity_loss(enhanced.h[:, k])) / 2 for k in range(2)) / 2
    )
    rec = torch.nn.functional.cross_entropy(model(batch), batch.target - 1)
    assert torch.allclose(losses["loss"], rec + 0.3 * (alignment + uniformity), atol=1e-6)


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_views_change_the_scores_and_masked_ones_do_not(fusion):
    model, batch = small(fusion=fusion).eval(), make_batch(SESSIONS)
    mask = torch.tensor([[True, True], [False, False], [True, False], [False, False]])
    seen = model(with_views(batch, mask))
    blind = model(batch)
    assert not torch.allclose(seen[0], blind[0])
    assert torch.equal(seen[1], blind[1])
    assert not torch.allclose(seen[2], blind[2])
    garbage = with_views(batch, mask)
    garbage = garbage._replace(views=garbage.views.where(mask.unsqueeze(-1), torch.tensor(1e6)))
    assert torch.allclose(model(garbage), seen)


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_every_view_masked_still_trains_and_recommends(fusion):
    model = small(fusion=fusion)
    batch = with_views(make_batch(SESSIONS, [2, 3, 4, 5]), torch.zeros(4, 2).bool())
    losses = model.losses(batch)
    losses["loss"].backward()
    assert losses["loss"].isfinite()
    assert losses["alignment"] == losses["uniformity"] == 0
    assert model.predict_step(batch, 0).items.shape == (4, 10)


@pytest.mark.parametrize("fusion", ["average", "residual"])
def test_with_no_view_they_are_the_bare_backbone(fusion):
    model = small(fusion=fusion).eval()
    batch = make_batch(SESSIONS)
    assert torch.equal(model(batch), model.backbone(batch))


@pytest.mark.parametrize("sessions", [[[3]], [[2, 2, 2]], [[1, 2], [1, 2]]])
def test_batches_of_one_and_of_identical_sessions_have_finite_gradients(sessions):
    model = small()
    model.losses(with_views(make_batch(sessions)))["loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_padding_is_never_recommended():
    items = small(top_k=50).predict_step(make_batch(SESSIONS), 0).items
    assert sorted(items[0].tolist()) == list(range(1, 11))


def test_wrong_views_and_settings_are_refused():
    with pytest.raises(InputError, match="text_dim"):
        small()(with_views(make_batch(SESSIONS), text_dim=7))
    with pytest.raises(InputError, match="fusion"):
        plain_wrapped(SRGNN(10), fusion="sum")
    with pytest.raises(InputError, match="reads one of"):
        plain_wrapped(SRGNN(10), interest_of_view=["mid_term"])
    with pytest.raises(InputError, match="SessionBackbone"):
        plain_wrapped(torch.nn.Linear(2, 2))


def fit(model, tmp_path, sessions=SESSIONS * 5):
    batches = [with_views(make_batch(sessions, [s[-1] % 10 + 1 for s in sessions]))] * 20
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer = Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, loader, loader)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("backbone", [SRGNN, GRU4Rec])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_plain_trainer_learns(tmp_path, backbone, wrapped):
    seed_everything(0)
    core = backbone(10, 16)
    fast = partial(torch.optim.Adam, lr=0.02, weight_decay=1e-5)
    model = plain_bare(core, optimizer=fast)
    if wrapped:
        model = plain_wrapped(core, text_dim=6, optimizer=fast)
    logged = fit(model, tmp_path)
    assert logged["val/recall@5"] == 1
    assert logged["val/mrr@20"] > 0.95
    assert wrapped == ("train/alignment" in logged)


def test_same_seed_same_numbers(tmp_path):
    runs = []
    for _ in range(2):
        seed_everything(3)
        runs.append(fit(plain_wrapped(SRGNN(10, 8), text_dim=6), tmp_path))
    assert runs[0] == runs[1]


def test_a_checkpoint_loads_with_weights_only(tmp_path):
    model = small(alignment=Alignment(0.2))
    trainer = Trainer(accelerator="cpu", logger=False, max_epochs=1, enable_progress_bar=False,
                      default_root_dir=tmp_path, enable_model_summary=False)  # fmt: skip
    loader = torch.utils.data.DataLoader([with_views(make_batch(SESSIONS))], batch_size=None)
    trainer.fit(model, loader)
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    torch.load(path, weights_only=True)
    twin = LLM4SBRWrapper.load_from_checkpoint(path)
    assert twin.alignment.tau == 0.2
    batch = with_views(make_batch(SESSIONS))
    assert torch.equal(twin.eval()(batch), model.eval()(batch))


def test_scaled_cosines_replace_products_for_bare_and_wrapped_alike():
    batch = with_views(make_batch(SESSIONS))
    for model in (small(scorer=CosineScores(5)), plain_bare(SRGNN(10, 8), scorer=CosineScores(5))):
        session = model.eval().read(batch)[0]
        cosine = torch.nn.functional.cosine_similarity(
            session.unsqueeze(1), model.backbone.item_embeddings().unsqueeze(0), dim=-1
        )
        assert torch.allclose(model(batch), 5 * cosine, atol=1e-5)


def test_label_smoothing_is_spread_over_the_catalogue():
    batch = make_batch(SESSIONS, [2, 3, 4, 5])
    model = plain_bare(SRGNN(10, 8), loss=FullSoftmax(0.2))
    logs = model(batch).log_softmax(-1)
    expected = -(0.8 * logs.gather(1, batch.target.unsqueeze(1) - 1).squeeze(1) + 0.2 * logs.mean(1)).mean()
    assert torch.allclose(model.losses(batch)["loss"], expected, atol=1e-6)


def test_ablations_leave_out_what_they_name():
    batch = with_views(make_batch(SESSIONS, [2, 3, 4, 5]))
    for options, kept in (
        ({"align": False}, ["uniformity"]),
        ({"uniform": False}, ["alignment"]),
        ({"align": False, "uniform": False}, []),
    ):
        losses = small(alignment=Alignment(0.3, **options)).losses(batch)
        expected = losses["rec_loss"] + 0.3 * sum(losses[name] for name in kept)
        assert torch.allclose(losses["loss"], expected, atol=1e-6)
    separate = small(separate_projections=True)
    z = separate.enhance(batch).z
    assert torch.allclose(z[:, 0], separate.projection(batch.views[:, 0]))
    assert torch.allclose(z[:, 1], separate.further_projections[0](batch.views[:, 1]))
    assert not torch.allclose(z[:, 1], separate.projection(batch.views[:, 1]))


def test_hidden_views_are_hidden_from_the_fusion_alone_and_in_training_alone():
    batch = with_views(make_batch(SESSIONS, [2, 3, 4, 5]))
    model = small(fusion="residual", view_dropout=0.999)
    hidden = model.enhance(batch)
    assert torch.equal(hidden.session, model.backbone.merge(hidden.interests))
    assert hidden.mask.all()  # known all the same, and aligned
    assert not torch.equal(model.eval().enhance(batch).session, hidden.session)


@pytest.mark.parametrize("kind", [plain_bare, plain_wrapped])
def test_dropout_on_the_session_vector_is_for_training_alone(kind):
    torch.manual_seed(0)
    model, batch = kind(SRGNN(10, 8), session_dropout=0.999), make_batch(SESSIONS)
    session, interests, _ = model.read(batch)
    assert (model.score(session, interests) == 0).float().mean() > 0.9
    assert torch.equal(model.eval().score(session, interests), model.backbone.score(session, interests))


def test_options_out_of_range_are_refused():
    with pytest.raises(InputError, match="session_dropout"):
        small(session_dropout=1.0)
    with pytest.raises(InputError, match="view_dropout"):
        small(view_dropout=1.0)
    for smoothing in (-0.1, 1.0, math.nan):
        with pytest.raises(InputError, match="smoothing"):
            FullSoftmax(smoothing)
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="scale"):
            CosineScores(scale)
    for tau in (-1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="tau"):
            Alignment(tau)

    class Own(SRGNN):
        def score(self, session, interests):
            return super().score(session, interests)

    with pytest.raises(InputError, match="scores of its own"):
        plain_bare(Own(10), scorer=CosineScores(3.0))


def test_the_cosine_schedule_ends_at_zero_with_the_training(tmp_path):
    model = plain_bare(SRGNN(10, 8), optimizer=partial(torch.optim.Adam, lr=0.01), lr_scheduler=CosineToEnd)
    batches = [make_batch(SESSIONS, [2, 3, 4, 5])] * 3
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    quiet["enable_checkpointing"] = False
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    rates = []
    model.on_train_batch_start = lambda *_: rates.append(trainer.optimizers[0].param_groups[0]["lr"])
    trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None))
    assert rates == pytest.approx([0.01 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)])
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(InputError, match="max_epochs"):
        Trainer(max_epochs=-1, default_root_dir=tmp_path, **quiet).fit(
            model, torch.utils.data.DataLoader(batches, batch_size=None)
        )


class Recorder(ScoreHead):
    """Doubles the scores and adds its number; notes what it is told."""

    def __init__(self, number, told):
        super().__init__()
        self.number, self.told = number, told

    def attach(self, backbone):
        self.told.append((self.number, "backbone", backbone.num_items))

    def attach_text(self, backbone, text_dim, num_views):
        self.told.append((self.number, "text", text_dim, num_views))

    def forward(self, scores, session, batch):
        return 2 * scores + self.number


@pytest.mark.parametrize("kind", [plain_bare, partial(plain_wrapped, text_dim=6)])
def test_heads_are_attached_once_and_applied_in_their_order(kind):
    """Seen to fail with the heads applied in reverse."""
    told = []
    model = kind(SRGNN(10, 8), heads=[Recorder(1, told), Recorder(2, told)]).eval()
    plain, batch = kind(model.backbone).eval(), make_batch(SESSIONS)
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(model(batch), 4 * plain(batch) + 2 * 1 + 2)
    backbones = [(1, "backbone", 10), (2, "backbone", 10)]
    assert told == [*backbones, *([(1, "text", 6, 2), (2, "text", 6, 2)] if kind is not plain_bare else [])]


def test_parameters_that_a_loss_leaves_out_get_a_gradient_of_zero():
    """And the loss keeps its value. Seen to fail with no term for them."""
    idle, weights = IdleParameters(), [torch.nn.Parameter(torch.full((3,), 2.0)) for _ in range(3)]
    weights[2].requires_grad_(False)
    for used, unused in (weights[:2], weights[1::-1]):  # what the first loss left out is used in the second
        loss = idle.touch(used.square().sum(), weights)
        assert loss == 12
        loss.backward()
        assert used.grad.tolist() == [4.0] * 3
        assert unused.grad.tolist() == [0.0] * 3
        used.grad = unused.grad = None


def test_an_optimiser_keeps_the_kernel_that_its_user_chose():
    weights = [torch.nn.Parameter(torch.zeros(2))]
    for options in ({}, {"foreach": True}, {"capturable": True}):
        optimizer = torch.optim.AdamW(weights, **options)
        fuse_on_cpu(optimizer, weights, None)
        assert (optimizer.param_groups[0]["fused"] is True) == (not options)


def test_gradients_are_clipped_in_mixed_precision_too(tmp_path):
    """Lightning refuses that with a fused optimiser; seen to fail with one."""
    batches = [make_batch(SESSIONS, [2, 3, 4, 5])]
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", precision="bf16-mixed", gradient_clip_val=1.0, logger=False,
        enable_progress_bar=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(plain_bare(SRGNN(10, 8)), torch.utils.data.DataLoader(batches, batch_size=None))
    assert not trainer.optimizers[0].param_groups[0]["fused"]
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(plain_bare(SRGNN(10, 8)), torch.utils.data.DataLoader(batches, batch_size=None))
    assert trainer.optimizers[0].param_groups[0]["fused"]
