"""Alignment, uniformity and fusion against references written out by hand."""

import math

import pytest
import torch

from llm4sbr.nn.alignment import alignment_and_uniformity, alignment_loss, uniformity_loss
from llm4sbr.nn.fusion import AverageFusion, ConcatFusion, GateFusion, ResidualFusion, shares
from llm4sbr.nn.scorers import CosineScores


def by_hand_alignment(z, h):
    total = 0.0
    for a, b in zip(z.tolist(), h.tolist(), strict=True):
        norm_a, norm_b = math.hypot(*a), math.hypot(*b)
        total += sum((x / norm_a - y / norm_b) ** 2 for x, y in zip(a, b, strict=True))
    return total / len(z)


def by_hand_uniformity(x):
    unit = [[v / math.hypot(*row) for v in row] for row in x.tolist()]
    values = [
        math.exp(-2 * sum((p - q) ** 2 for p, q in zip(unit[a], unit[b], strict=True)))
        for a in range(len(unit))
        for b in range(len(unit))
        if a != b
    ]
    return math.log(sum(values) / len(values))


def test_alignment_is_eq_8():
    torch.manual_seed(0)
    z, h = torch.randn(7, 5), torch.randn(7, 5)
    assert alignment_loss(z, h).item() == pytest.approx(by_hand_alignment(z, h), rel=1e-5)
    assert alignment_loss(z, 3 * z).item() == pytest.approx(0, abs=1e-6)


def test_uniformity_is_eq_9():
    torch.manual_seed(0)
    x = torch.randn(9, 4)
    assert uniformity_loss(x).item() == pytest.approx(by_hand_uniformity(x), rel=1e-5)


@pytest.mark.parametrize(
    "x",
    [torch.randn(0, 4), torch.randn(1, 4), torch.ones(5, 4), torch.zeros(3, 4)],
    ids=["none", "one", "alike", "zero"],
)
def test_degenerate_batches_stay_finite_with_finite_gradients(x):
    x = x.clone().requires_grad_()
    loss = uniformity_loss(x) + alignment_loss(x, x * 2)
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()


def test_uniformity_of_identical_vectors_is_the_worst_value():
    assert uniformity_loss(torch.ones(5, 4)).item() == pytest.approx(0, abs=1e-6)


