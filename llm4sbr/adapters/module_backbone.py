"""ModuleBackbone: adapts any PyTorch module that encodes a session as a vector."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt

SessionVector = Callable[[nn.Module, SessionBatch], Tensor | tuple[Tensor, Tensor]]
ReadOut = Callable[[nn.Module, Tensor, Tensor], Tensor]


class ModuleBackbone(SessionBackbone):
    r"""Adapts your own PyTorch model, independent of this package, to a backbone.

    The module needs an item embedding and a session vector of the same size; scores are their product. The
    module's code is not changed. Its parameters are trained, and a state dict holds them under ``module.``.
    For scores that are more than a product, or for a loss of the model itself, subclass this class and
    override `score` or `encode`.

    A single session vector is used as both interests, and the read-out is the mean of the two,

    .. math:: h_g = h_l = h, \quad s = (h_g + h_l) / 2

    which equals the vector to the last bit. The bare scores are therefore the module's own, and every fusion
    uses both views. The last click's embedding does not serve as the short-term interest by default: the
    module does not train it as a session vector, and alignment would change the table behind all scores. A
    module with two interests returns the pair.

    Args:
        num_items: ``V``.
        module: PyTorch module to adapt.
        session_vector: Function of the module and a batch that returns one vector per session, or a pair of
            vectors (long-term, short-term). Items are 1..V and rows are right-padded with 0; if the module's
            ids start at 0, subtract 1 in this function.
        embedding: Item embedding: the dotted name of an attribute (``"encoder.items"``), or a function of
            the module. It has ``V + 1`` rows (row 0 is padding) or ``V`` rows (row 0 is item 1).
        read_out: Function of the module and both interests that returns the session vector to score; by
            default their mean. It is intended for a pair.

    Shapes:
        - session_vector: `SessionBatch` -> ``(B, d)``, or a pair of them
        - embedding: ``(V + 1, d)`` or ``(V, d)``
        - encode: `SessionBatch` -> two ``(B, d)``

    Raises:
        InputError: If the attribute does not exist, the table has another number of items, or (when a batch
            is read) the vectors have another shape.

    >>> from llm4sbr.testing import make_batch
    >>> class Mean(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.items = nn.EmbeddingBag(10, 4, mode="mean", padding_idx=0)
    >>> backbone = ModuleBackbone(9, Mean(), lambda mean, batch: mean.items(batch.item_ids), "items")
    >>> backbone(make_batch([[3, 4], [5]])).shape
    torch.Size([2, 9])
    """

    def __init__(
        self,
        num_items: PositiveInt,
        module: nn.Module,
        session_vector: SessionVector,
        embedding: str | Callable[[nn.Module], nn.Module | Tensor] = "item_embedding",
        read_out: ReadOut | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise InputError(
                "module must be a torch.nn.Module",
                value=type(module).__name__,
                hint="Give the model itself, not its class or its path",
            )
        find = attrgetter(embedding) if isinstance(embedding, str) else embedding
        table, padding = _table(module, find, embedding)
        super().__init__(num_items, table.size(1))
        if padding == 0 and len(table) == num_items:
            raise InputError(
                f"row 0 of the item embedding is padding, so it holds {num_items - 1} items, not {num_items}",
                value=tuple(table.shape),
                hint=f"Make it with {num_items + 1} rows",
            )
        self._check_rows(table)
        self.module = module
        self.session_vector = session_vector
        self.read_out = read_out
        self._embedding, self._find = embedding, find

    def encode(self, batch: SessionBatch) -> Interests:
        """Call `session_vector`; a single vector becomes both interests."""
        found = self.session_vector(self.module, batch)
        pair = found if isinstance(found, tuple) else (found, found)
        if len(pair) != 2:
            raise InputError(
                "session_vector must return a vector, or a pair (long-term, short-term)",
                value=f"a tuple of {len(pair)}",
            )
        expected = (len(batch.lengths), self.embedding_dim)
        for vector in pair:
            shape = tuple(vector.shape) if isinstance(vector, Tensor) else type(vector).__name__
            if shape != expected:
                raise InputError(
                    f"session_vector must return one row per session, as long as an item's embedding: "
                    f"{expected}",
                    value=shape,
                    hint="Take the last real click's state with llm4sbr.backbones.readout.last_click"
                    if isinstance(shape, tuple) and len(shape) == 3
                    else "Map it to the size of the item embedding inside the module",
                )
        return Interests(long_term=pair[0], short_term=pair[1])

    def merge(self, interests: Interests) -> Tensor:
        """The given read-out, by default the mean of both interests, ``(B, d)``."""
        if self.read_out is None:
            return (interests.long_term + interests.short_term) / 2
        return self.read_out(self.module, interests.long_term, interests.short_term)

    def item_embeddings(self) -> Tensor:
        """Item embeddings, ``(V, d)``, without the padding row."""
        return _table(self.module, self._find, self._embedding)[0][-self.num_items :]

    def _check_rows(self, table: Tensor) -> None:
        """Check that the table has V or V + 1 rows; `item_embeddings` reads the last V."""
        if len(table) not in (self.num_items, self.num_items + 1):
            raise InputError(
                f"the item embedding must have {self.num_items + 1} rows (row 0 is padding) or "
                f"{self.num_items}",
                value=tuple(table.shape),
                hint="num_items is the size of the catalogue, the num_items of the data module",
            )


def _table(
    module: nn.Module, find: Callable[[nn.Module], object], embedding: object
) -> tuple[Tensor, int | None]:
    """Rows of the item embedding and its padding index, if it has one."""
    try:
        found = find(module)
    except AttributeError as error:
        tables = [name for name, part in module.named_modules() if isinstance(part, nn.Embedding)]
        raise InputError(
            f"{type(module).__name__} has no such item embedding: {error}",
            value=embedding,
            hint=f"It has the embeddings {tables}" if tables else "It has no nn.Embedding at all",
        ) from error
    padding = getattr(found, "padding_idx", None)
    table = getattr(found, "weight", None) if isinstance(found, nn.Module) else found
    if not isinstance(table, Tensor) or table.ndim != 2:
        raise InputError(
            "the item embedding must be an nn.Embedding or a table of rows",
            value=tuple(table.shape) if isinstance(table, Tensor) else type(found).__name__,
            hint="Name the embedding itself, or give a function that takes it out of the module",
        )
    return table, padding
