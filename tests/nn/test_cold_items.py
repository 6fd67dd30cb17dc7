"""Learned rows of new items, against a computation by hand."""

import pytest
import torch

from llm4sbr.nn.cold_items import cold_rows


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=["a bias", "a table", "matrices"])
def test_the_rows_by_hand(shape):
    """Seen to fail with weights that do not sum to 1."""
    torch.manual_seed(0)
    rows, titles, new = torch.randn(9, *shape), torch.randn(9, 4), torch.randn(5, 4)
    found = cold_rows(rows, titles, new, neighbors=2, strength=0.25)
    for place, title in enumerate(new):
        cosines = [float(torch.cosine_similarity(title, other, dim=0)) for other in titles]
        first, second = sorted(range(9), key=cosines.__getitem__)[:-3:-1]
        total = cosines[first] + cosines[second]
        near = (cosines[first] * rows[first] + cosines[second] * rows[second]) / total
        torch.testing.assert_close(found[place], 0.25 * near)


def test_the_length_of_a_title_and_the_order_of_items_do_not_matter():
    torch.manual_seed(0)
    rows, titles, new = torch.randn(30, 3), torch.randn(30, 4), torch.randn(5, 4)
    expected, order = cold_rows(rows, titles, new), torch.randperm(30)
    torch.testing.assert_close(cold_rows(rows[order], 7 * titles[order], 3 * new), expected)


def test_few_items_opposite_titles_and_no_new_item():
    rows, titles = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    assert torch.isfinite(cold_rows(rows, titles, -titles)).all()
    torch.testing.assert_close(cold_rows(rows, titles, titles), rows / 2)
    assert cold_rows(rows, titles, titles[:0]).shape == (0, 2)
