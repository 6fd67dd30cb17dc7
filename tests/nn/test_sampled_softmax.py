"""SampledSoftmax and BlockwiseSoftmax against FullSoftmax: value and gradient."""

import pytest
import torch

from llm4sbr import InputError, LLM4SBRWrapper, SBRModule
from llm4sbr.contracts.registry import BACKBONES, load_plugins
from llm4sbr.nn.heads import ItemTitles, RepeatExplore, TextScores
from llm4sbr.nn.losses import BlockwiseSoftmax, FullSoftmax, SampledSoftmax
from llm4sbr.testing import make_batch, make_examples

V, D, TEXT = 60, 16, 12
SESSIONS = [[3, 9, 3, 14], [20], [7, 8, 9], [59, 60], [1, 1]]
TARGETS = [14, 5, 60, 1, 33]
NARROW = sorted(set(load_plugins(BACKBONES)) - {"GCEGNN", "DHCN", "MSGIFSR", "RecBoleBackbone"})


def model_of(name="SRGNN", loss=None, wrapped=False, **options):
    torch.manual_seed(0)
    backbone = load_plugins(BACKBONES)[name](V, D)
    options = {"session_dropout": 0.0, "loss": loss, **options}
    if not wrapped:
        return SBRModule(backbone, **options)
    model = LLM4SBRWrapper(backbone, text_dim=TEXT, **options)
    model.read_titles(torch.randn(V, TEXT), torch.arange(V) % 7 > 0)
    return model


def batch_of(wrapped=False):
    batch = make_batch(SESSIONS, target=TARGETS)
    if not wrapped:
        return batch
    mask = torch.tensor([[True, True], [False, True], [True, True], [False, False], [True, False]])
    views = torch.randn(5, 2, TEXT, generator=torch.Generator().manual_seed(1))
    return batch._replace(views=views, view_mask=mask)


def gradients(model, batch):
    """Loss and gradients by name. Dropout stays off: another number of items would draw other masks."""
    model.eval()
    losses = model.losses(batch)
    model.zero_grad()
    losses["loss"].backward()
    return losses["loss"].detach(), {
        name: one.grad.to_dense() if one.grad.is_sparse else one.grad
        for name, one in model.named_parameters()
        if one.grad is not None
    }


