"""Public checks for plug-ins: test your own backbone with the checks of the built-in backbones."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import INTERESTS, Interests, SessionBatch, batch_prefixes, build_session_graph
from llm4sbr.contracts.examples import Examples


def make_batch(
    sessions: list[list[int]],
    target: list[int] | None = None,
    *,
    padding: int = 0,
    graph: bool = True,
) -> SessionBatch:
    """Build a batch from lists of items.

    Args:
        sessions: Clicks of each session, items 1..V.
        target: Next items; by default 1 for every session.
        padding: Number of extra padding columns on the right.
        graph: Whether to build the batch's graph.

    Shapes:
        - item_ids: ``(B, longest + padding)``

    >>> make_batch([[3, 4], [5]]).item_ids.tolist()
    [[3, 4], [5, 0]]
    """
    batch = batch_prefixes(sessions, target or [1] * len(sessions), range(len(sessions)), graph=False)
    item_ids = torch.nn.functional.pad(batch.item_ids, (0, padding))
    made = build_session_graph(item_ids, batch.lengths) if graph else None
    return batch._replace(item_ids=item_ids, graph=made)


def make_examples(sessions: list[list[int]]) -> Examples:
    """Build training examples from lists of items: every prefix predicts the next click.

    Shapes:
        - E: the number of clicks minus the number of sessions

    >>> make_examples([[3, 4, 5], [6, 7]]).prefixes()
    [(3,), (3, 4), (6,)]
    """
    start, end, session = [], [], []
    first = 0
    for number, clicks in enumerate(sessions):
        for position in range(1, len(clicks)):
            start.append(first)
            end.append(first + position)
            session.append(number)
        first += len(clicks)
    clicks_ = np.array([item for clicks in sessions for item in clicks], dtype=np.int64)
    ends = np.array(end, dtype=np.int64)
    return Examples(
        clicks=clicks_,
        start=np.array(start, dtype=np.int64),
        end=ends,
        target=clicks_[ends],
        session=np.array(session, dtype=np.int64),
        session_ids=tuple(f"s{number}" for number in range(len(sessions))),
    )


def assert_backbone(
    make: Callable[[int], SessionBackbone], num_items: int = 13, tolerance: float = 1e-5
) -> None:
    """Assert that a backbone fulfils the contract of `SessionBackbone`.

    It checks shapes; finite scores for one-click sessions and for a session of one repeated item; that extra
    padding changes nothing; that a session has the same scores alone and in a batch; that permuting the batch
    permutes the result; that scores with and without a graph are equal; that gradients reach every parameter;
    and that a state dict restores the same model. Checks that randomness would disturb use evaluation mode.

    Args:
        make: Function that builds the backbone for a number of items, e.g. ``SRGNN``.
        num_items: Catalogue size of the check, at least 10.
        tolerance: Largest allowed absolute difference.

    Raises:
        AssertionError: If a check fails; the message names the first failed check.
    """
    torch.manual_seed(0)
    backbone = make(num_items)
    assert isinstance(backbone, SessionBackbone), "make(num_items) must return a SessionBackbone"
    sessions = [[1, 2, 3, 2], [num_items], [5, 5, 5], [9, 8, 7, 6, 1], [4, 2]]
    backbone.read_training_sessions(make_examples([*sessions, [num_items, 3], [6, 7, 8, 2]]))
    backbone.eval()
    _check_shapes(backbone, make_batch(sessions), num_items)

    scores = backbone(make_batch(sessions)).detach()
    _same(backbone(make_batch(sessions, padding=3)), scores, "extra padding changes the scores", tolerance)
    _same(backbone(make_batch(sessions, graph=False)), scores, "a batch without a graph differs", tolerance)
    order = [3, 1, 4, 0, 2]
    permuted = backbone(make_batch([sessions[row] for row in order]))
    _same(permuted, scores[order], "permuting the batch does not permute the scores", tolerance)
    for row, session in enumerate(sessions):
        alone = backbone(make_batch([session]))[0]
        _same(alone, scores[row], f"session {session} scores differently alone", tolerance)

    _check_gradients(backbone, make_batch(sessions))

    stream = io.BytesIO()
    torch.save(backbone.state_dict(), stream)
    stream.seek(0)
    torch.manual_seed(1)
    twin = make(num_items).eval()
    twin.load_state_dict(torch.load(stream, weights_only=True))
    _same(twin(make_batch(sessions)), scores, "a state dict does not restore the same model", tolerance)


def _check_shapes(backbone: SessionBackbone, batch: SessionBatch, num_items: int) -> None:
    interests = backbone.encode(batch)
    expected = (len(batch.lengths), backbone.embedding_dim)
    assert isinstance(interests, Interests), "encode must return Interests"
    for name in INTERESTS:
        vector = getattr(interests, name)
        assert vector.shape == expected, f"{name} is {tuple(vector.shape)}, expected {expected}"
    session = backbone.merge(interests)
    assert session.shape == expected, f"merge gives {tuple(session.shape)}, expected {expected}"
    items = backbone.item_embeddings()
    assert items.shape == (num_items, backbone.embedding_dim), (
        f"item_embeddings is {tuple(items.shape)}, expected {(num_items, backbone.embedding_dim)}: "
        "one row per real item and none for padding"
    )
    scores = backbone(batch)
    assert scores.shape == (len(batch.lengths), num_items), (
        f"scores are {tuple(scores.shape)}, expected {(len(batch.lengths), num_items)}"
    )
    assert scores.isfinite().all(), "scores are not finite"


def _check_gradients(backbone: SessionBackbone, batch: SessionBatch) -> None:
    interests = backbone.encode(batch)
    # Both interests and the scores, because the wrapper aligns the interests.
    total = sum(getattr(interests, name).square().sum() for name in INTERESTS)
    total = total + backbone(batch).square().sum()
    if interests.auxiliary_loss is not None:
        total = total + interests.auxiliary_loss
    assert isinstance(total, Tensor)
    backbone.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            assert parameter.grad.abs().sum() > 0, f"the gradient of {name} is zero everywhere"


def _same(got: Tensor, expected: Tensor, problem: str, tolerance: float) -> None:
    difference = (got.detach() - expected).abs().max().item()
    assert difference <= tolerance, f"{problem}: largest difference {difference:.2e} > {tolerance:.0e}"
