"""Evaluation in blocks of sessions gives what a whole batch gives."""

import pytest
import torch

from llm4sbr import LLM4SBRWrapper, SBRModule
from llm4sbr.contracts.registry import BACKBONES, load_plugins
from llm4sbr.nn.candidates import Candidates
from llm4sbr.nn.scorers import Scorer
from llm4sbr.testing import make_batch
from llm4sbr.training import sbr_module

V, D, TEXT = 30, 8, 6
SESSIONS, TARGETS = [[3, 9, 3], [20], [7, 8], [29, 30], [1, 1]], [14, 5, 30, 1, 0]


class Distance(Scorer):
    """Scores that are no product."""

    def forward(self, session, items):
        return -torch.cdist(session, items)


def models():
    """A product, scores of the backbone, views and heads, a scorer without factors."""
    named = load_plugins(BACKBONES)
    torch.manual_seed(0)
    wrapped = LLM4SBRWrapper(named["GRU4Rec"](V, D), text_dim=TEXT)
    wrapped.read_titles(torch.randn(V, TEXT), torch.arange(V) % 4 > 0)
    yield "SRGNN", SBRModule(named["SRGNN"](V, D), top_k=4)
    yield "TAGNN", SBRModule(named["TAGNN"](V, D), top_k=4)
    yield "MSGIFSR", SBRModule(named["MSGIFSR"](V, D), top_k=4)
    yield "wrapped", wrapped
    yield "distance", SBRModule(named["SRGNN"](V, D), scorer=Distance(), top_k=4)


MODELS = dict(models())


@pytest.mark.parametrize("limit", [1, 2 * V, 4 * V])
@pytest.mark.parametrize("name", MODELS)
def test_blocks_are_the_whole_batch(name, limit, monkeypatch):
    """Seen to fail with the first sessions' vectors, or clicks, in every block."""
    model = MODELS[name].eval()
    model.candidates = Candidates(torch.arange(V) != 6, seen=False)
    batch = make_batch(SESSIONS, target=TARGETS)
    if name == "wrapped":
        views = torch.randn(5, 2, TEXT, generator=torch.Generator().manual_seed(1))
        batch = batch._replace(views=views, view_mask=torch.arange(10).view(5, 2) % 3 > 0)
    sizes, found = [], []
    for at_once in (10**6, limit):
        monkeypatch.setattr(sbr_module, "SCORES_AT_ONCE", at_once)
        model.val_ranking.reset()
        with torch.inference_mode():
            model.validation_step(batch, 0)
            found.append((model.predict_step(batch, 0), model.val_ranking.compute()))
            sizes.append([len(scores) for _, scores in model.blocks(batch)])
    (whole, metrics), (parts, again) = found
    assert sizes[0] == [5]
    assert sizes[1] == {1: [1] * 5, 2 * V: [2, 2, 1], 4 * V: [4, 1]}[limit]
    assert torch.equal(whole.example_index, parts.example_index)
    assert torch.equal(whole.items, parts.items)
    torch.testing.assert_close(whole.scores, parts.scores)
    assert metrics == again


def test_memory_of_scores_is_bounded(monkeypatch):
    """No product of a step is larger than the limit."""
    monkeypatch.setattr(sbr_module, "SCORES_AT_ONCE", 2 * V)
    model, largest = MODELS["SRGNN"].eval(), [0]

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
            made = function(*arguments, **(kwargs or {}))
            if (
                isinstance(made, torch.Tensor) and made.shape[1:] == (V,) and len(made) != D
            ):  # (d, V) are items
                largest[0] = max(largest[0], made.numel())
            return made

    with torch.no_grad(), Watch():
        model.predict_step(make_batch(SESSIONS * 4, target=TARGETS * 4), 0)
    assert 0 < largest[0] <= 2 * V