def assert_same(one, other, tolerance=1e-5):
    (loss, mine), (expected, theirs) = one, other
    torch.testing.assert_close(loss, expected, atol=tolerance, rtol=tolerance)
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], atol=tolerance, rtol=1e-3, msg=name)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", NARROW)
def test_a_sample_of_all_items_is_the_full_softmax(name, wrapped, smoothing):
    """Seen to fail without renumbering the graph's nodes, and without the buffer of titles."""
    batch = batch_of(wrapped)
    sampled = model_of(name, SampledSoftmax(negatives=V, smoothing=smoothing), wrapped)
    full = model_of(name, FullSoftmax(smoothing), wrapped)
    assert_same(gradients(sampled, batch), gradients(full, batch))
    assert sampled.backbone.num_items == V
    assert torch.equal(sampled.eval()(batch), full.eval()(batch))  # the whole tables are back


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", NARROW)
def test_scores_of_drawn_items_are_those_of_the_whole_catalogue(name, wrapped):
    """Seen to fail for LESSR, which listed the items of the whole catalogue."""
    loss, batch = SampledSoftmax(negatives=7), batch_of(wrapped)
    model = model_of(name, loss, wrapped, heads=[]).eval()
    with torch.no_grad(), loss.narrowed(model, batch) as narrow:
        items, found = loss.items, model(narrow)
    assert len(items) < V
    torch.testing.assert_close(found, model(batch)[:, items - 1].detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_blocks_of_sessions_are_the_full_softmax(rows, wrapped, smoothing):
    found = []
    for loss in (BlockwiseSoftmax(rows, smoothing), FullSoftmax(smoothing)):
        heads = [*([TextScores(4), ItemTitles(5)] if wrapped else []), RepeatExplore()]
        found.append(gradients(model_of(loss=loss, wrapped=wrapped, heads=heads), batch_of(wrapped)))
    assert_same(*found)


def test_dropout_of_the_session_is_that_of_a_whole_batch():
    losses = []
    for loss in (BlockwiseSoftmax(2), FullSoftmax()):
        model = model_of(loss=loss, session_dropout=0.5).train()
        torch.manual_seed(3)
        losses.append(model.losses(batch_of())["loss"])
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("popularity", [0.0, 0.7])
def test_the_estimate_of_the_sum_has_no_bias(popularity):
    """Mean of the estimated sums over draws; seen to fail with the correction left out."""
    loss = SampledSoftmax(negatives=8, popularity=popularity)
    loss.read_training_sessions(make_examples([[1, 2, 2, 2], [3, 2, 1, 40]] * 3), V)
    model = model_of(loss=loss, heads=[]).eval()
    batch = batch_of()
    kept = {}
    loss.forward = lambda scores, target: kept.update(sum=scores.double().exp().sum(1)) or scores.sum()
    found = []
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(6000):
            model.losses(batch)
            found.append(kept["sum"])
        exact = model(batch).double().exp().sum(1)
    error = torch.stack(found).std(0) / len(found) ** 0.5
    assert ((torch.stack(found).mean(0) - exact).abs() < 5 * error).all()


def test_only_rows_of_the_step_have_a_gradient():
    model = model_of(loss=SampledSoftmax(negatives=5), heads=[])
    model.losses(batch_of())["loss"].backward()
    table = model.backbone.embedding.weight
    assert table.grad.is_sparse
    touched = set(table.grad.coalesce().indices()[0].tolist())
    own = {item for session in SESSIONS for item in session} | set(TARGETS)
    assert own | {0} <= touched
    assert len(touched) <= len(own) + 1 + 5


def test_items_of_other_sessions_are_not_in_a_sessions_sum():
    """Only drawn items are; seen to fail with a correction of 0 for all of the batch's items."""
    alone, together = ([SESSIONS[0]], [TARGETS[0]]), (SESSIONS, TARGETS)
    found = []
    for sessions, targets in (alone, together):
        loss = SampledSoftmax(negatives=6)
        loss.forward = lambda scores, target: scores.logsumexp(1)[0]
        torch.manual_seed(0)
        model = model_of(loss=loss, heads=[]).eval()
        torch.manual_seed(5)
        found.append(model.losses(make_batch(sessions, target=targets))["loss"])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("GCEGNN", "reads items beyond the batch"),
        ("DHCN", "reads items beyond the batch"),
        ("MSGIFSR", "compares each item with the whole catalogue"),
    ],
)
def test_a_backbone_that_reads_the_whole_catalogue_is_refused(name, reason):
    """For MSGIFSR the scores of drawn items were seen to differ from those of the whole catalogue."""
    model = model_of(name, SampledSoftmax(negatives=5))
    examples = make_examples(SESSIONS)
    model.read_training_sessions(examples, fitting=True)
    with pytest.raises(InputError, match=f"{name} {reason}"):
        model.losses(batch_of())


def test_a_failed_step_leaves_the_whole_tables():
    model = model_of(loss=SampledSoftmax(negatives=5))
    model.backbone.encode = lambda batch: 1 / 0
    before = model.backbone.embedding.weight
    with pytest.raises(ZeroDivisionError):
        model.losses(batch_of())
    assert model.backbone.embedding.weight is before
    assert model.backbone.num_items == V


def test_blocks_refuse_a_backbone_with_scores_of_its_own():
    model = model_of("NISERPlus", BlockwiseSoftmax(2))
    with pytest.raises(InputError, match="scores of its own"):
        model.losses(batch_of())


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(InputError, match="trains in one process"):
        model_of(loss=SampledSoftmax(negatives=5)).losses(batch_of())
