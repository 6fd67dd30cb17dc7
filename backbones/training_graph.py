"""Graphs of all training sessions, stored in buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples, IntArray

Hyperedges = Literal["sessions", "prefixes"]


class TrainingGraph(nn.Module):
    """Base class with buffers whose sizes depend on the training sessions.

    The buffers start empty. Loading a state dict sets their sizes, so it can be loaded into a new model.

    Args:
        num_items: ``V``.
        buffers: Type of each buffer, by name.
    """

    def __init__(self, num_items: int, **buffers: torch.dtype) -> None:
        super().__init__()
        self.num_items = num_items
        for name, dtype in buffers.items():
            self.register_buffer(name, torch.empty(0, dtype=dtype))
        self.register_load_state_dict_pre_hook(_take_sizes)  # type: ignore[no-untyped-call]

    def fill(self, **arrays: np.ndarray) -> None:
        """Replace the content of the buffers; their types and devices do not change."""
        for name, array in arrays.items():
            old = self.get_buffer(name)
            setattr(self, name, torch.from_numpy(array).to(old.device, old.dtype))

    def check_known(self) -> None:
        """Check that the training sessions have been read.

        Raises:
            InputError: If the buffers are empty.
        """
        if any(buffer.numel() == 0 for buffer in self.buffers()):
            raise InputError(
                "this backbone has not read the training sessions",
                hint="Call its read_training_sessions(data.examples('train')), as Trainer.fit does with a "
                "data module, or load a checkpoint",
            )

    def carry_over(self, before: Mapping[str, Tensor], change: CatalogueChange) -> dict[str, Tensor]:
        """The graph of the new training sessions if training follows, else the saved one with new numbers."""
        if change.fitting:
            return self.state_dict()
        known = all(part.numel() for part in before.values())
        return self.renumbered(before, change) if known else {**before}

    def renumbered(self, before: Mapping[str, Tensor], change: CatalogueChange) -> dict[str, Tensor]:
        """Convert a saved graph to another catalogue; edges of items that are gone are dropped."""
        raise NotImplementedError

    def clicks(self, examples: Examples, prefixes: bool = False) -> tuple[IntArray, IntArray]:
        """Clicked items of all training sessions, concatenated, and the session (0, 1, ...) of each click.

        Args:
            examples: Training examples.
            prefixes: Whether each example's prefix counts as a session, without its target.

        Shapes:
            - output: ``(T,)``, ``(T,)``
        """
        sessions = [np.array(one) for one in examples.prefixes()] if prefixes else examples.sessions()
        if not sessions:
            raise InputError("there are no training sessions to learn a graph from")
        items = np.concatenate(sessions).astype(np.int64)
        if items.max() > self.num_items:
            raise InputError(
                f"the backbone was built for {self.num_items} items, but a training session has another item",
                value=int(items.max()),
            )
        return items, np.repeat(np.arange(len(sessions)), [len(clicks) for clicks in sessions])


def _take_sizes(module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: object) -> None:
    for name, old in list(module.named_buffers(recurse=False)):
        new = state_dict.get(prefix + name)  # under FSDP this is a placeholder with the tensor's shape
        if new is not None and new.shape != old.shape:
            setattr(module, name, old.new_empty(new.shape))


class GlobalGraph(TrainingGraph):
    r"""Graph of items that are clicked near each other in training sessions (Sec. 3, arXiv:2106.05081).

    Two clicks of one session that are at most :math:`\epsilon` steps apart connect their items; the weight
    of an edge is the number of such pairs. Each item keeps its heaviest edges; ties are broken by the lower
    id. A click repeated within the window makes an item its own neighbour.

    Args:
        num_items: ``V``.
        window: :math:`\epsilon`, maximum number of steps between two clicks.
        num_neighbours: ``N``, maximum number of edges of an item.

    Shapes:
        - neighbours: ``(V + 1, N)`` item ids, row 0 is padding; 0 if an item has fewer neighbours
        - weights: ``(V + 1, N)`` edge weights, heaviest first; 0 where there is no neighbour
    """

    neighbours: Tensor
    weights: Tensor

    def __init__(self, num_items: int, window: int, num_neighbours: int) -> None:
        super().__init__(num_items, neighbours=torch.long, weights=torch.float)
        self.window, self.num_neighbours = window, num_neighbours

    def read(self, examples: Examples) -> None:
        """Count the pairs of all training sessions."""
        items, session = self.clicks(examples)  # (T,), (T,)
        stride = self.num_items + 1
        pairs = []
        for step in range(1, self.window + 1):
            together = session[step:] == session[:-step]
            left, right = items[:-step][together], items[step:][together]
            pairs += [left * stride + right, right * stride + left]  # undirected
        pair, weight = np.unique(np.concatenate(pairs), return_counts=True)
        item, neighbour = np.divmod(pair, stride)
        order = np.lexsort((neighbour, -weight, item))
        item, neighbour, weight = item[order], neighbour[order], weight[order]
        rank = np.arange(len(item)) - np.searchsorted(item, item)  # rank among the item's edges
        kept = rank < self.num_neighbours
        where = item[kept], rank[kept]
        neighbours = np.zeros((stride, self.num_neighbours), dtype=np.int64)
        weights = np.zeros((stride, self.num_neighbours), dtype=np.float32)
        neighbours[where], weights[where] = neighbour[kept], weight[kept]
        self.fill(neighbours=neighbours, weights=weights)

    def renumbered(self, before: Mapping[str, Tensor], change: CatalogueChange) -> dict[str, Tensor]:
        """Convert a saved graph to another catalogue; edges of items that are gone are dropped."""
        neighbours = change.number[before["neighbours"]]  # (V' + 1, N)
        weights = before["weights"].where(neighbours > 0, 0.0)
        size = (change.num_items + 1, neighbours.size(1))
        return {
            "neighbours": change.rows(neighbours, neighbours.new_zeros(size), 1),
            "weights": change.rows(weights, weights.new_zeros(size), 1),
        }


class Hypergraph(TrainingGraph):
    r"""Hypergraph with one hyperedge per training session over its distinct items (Sec. 3, arXiv:2012.06852).

    .. math:: X' = D^{-1} H W B^{-1} H^T X, \quad W = I

    The incidence matrix ``H`` is stored twice, sorted by session and by item. A layer then costs two passes
    over its entries; the product :math:`H B^{-1} H^T` has many times as many entries.

    Args:
        num_items: ``V``.
        hyperedges: ``sessions``, or ``prefixes`` for one hyperedge per training example, without its target.

    Raises:
        InputError: `hyperedges` is neither.

    Shapes:
        - items, sessions: ``(E,)``, the entries of ``H``: items sorted by session, sessions sorted by item
        - session_start: ``(M,)``, item_start: ``(V + 1,)``, index of the first entry; row 0 is padding
        - session_share: ``(M, 1)``, the inverse of ``B``; item_share: ``(V + 1, 1)``, the inverse of ``D``, 0
          for an item without sessions
        - forward: ``(V + 1, d)`` -> ``(V + 1, d)``
    """

    items: Tensor
    sessions: Tensor
    session_start: Tensor
    item_start: Tensor
    session_share: Tensor
    item_share: Tensor

    def __init__(self, num_items: int, hyperedges: Hyperedges = "sessions") -> None:
        if hyperedges not in get_args(Hyperedges):
            raise InputError(f"hyperedges must be one of {get_args(Hyperedges)}", value=hyperedges)
        self.hyperedges = hyperedges
        index = dict.fromkeys(("items", "sessions", "session_start", "item_start"), torch.int32)
        super().__init__(num_items, **index, session_share=torch.float, item_share=torch.float)

    def read(self, examples: Examples) -> None:
        """Store the items of every training session."""
        clicked, number = self.clicks(examples, prefixes=self.hyperedges == "prefixes")
        self.fill(**self._incidence(clicked, number, self.num_items))

    def renumbered(self, before: Mapping[str, Tensor], change: CatalogueChange) -> dict[str, Tensor]:
        """Convert a saved graph to another catalogue; items and sessions that are gone are dropped."""
        sizes = np.diff(before["session_start"].numpy(), append=len(before["items"]))  # (M,)
        session = np.repeat(np.arange(len(sizes)), sizes)  # (E,)
        item = change.number[before["items"].long()].numpy()
        session = np.unique(session[item > 0], return_inverse=True)[1]  # without sessions that are empty now
        arrays = self._incidence(item[item > 0], session, change.num_items)
        return {name: torch.from_numpy(array).to(before[name].dtype) for name, array in arrays.items()}

    @staticmethod
    def _incidence(clicked: IntArray, number: IntArray, num_items: int) -> dict[str, np.ndarray]:
        """The buffers of the hypergraph with an entry for each item of each session."""
        stride = num_items + 1
        session, item = np.divmod(np.unique(number * stride + clicked), stride)  # (E,), (E,): by session
        by_item = np.argsort(item, kind="stable")
        session_size = np.bincount(session)  # (M,)
        item_size = np.bincount(item, minlength=stride)  # (V + 1,)
        return {
            "items": item,
            "sessions": session[by_item],
            "session_start": np.cumsum(session_size) - session_size,
            "item_start": np.cumsum(item_size) - item_size,
            "session_share": 1 / session_size[:, None],
            "item_share": np.where(item_size > 0, 1 / np.maximum(item_size, 1), 0)[:, None],
        }

    def forward(self, hidden: Tensor) -> Tensor:
        """Propagate from items to sessions and back, with a mean in each direction."""
        return cast(Tensor, _Convolution.apply(hidden, self))  # type: ignore[no-untyped-call]

    def spread(self, hidden: Tensor) -> Tensor:
        """The symmetric part, ``H B^-1 H^T X``."""
        edges = F.embedding_bag(self.items, hidden, self.session_start, mode="sum").mul_(self.session_share)
        return F.embedding_bag(self.sessions, edges, self.item_start, mode="sum")  # (V + 1, d)


class _Convolution(torch.autograd.Function):
    """``D^-1 P X`` with a symmetric ``P``; its gradient ``P D^-1 G`` consists of the same two products.

    PyTorch's gradient of `embedding_bag` sorts all entries in every step and takes several times as long.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, graph: Hypergraph) -> Tensor:
        ctx.graph = graph
        return graph.spread(hidden).mul_(graph.item_share)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        graph: Hypergraph = ctx.graph
        return graph.spread(gradients[0] * graph.item_share), None
