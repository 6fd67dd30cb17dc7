import pytest
import torch

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.views.tables import DenseViews, LocalisedViews, TitleTable, TitleViews, UsedViews

VIEWS = ("long_term", "short_term")


def batch(rows, items=((1, 2, 3), (3, 0, 0)), lengths=(3, 1)):
    return SessionBatch(
        torch.tensor(items), torch.tensor(lengths), torch.ones(len(lengths)).long(), torch.tensor(rows)
    )


@pytest.fixture
def table():
    return TitleTable(torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, 2.0]]), torch.tensor([True, False, True]))


def test_localised_views_are_weighted_sums(table):
    ids = torch.tensor([[[1, 3], [3, 0]], [[0, 0], [1, 0]]], dtype=torch.int32)
    weights = torch.tensor([[[0.5, 0.25], [-0.5, 0]], [[0, 0], [1, 0]]], dtype=torch.float16)
    mask = torch.tensor([[True, True], [False, True]])
    views = LocalisedViews(table, VIEWS, ids, weights, mask)
    out, out_mask = views(batch([1, 0]))
    assert out.tolist() == [[[0, 0], [1, 0]], [[0.5, 0.5], [0, -1]]]
    assert out_mask.tolist() == [[False, True], [True, True]]
    assert out.dtype == torch.float32
    assert views.text_dim == 2
    assert not list(views.state_dict())  # checkpoints stay small
    filled, filled_mask = LocalisedViews(table, VIEWS, ids, weights, mask, TitleViews(table, VIEWS))(
        batch([1, 0])
    )
    assert filled.tolist() == [[[0.5, 1.0], [1, 0]], [[0.5, 0.5], [0, -1]]]
    assert filled_mask.all()


@pytest.mark.parametrize("rows", [[2, 0], [-1, 0]])
def test_an_index_outside_the_table_is_an_error(table, rows):
    views = DenseViews(table, VIEWS, torch.ones(2, 2, 2), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(InputError, match="outside the view table of 2"):
        views(batch(rows))


def test_title_views_count_titled_clicks_only_and_ignore_padding(table):
    views, mask = TitleViews(table, VIEWS)(batch([0, 1]))
    assert views.tolist() == [[[0.5, 1.0], [0, 2]], [[0, 2], [0, 2]]]
    assert mask.all()
    wider, wider_mask = TitleViews(table, VIEWS)(batch([0, 1], ((1, 2, 3, 0, 0), (3, 0, 0, 0, 0))))
    assert torch.equal(views, wider)
    assert torch.equal(mask, wider_mask)
    untitled, mask = TitleViews(table, VIEWS)(batch([0, 1], ((2, 0), (3, 2)), (1, 2)))
    assert untitled.tolist() == [[[0, 0], [0, 0]], [[0, 2], [0, 0]]]
    assert mask.tolist() == [[False, False], [True, False]]


def test_dense_views_and_moving_dtype_safe(table):
    vectors = torch.randn(3, 2, 2)
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    views, out = DenseViews(table, VIEWS, vectors, mask).to("cpu")(batch([0, 2]))
    assert torch.equal(views, vectors[[0, 2]] * mask[[0, 2]].unsqueeze(-1))
    assert torch.equal(out, mask[[0, 2]])


def test_views_that_are_not_used_are_masked(table):
    inner = TitleViews(table, VIEWS)
    views, mask = UsedViews(inner, ["short_term"])(batch([0, 1]))
    assert torch.equal(views, inner(batch([0, 1]))[0] * torch.tensor([[0.0], [1.0]]))
    assert mask.tolist() == [[False, True]] * 2
    with pytest.raises(InputError, match=r"no such view; there are .*long_term.* \(got \['mood'\]\)"):
        UsedViews(inner, ["mood", "short_term"])


def test_a_fallback_of_other_views_is_refused(table):
    with pytest.raises(InputError, match="fallback"):
        DenseViews(table, ("mood",), torch.ones(1, 1, 2), torch.ones(1, 1) > 0, TitleViews(table, VIEWS))
