"""Two catalogues are matched by id, and rows follow their items."""

import numpy as np
import pytest
import torch

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.catalogue_change import CatalogueChange

BEFORE = Catalogue(("a", "b", "c", "d"), ("A", "B", "C", "D"))
NOW = Catalogue(("d", "x", "b", "a", "y"), ("D", "X", "bee", "A", "Y"))  # c is gone


def change(before=BEFORE, now=NOW):
    return CatalogueChange.between(before.id_digests, before.title_digests, now)


def test_items_are_matched_by_id():
    """Seen to fail with titles compared by place."""
    found = change()
    assert found.source.tolist() == [4, 0, 2, 1, 0]
    assert found.number.tolist() == [0, 4, 3, 0, 1]
    assert found.retitled.tolist() == [False, False, True, False, False]
    assert (found.num_kept, found.num_new, found.num_gone, found.same_items) == (3, 2, 1, False)


def test_the_same_items_in_order_are_the_same_and_otherwise_not():
    assert change(now=BEFORE).same_items
    assert not change(now=Catalogue(("b", "a", "c", "d"), ("",) * 4)).same_items
    assert not change(now=Catalogue(("a", "b", "c"), ("",) * 3)).same_items
    assert not change(now=Catalogue(("a", "b", "c", "d", "e"), ("",) * 5)).same_items


@pytest.mark.parametrize(("first", "more"), [(0, 0), (1, 0), (1, 1)])
def test_rows_follow_their_items_and_other_rows_stay(first, more):
    """Seen to fail with the rows after the last item left out."""
    before = torch.arange(float(first + 4 + more)).unsqueeze(1)
    fresh = torch.full((first + 5 + more, 1), -1.0)
    assert change().fits(before, fresh, first)
    rows = change().rows(before, fresh, first).flatten().tolist()
    items = [first + 3.0, -1.0, first + 1.0, first + 0.0, -1.0]
    assert rows == [float(n) for n in range(first)] + items + [first + 4.0] * more
    assert fresh.unique().item() == -1  # unchanged


def test_other_shapes_do_not_fit():
    for before, fresh in (((5, 2), (6, 3)), ((3, 2), (4, 2)), ((5, 2), (5, 2)), ((), (6, 2))):
        assert not change().fits(torch.zeros(before), torch.zeros(fresh), 1)


def test_random_catalogues_agree_with_a_dictionary():
    draw = np.random.default_rng(0)
    for _ in range(50):
        names = [[f"{n:03d}" for n in draw.permutation(40)[: draw.integers(1, 40)]] for _ in range(2)]
        old, new = (Catalogue(tuple(one), tuple(one)) for one in names)
        found = change(old, new)
        assert found.source.tolist() == [old.index.get(item, 0) for item in new.item_ids]
        assert found.number.tolist() == [0, *(new.index.get(item, 0) for item in old.item_ids)]


def test_digests_tell_ids_apart_and_are_small():
    many = Catalogue(tuple(map(str, range(20_000))), ("same",) * 20_000)
    assert len(np.unique(many.id_digests)) == 20_000
    assert len(np.unique(many.title_digests)) == 1
    assert many.id_digests.nbytes == 8 * 20_000
