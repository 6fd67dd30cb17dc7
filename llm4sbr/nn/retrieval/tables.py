"""Item vectors in three precisions, and how far a product in each may be from the exact one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

_ROUNDING = 2.0**-24  # half a unit in the last place of float32, relative
_SMALLEST = 1e-30  # of a scale: a vector of zeros stays one
_FEW = 8  # queries; more are faster in bfloat16
_AT_ONCE = 1 << 16  # rows that are converted at a time
_OF_BFLOAT16 = 1.02 * 2.0**-9  # the same of bfloat16, with room for the length of rounded vectors


class ItemTable(ABC):
    """Item vectors that are multiplied with queries, block by block.

    Args:
        items: Item vectors, finite.

    Shapes:
        - items: ``(V, D)`` float32
    """

    def __init__(self, items: Tensor) -> None:
        self.num_items, self.dim = items.shape
        self.memory = 0  # bytes beside the items
        self.longest = float(torch.linalg.vector_norm(items, dim=1).max())

    @abstractmethod
    def rounded(self, query: Tensor) -> tuple[Tensor, ...]:
        """The queries as `product` reads them."""

    @abstractmethod
    def product(self, query: tuple[Tensor, ...], begin: int, end: int) -> Tensor:
        """Scores of the items ``begin:end``, ``(n, B)`` float32 or bfloat16; a new tensor."""

    def at_once(self, query: tuple[Tensor, ...]) -> bool:
        """Whether `product` computes the scores of all items, whichever are asked for."""
        return False

    @abstractmethod
    def slack(self, query: Tensor, rounded: tuple[Tensor, ...]) -> Tensor:
        """Bound on the difference of a score from the exact one, ``(B,)``, for any item.

        With ``q'`` and ``v'`` for the rounded vectors, ``|qv - q'v'| <= |q| |v - v'| + |q - q'| |v'|``.
        """

    def _rounding(self, query: Tensor) -> Tensor:
        """Bound on the rounding of sums in float32, for the exact and for the other product."""
        found: Tensor = torch.linalg.vector_norm(query, dim=1) * (2 * self.dim * _ROUNDING * self.longest)
        return found


class Float32Table(ItemTable):
    """The vectors themselves; they are not copied."""

    def __init__(self, items: Tensor) -> None:
        super().__init__(items)
        self.items = items

    def rounded(self, query: Tensor) -> tuple[Tensor, ...]:
        """The queries by columns."""
        return (query.T.contiguous(),)

    def product(self, query: tuple[Tensor, ...], begin: int, end: int) -> Tensor:
        """The product in float32."""
        found: Tensor = self.items[begin:end] @ query[0]
        return found

    def slack(self, query: Tensor, rounded: tuple[Tensor, ...]) -> Tensor:
        """The order of a sum changes its last bits."""
        return self._rounding(query)


class Bfloat16Table(ItemTable):
    """Vectors rounded to bfloat16: half of the memory, and matrix instructions of the processor."""

    def __init__(self, items: Tensor) -> None:
        super().__init__(items)
        self.items = items.bfloat16()
        self.memory = self.items.nbytes
        self.lost = _longest_difference(items, self.items)
        self.native = native_bfloat16(items.device)

    def rounded(self, query: Tensor) -> tuple[Tensor, ...]:
        """The queries in bfloat16, by columns."""
        columns = query.bfloat16().T.contiguous()
        if self.native and columns.size(1) == 1:  # a product with one column takes another, slower kernel
            columns = columns.expand(-1, 2).contiguous()
        return (columns if self.native else columns.float(),)

    def product(self, query: tuple[Tensor, ...], begin: int, end: int) -> Tensor:
        """The product in bfloat16; without instructions for it, in float32 of the same numbers."""
        items = self.items[begin:end]
        found: Tensor = (items if self.native else items.float()) @ query[0]
        return found

    def slack(self, query: Tensor, rounded: tuple[Tensor, ...]) -> Tensor:
        """Rounding of the items, of the queries and of the scores."""
        length = torch.linalg.vector_norm(query, dim=1)
        of_query = torch.linalg.vector_norm(query - query.bfloat16().float(), dim=1)
        of_scores = length * (self.longest * _OF_BFLOAT16)
        of_both: Tensor = length * self.lost + of_query * (self.longest + self.lost) + of_scores
        return of_both + self._rounding(query)


class Int8Table(ItemTable):
    """Vectors of 8-bit numbers with a scale for each item: a quarter of the memory.

    Few queries are multiplied by oneDNN in 8 bits where that is exact on this processor; it keeps a second,
    packed copy. More queries are multiplied in bfloat16, which holds all 8-bit numbers.
    """

    def __init__(self, items: Tensor) -> None:
        super().__init__(items)
        scale = items.abs().amax(1, keepdim=True).clamp_min(_SMALLEST) / 127
        self.items = torch.empty(items.shape, dtype=torch.int8, device=items.device)
        lost = [torch.zeros((), device=items.device)]
        parts = (torch.split(one, _AT_ONCE) for one in (items, self.items, scale))
        for part, out, of in zip(*parts, strict=True):
            numbers = (part / of).round_()
            out.copy_(numbers)
            lost.append(torch.linalg.vector_norm(part - numbers * of, dim=1).max())
        self.scale, self.lost = scale, float(torch.stack(lost).max())
        self.native = native_bfloat16(items.device)
        self._no_zero = torch.zeros(self.num_items, dtype=torch.int32)
        self.memory = self.items.nbytes + self.scale.nbytes + self._no_zero.nbytes
        self._packed = self._pack() if int8_is_exact() and items.device.type == "cpu" else None

    def _pack(self) -> Tensor:
        packed: Tensor = torch.ops.onednn.qlinear_prepack(self.items, [1, self.dim])
        self.memory += self.items.nbytes
        return packed

    def at_once(self, query: tuple[Tensor, ...]) -> bool:
        """Whether the queries are few, and multiplied in 8 bits."""
        return len(query) == 2

    def rounded(self, query: Tensor) -> tuple[Tensor, ...]:
        """Few queries in 8 bits with their scale; more in bfloat16, by columns."""
        if self._packed is not None and len(query) <= _FEW:
            scale = query.abs().amax().clamp_min(_SMALLEST) / 127  # one for all, as oneDNN wants it
            return (query / scale).round_().to(torch.int8), scale
        columns = query.bfloat16().T.contiguous()
        return (columns if self.native else columns.float(),)

    def product(self, query: tuple[Tensor, ...], begin: int, end: int) -> Tensor:
        """The product of the 8-bit numbers, scaled."""
        if self.at_once(query):
            assert self._packed is not None
            found = linear_int8(query[0], query[1].item(), self._packed, self.scale[:, 0], self._no_zero)
            return found.T[begin:end]
        items = self.items[begin:end].to(query[0].dtype)
        found = (items @ query[0]).float().mul_(self.scale[begin:end])
        return found

    def slack(self, query: Tensor, rounded: tuple[Tensor, ...]) -> Tensor:
        """Rounding of the items and of the queries; in bfloat16 of the scores, too."""
        length = torch.linalg.vector_norm(query, dim=1)
        in_8_bits = self.at_once(rounded)
        near = rounded[0].float() * rounded[1] if in_8_bits else query.bfloat16().float()
        of_query = torch.linalg.vector_norm(query - near, dim=1)
        found: Tensor = length * self.lost + of_query * (self.longest + self.lost) + self._rounding(query)
        return found if in_8_bits else found + length * (self.longest * _OF_BFLOAT16)


def linear_int8(query: Tensor, of_query: float, packed: Tensor, scale: Tensor, no_zero: Tensor) -> Tensor:
    """Product of 8-bit numbers in float32, ``(B, V)``; see `int8_is_exact`."""
    found: Tensor = torch.ops.onednn.qlinear_pointwise(
        query, of_query, 0, packed, scale, no_zero, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


def native_bfloat16(device: torch.device) -> bool:
    """Whether a product in bfloat16 is fast on a device."""
    if device.type != "cpu":
        return True
    return torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def int8_is_exact() -> bool:
    """Whether oneDNN multiplies 8-bit numbers here, without the saturation of processors without VNNI."""
    try:
        numbers = torch.tensor([[127, -127], [127, 127], [-127, -127]], dtype=torch.int8).repeat(1, 64)
        packed = torch.ops.onednn.qlinear_prepack(numbers, [1, 128])
        ones, zeros = torch.ones(3), torch.zeros(3, dtype=torch.int32)
        found = linear_int8(numbers[1:2], 1.0, packed, ones, zeros)
    except (RuntimeError, AttributeError):  # another build of torch
        return False
    return torch.equal(found, torch.tensor([[0.0, 127.0**2 * 128, -(127.0**2) * 128]]))


def _longest_difference(items: Tensor, rounded: Tensor) -> float:
    """Length of the longest difference of two rows, by blocks."""
    pairs = zip(torch.split(items, _AT_ONCE), torch.split(rounded, _AT_ONCE), strict=True)
    return max(float(torch.linalg.vector_norm(one - other.float(), dim=1).max()) for one, other in pairs)
