"""The best items without all scores: equal to a full product and `topk`, in every precision."""

import sys

import pytest
import torch

from llm4sbr import InputError
from llm4sbr.nn.retrieval import (
    RETRIEVALS,
    Float32Items,
    IndexedItems,
    Int8Items,
    Own,
    index,
    named_retrieval,
    retrieval,
    scan,
    tables,
    top_items,
)
from llm4sbr.nn.retrieval.tables import Bfloat16Table, Float32Table, Int8Table

EXACT = {name: RETRIEVALS[name] for name in ("float32", "bfloat16", "int8")}


@pytest.fixture(autouse=True)
def no_catalogue_is_small(monkeypatch):
    monkeypatch.setattr(retrieval, "_SMALL", 0)


def unit(*size):
    return torch.nn.functional.normalize(torch.randn(size), dim=-1)


def near_each_other(count, dim):
    """Vectors in bunches: the scores of a bunch differ by less than a rounding to 8 bits."""
    middle = unit(8, dim)
    return torch.nn.functional.normalize(middle.repeat(-(-count // 8), 1)[:count] + 0.003 * unit(count, dim))


def full(query, items, k, own=None, allowed=None):
    scores = query @ items.T
    if own is not None:
        scores = scores.scatter(1, own.columns, float("-inf"))
    log_sum = scores.logsumexp(1, keepdim=True)
    if allowed is not None:
        scores = scores.masked_fill(~allowed.expand(len(query), -1), float("-inf"))
    return scores, scores.topk(k, dim=1)[0], log_sum


def own_of(count, items, clicks=3):
    columns = torch.randint(0, items, (count, clicks)).sort(1)[0]
    counted = torch.ones_like(columns, dtype=torch.bool)
    counted[:, 1:] = columns[:, 1:] != columns[:, :-1]
    return Own(columns, counted)


def check(found, expected, k):
    """Equal scores to rounding, and columns of those scores; an item that is left out is missing."""
    scores, best, log_sum = expected
    torch.testing.assert_close(found.scores, best, rtol=1e-5, atol=1e-5)
    there = best > float("-inf")
    torch.testing.assert_close(scores.gather(1, found.columns)[there], best[there], rtol=1e-5, atol=1e-5)
    assert all(
        len(set(row[mask].tolist())) == mask.sum() for row, mask in zip(found.columns, there, strict=True)
    )
    if found.log_sum is not None:
        assert torch.equal(found.log_sum.isinf(), log_sum.isinf())
        torch.testing.assert_close(found.log_sum, log_sum, rtol=0, atol=0.1)


@pytest.mark.parametrize("native", [True, False], ids=["native", "portable"])
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(("items", "dim"), [(1, 4), (5, 4), (63, 8), (1000, 16), (3000, 128)])
def test_a_search_finds_what_a_full_product_finds(items, dim, name, native, monkeypatch):
    """Also on other processors. Seen to fail without the slack."""
    if not native:
        monkeypatch.setattr(tables, "native_bfloat16", lambda device: False)
        monkeypatch.setattr(tables, "int8_is_exact", lambda: False)
    monkeypatch.setattr(scan, "_SCORES", 1 << 12)  # several blocks
    torch.manual_seed(items)
    vectors = near_each_other(items, dim) if items == 3000 else unit(items, dim)
    search = EXACT[name]().over(vectors)
    for count in (1, 3, 20):
        query = 16 * unit(count, dim)
        own = own_of(count, items)
        for allowed in (None, torch.rand(items) < 0.5, torch.rand(count, items) < 0.01):
            for k in sorted({1, min(20, items)}):
                found = search.search(query, k, own=own, allowed=allowed, log_sum=True)
                check(found, full(query, vectors, k, own, allowed), k)
        check(search.search(query, items), full(query, vectors, items), items)
        torch.testing.assert_close(search.scores(query), query @ vectors.T, rtol=0, atol=0.5)


@pytest.mark.parametrize("table", [Bfloat16Table, Int8Table])
def test_the_scan_alone_would_not_find_them(table):
    """In this catalogue the rounded scores order items wrongly; the candidates' exact scores put it right."""
    torch.manual_seed(0)
    items, query = near_each_other(4000, 64), unit(5, 64)
    rounded = table(items)
    read = rounded.rounded(query)
    near = rounded.product(read, 0, 4000)[:, :5].T.float().topk(20, dim=1).indices
    exact = (query @ items.T).topk(20, dim=1).indices
    hits = (near.unsqueeze(2) == exact.unsqueeze(1)).any(2).float().mean()
    assert hits < 0.8
    found = scan.ScannedItems(items, rounded).search(query, 20).columns
    assert (found.unsqueeze(2) == exact.unsqueeze(1)).any(2).float().mean() > 0.97  # the rest are ties


@pytest.mark.parametrize("table", [Bfloat16Table, Int8Table])
def test_no_score_is_further_off_than_the_slack(table):
    """Lengths of items differ a thousandfold."""
    torch.manual_seed(1)
    items = torch.randn(500, 48) * 10 ** torch.empty(500, 1).uniform_(-2, 1)
    items[3] = 0
    made = table(items)
    for count in (1, 2, 30):
        query = torch.randn(count, 48) * 5
        read = made.rounded(query)
        off = (made.product(read, 0, 500)[:, :count].T.float() - query @ items.T).abs().amax(1)
        assert (off <= made.slack(query, read)).all()


def test_equal_scores_are_all_candidates_in_bounded_memory(monkeypatch):
    """Every score is 0: any items are right, each once, and few vectors are gathered at a time."""
    monkeypatch.setattr(scan, "_GATHERED", 1 << 12)
    items = unit(3000, 8)
    for kind in EXACT.values():
        found = kind().over(items).search(torch.zeros(2, 8), 20)
        assert found.scores.abs().max() == 0
        assert all(len(set(row.tolist())) == 20 for row in found.columns)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_are_refused(broken):
    query = torch.tensor([[1.0, broken]])
    with pytest.raises(InputError, match="not finite"):
        Float32Items().over(unit(5, 2)).search(query, 2)


def test_top_items_keeps_no_scores_of_the_catalogue():
    """Sessions of a large catalogue, in less than a tenth of the memory of their scores."""
    items, query, largest = unit(20_000, 8), unit(64, 8), [0]

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            for one in found if isinstance(found, (tuple, list)) else [found]:
                if isinstance(one, torch.Tensor):
                    largest[0] = max(largest[0], one.untyped_storage().nbytes())
            return found

    with Watch():
        found = top_items(query, items, 5)
    torch.testing.assert_close(found.scores, (query @ items.T).topk(5).values)
    assert largest[0] < 64 * 20_000 * 4 / 2


def test_a_small_catalogue_stays_in_float32(monkeypatch):
    monkeypatch.setattr(retrieval, "_SMALL", 10)
    for kind in EXACT.values():
        assert isinstance(kind().over(unit(9, 4)).table, Float32Table)
    assert isinstance(Int8Items().over(unit(10, 4)).table, Int8Table)


def test_int8_is_used_only_where_it_is_exact(monkeypatch):
    """A processor that saturates gets the portable product."""
    monkeypatch.setattr(tables, "linear_int8", lambda *_: torch.full((1, 3), 32767.0))
    assert not tables.int8_is_exact()
    assert Int8Items().over(unit(9, 4)).table._packed is None


def bunches(count, dim, bunch=50):
    middle = unit(count // bunch, dim)
    return torch.nn.functional.normalize(
        middle.repeat_interleave(bunch, 0) + 0.7 * unit(count // bunch * bunch, dim), dim=1
    )


def test_an_index_finds_nearly_all_and_says_how_many():
    """Own items are left out, each item comes once, scores are exact; filters and sums are exact, too."""
    pytest.importorskip("usearch", reason='pip install "llm4sbr[index]"')
    torch.manual_seed(0)
    items = bunches(4000, 16) * torch.rand(4000, 1).add(0.5)
    search = IndexedItems(0.97, expansion=64).over(items)
    assert 0.97 <= search.recall <= 1
    query, own = 16 * unit(30, 16), own_of(30, 4000)
    found = search.search(query, 20, own=own)
    scores, _, log_sum = full(query, items, 20, own)
    hits = (scores.topk(20).indices.unsqueeze(2) == found.columns.unsqueeze(1)).any(2)
    assert hits.float().mean() > 0.95
    torch.testing.assert_close(scores.gather(1, found.columns), found.scores, rtol=1e-5, atol=1e-5)
    assert all(len(set(row.tolist())) == 20 for row in found.columns)
    allowed = torch.rand(4000) < 0.01
    check(search.search(query, 20, own=own, allowed=allowed), full(query, items, 20, own, allowed), 20)
    summed = search.search(query, 20, own=own, log_sum=True)
    torch.testing.assert_close(summed.log_sum, log_sum)
    check(search.search(query, 4000), full(query, items, 4000), 4000)


def test_an_index_that_finds_too_little_says_so(monkeypatch):
    pytest.importorskip("usearch", reason='pip install "llm4sbr[index]"')
    monkeypatch.setattr(index, "_WIDEST", 80)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"the index finds \d+\.\d% of the best items, less than 100.0%"):
        IndexedItems(1.0, connectivity=2, expansion=2).over(unit(3000, 32))


def test_the_index_of_one_item_and_of_a_zero():
    pytest.importorskip("usearch", reason='pip install "llm4sbr[index]"')
    for items in (unit(1, 3), torch.zeros(2, 3)):
        assert IndexedItems().over(items).search(unit(2, 3), 1).columns.tolist() in ([[0], [0]], [[1], [1]])


def test_a_missing_usearch_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(InputError, match=r"the index needs .*: usearch.index.*llm4sbr\[index\]"):
        named_retrieval("index").over(unit(3, 2))
    with pytest.raises(InputError, match="one of float32, bfloat16, int8, index"):
        named_retrieval("float16")
