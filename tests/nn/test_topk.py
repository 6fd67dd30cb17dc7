import pytest
import torch

from llm4sbr.nn.topk import top_columns


@pytest.mark.parametrize("columns", [5, 64, 1000, 6400, 9999])
@pytest.mark.parametrize("k", [1, 5])
def test_it_is_torchs_topk(columns, k):
    """Seen to fail with the columns after the last whole block left out."""
    scores = torch.randn(7, columns, generator=torch.Generator().manual_seed(columns))
    scores[0] = scores[0].sort().values  # the best are in the last block, or after it
    scores[1, 3:] = float("-inf")
    best, found = top_columns(scores, k)
    assert torch.equal(best, scores.topk(k).values)
    assert torch.equal(scores.gather(1, found), best)
    assert all(len(set(row)) == k for row in found.tolist())


def test_nan_ranks_first():
    scores = torch.zeros(1, 5000)
    scores[0, 4000] = float("nan")
    assert top_columns(scores, 3)[1][0, 0] == 4000
