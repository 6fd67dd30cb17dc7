import numpy as np
import torch

from llm4sbr.tuning.losses import cross_entropy_among
from llm4sbr.views.engines.title_trie import TitleTrie

STOP = 0
TITLES = [[1, 2, 3], [1, 2], [4], [1, 5, 6], [7, 7, 7], [7, 7, 8], [2, 1]]


def likelihood(trie: TitleTrie, title: list[int], table: torch.Tensor) -> torch.Tensor:
    """Of one title, the logits of a step looked up by the node it is taken at."""
    tokens, nodes = trie.walk([*title, STOP])
    owner, allowed, _ = trie.children(np.array(nodes))
    among = (torch.from_numpy(owner), torch.from_numpy(allowed))
    return cross_entropy_among(table[nodes], torch.tensor(tokens), *among).sum()


def test_the_likelihoods_of_all_titles_sum_to_one():
    """Seen to fail with the sum over the whole vocabulary in place of the allowed tokens."""
    trie = TitleTrie(TITLES, STOP)
    table = 5 * torch.randn(len(trie), 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = sum(likelihood(trie, title, table).neg().exp() for title in TITLES)
    assert torch.allclose(total, torch.ones_like(total))


def test_equals_a_softmax_written_out_and_lets_gradients_through():
    logits = torch.randn(3, 9, generator=torch.Generator().manual_seed(1), requires_grad=True)
    allowed = [[1, 2], [4, 0, 8], [5]]
    owner = torch.tensor([0, 0, 1, 1, 1, 2])
    target = torch.tensor([2, 4, 5])
    loss = cross_entropy_among(logits, target, owner, torch.tensor([1, 2, 4, 0, 8, 5]))
    by_hand = [
        -torch.log_softmax(logits[row, part], 0)[part.index(int(target[row]))]
        for row, part in enumerate(allowed)
    ]
    assert torch.allclose(loss, torch.stack(by_hand), atol=1e-6)
    loss.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[2].any()  # one choice: nothing to learn
    assert not logits.grad[0, [0, 3, 4, 5, 6, 7, 8]].any()
    assert logits.grad[0, [1, 2]].all()