MASKS = {
    "all known": [[1, 1]] * 5,
    "some": [[1, 1], [0, 1], [1, 1], [0, 0], [1, 0]],
    "one of a view": [[1, 1], [0, 1], [0, 1], [0, 0], [0, 0]],
    "none of a view": [[0, 1], [0, 1], [0, 1], [0, 0], [0, 1]],
    "none": [[0, 0]] * 5,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_all_views_at_once_are_each_by_itself(mask):
    """Over the sessions whose view is known, with the same gradients. Seen to fail with all pairs counted."""
    torch.manual_seed(0)
    known = torch.tensor(mask).bool()
    found = []
    for at_once in (True, False):
        torch.manual_seed(1)
        z, h = (torch.randn(5, 2, 4).requires_grad_() for _ in range(2))
        if at_once:
            losses = alignment_and_uniformity(z, h, known)
        else:
            views = [(z[known[:, k], k], h[known[:, k], k]) for k in range(2)]
            spread = [(uniformity_loss(a) + uniformity_loss(b)) / 2 for a, b in views]
            losses = sum(alignment_loss(*view) for view in views) / 2, sum(spread) / 2
        (losses[0] + 3 * losses[1]).backward()
        found.append((losses[0].detach(), losses[1].detach(), z.grad, h.grad))
    torch.testing.assert_close(found[0], found[1])


def test_gate_fusion_is_eq_10_to_12():
    torch.manual_seed(0)
    fusion = GateFusion(3, ("long_term", "short_term"))
    torch.nn.init.normal_(fusion.gate)
    h, z = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    mask = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    fused = fusion(h, z, mask, lambda **_: pytest.fail("the gate has a read-out of its own"))
    for b in range(4):
        weighed = []
        for k in range(2):
            known = z[b, k] if mask[b, k] else torch.zeros(3)
            alpha = sum(fusion.gate[k, d] * torch.sigmoid(h[b, k, d] + known[d]) for d in range(3))
            assert torch.allclose(fused.gates[b, k], alpha, atol=1e-6)
            weighed.append(alpha * h[b, k])
        assert torch.allclose(fused.session[b], fusion.readout.weight @ torch.cat(weighed), atol=1e-6)


def test_gates_start_near_one():
    fusion = GateFusion(100, ("long_term", "short_term"))
    fused = fusion(
        torch.zeros(2, 2, 100), torch.zeros(2, 2, 100), torch.ones(2, 2).bool(), lambda: torch.zeros(2, 100)
    )
    assert torch.allclose(fused.gates, torch.ones(2, 2))


def test_average_fusion_is_version_one_of_the_paper():
    h, z = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    mask = torch.tensor([[True, True], [False, True], [False, False]])
    fused = AverageFusion(4, ("long_term", "short_term"))(
        h, z, mask, lambda long_term, short_term: long_term + 10 * short_term
    )
    assert fused.gates is None
    assert torch.allclose(fused.session[0], (h[0, 0] + z[0, 0]) / 2 + 10 * (h[0, 1] + z[0, 1]) / 2)
    assert torch.allclose(fused.session[1], h[1, 0] + 10 * (h[1, 1] + z[1, 1]) / 2)
    assert torch.allclose(fused.session[2], h[2, 0] + 10 * h[2, 1])


def test_an_interest_without_a_view_stays_as_it_is():
    h, z, mask = torch.randn(2, 2, 4), torch.randn(2, 2, 4), torch.ones(2, 2).bool()
    fused = AverageFusion(4, ("long_term", "long_term"))(h, z, mask, dict)
    assert list(fused.session) == ["long_term"]
    assert torch.allclose(fused.session["long_term"], (h[:, 0] + z.sum(1)) / 3)


def test_a_third_view_joins_its_interest():
    h, z = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    h[:, 2] = h[:, 0]
    fusion = AverageFusion(4, ("long_term", "short_term", "long_term"))
    fused = fusion(h, z, torch.ones(1, 3).bool(), lambda long_term, short_term: long_term)
    assert torch.allclose(fused.session, (h[:, 0] + z[:, 0] + z[:, 2]) / 3)


def test_concat_reads_out_interests_and_known_views():
    torch.manual_seed(0)
    fusion = ConcatFusion(3, ("long_term", "short_term"))
    h, z = torch.randn(2, 2, 3), torch.randn(2, 2, 3)
    fused = fusion(h, z, torch.tensor([[True, True], [False, True]]), None)
    weight = fusion.readout.weight
    first = weight @ torch.cat((h[0, 0], h[0, 1], z[0, 0], z[0, 1]))
    second = weight @ torch.cat((h[1, 0], h[1, 1], torch.zeros(3), z[1, 1]))
    assert fused.gates is None
    assert torch.allclose(fused.session, torch.stack((first, second)), atol=1e-6)


def test_residual_adds_gated_views_to_the_backbones_read_out():
    torch.manual_seed(0)
    fusion = ResidualFusion(3, ("short_term", "long_term", "long_term"))
    h, z = torch.randn(2, 3, 3), torch.randn(2, 3, 3)
    h[:, 2] = h[:, 1]
    mask = torch.tensor([[True, False, True], [False, False, False]])
    own = torch.randn(2, 3)
    fused = fusion(h, z, mask, lambda: own)
    expected = own[0]
    for k in (0, 2):
        gate = fusion.gates[k]
        opened = torch.sigmoid(gate.weight @ torch.cat((h[0, k], z[0, k])) + gate.bias)
        expected = expected + opened * z[0, k]
        assert torch.allclose(fused.gates[0, k], opened.mean(), atol=1e-6)
    assert torch.allclose(fused.session[0], expected, atol=1e-5)
    assert torch.equal(fused.session[1], own[1])
    assert fused.gates[0, 1] == 0
    assert (fused.gates[1] == 0).all()


MASK = torch.tensor([[True, True], [True, False], [False, False]])


def test_shares_of_a_cosine_score_are_those_of_its_parts():
    """By hand, from the gates and W's two halves. Seen to fail with W's rows in place of its columns."""
    torch.manual_seed(0)
    fusion = GateFusion(3, ("long_term", "short_term"))
    h, z, item = torch.randn(3, 2, 3), torch.randn(3, 2, 3), torch.randn(3, 3)
    fused = fusion(h, z, MASK, None)
    found = shares(fusion.parts(h, z, MASK), fused.session, item)
    for b in range(3):
        score = CosineScores(16.0)(fused.session[b : b + 1], item[b : b + 1]).item()
        length = fused.session[b].norm() * item[b].norm()
        for k in range(2):
            half = fusion.readout.weight[:, 3 * k : 3 * k + 3]
            part = half @ (fused.gates[b, k] * h[b, k])
            by_hand = 16.0 * (part @ item[b]) / length / score
            assert found[b, k].item() == pytest.approx(by_hand.item(), rel=1e-4)
        assert found[b].sum().item() == pytest.approx(1, rel=1e-4)


def test_shares_of_a_residual_fusion_leave_the_rest_to_the_backbone():
    torch.manual_seed(0)
    fusion = ResidualFusion(3, ("long_term", "short_term"))
    h, z, item, own = torch.randn(3, 2, 3), torch.randn(3, 2, 3), torch.randn(3, 3), torch.randn(3, 3)
    fused = fusion(h, z, MASK, lambda: own)
    found = shares(fusion.parts(h, z, MASK), fused.session, item)
    rest = (own * item).sum(1) / (fused.session * item).sum(1)
    torch.testing.assert_close(found.sum(1) + rest, torch.ones(3))
    assert found[~MASK].eq(0).all()  # an unknown view adds nothing


@pytest.mark.parametrize("fusion", [AverageFusion, ConcatFusion])
def test_a_fusion_without_gates_has_no_parts(fusion):
    h = torch.randn(3, 2, 3)
    assert fusion(3, ("long_term", "short_term")).parts(h, h, MASK) is None
