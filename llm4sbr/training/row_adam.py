"""RowAdam: Adam that updates only the rows of a table that a step has used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

from llm4sbr.contracts.ranges import NonNegativeFloat, PositiveFloat


class RowAdam(torch.optim.Adam):
    r"""Adam whose tables with sparse gradients cost a step only the rows that it uses.

    A dense Adam over a million rows reads and writes the whole table and two moments of its size in every
    step. Here a table has one second moment per row and no first moment, as the row-wise optimisers of
    TorchRec do: a row ``w`` with the gradient ``g`` in step ``t``, last used in step ``t'``, becomes

    .. math:: u \leftarrow \beta_2^{t - t'} u + (1 - \beta_2) \frac{g^T g}{d}, \quad
        w \leftarrow w - \eta \frac{g}{\sqrt{u / (1 - \beta_2^t)} + \epsilon}

    That is what a dense update with the same moments does, for which an unused row has the gradient zero.
    Parameters with dense gradients are updated as by `torch.optim.Adam`. Weight decay of a table is
    decoupled, ``w (1 - ηλ)`` in every step as in AdamW: a row catches up on the decay of the steps without it
    when it is used next, and all rows do at `settle`, which `SBRModule` calls before it evaluates.

    Use it with `SampledSoftmax`, whose tables have sparse gradients.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate, ``η``.
        betas: Decay rates of both moments; a table has only the second.
        eps: ``ε``.
        weight_decay: ``λ``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: PositiveFloat = 6e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: PositiveFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the rows of tables with a sparse gradient, and everything else as Adam does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse: list[tuple[nn.Parameter, Tensor]] = []
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    self._update(table, group)
                    sparse.append((table, table.grad))
                    table.grad = None  # Adam refuses it
        super().step()
        for table, gradient in sparse:
            table.grad = gradient
        return loss

    @torch.no_grad()
    def settle(self) -> None:
        """Let every row of the tables catch up on its weight decay."""
        for group in self.param_groups:
            for table in group["params"]:
                state = self.state.get(table, {})
                if group["weight_decay"] and "decayed" in state:
                    behind = state["log_decay"] - state["decayed"]  # (rows,)
                    table.mul_(behind.exp().unsqueeze(1).to(table.dtype))
                    state["decayed"].zero_()
                    state["log_decay"].zero_()

    def _update(self, table: nn.Parameter, group: dict[str, Any]) -> None:
        gradient = table.grad
        assert gradient is not None
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values().float()  # (n,), (n, d)
        state = self.state[table]
        if "row_square" not in state:
            state["step"] = torch.zeros(())  # Adam asks each parameter for it
            state["row_square"], state["row_step"] = (table.new_zeros(len(table)) for _ in range(2))
            if group["weight_decay"]:  # log of the decay since all rows were settled, and of it each row's
                state["log_decay"], state["decayed"] = table.new_zeros(()), table.new_zeros(len(table))
        rate, beta = float(group["lr"]), float(group["betas"][1])
        state["step"] += 1
        step = float(state["step"])
        square = state["row_square"][rows] * beta ** (step - state["row_step"][rows])
        square.add_(values.square().mean(1), alpha=1 - beta)
        state["row_square"][rows], state["row_step"][rows] = square, step
        scale = square.div_(1 - beta**step).sqrt_().add_(group["eps"])
        change = values.mul_(-rate / scale.unsqueeze(1))
        if group["weight_decay"]:
            state["log_decay"] += math.log1p(-rate * group["weight_decay"])
            behind = (state["log_decay"] - state["decayed"][rows]).exp().float()
            change += table[rows].float() * (behind - 1).unsqueeze(1)
            state["decayed"][rows] = state["log_decay"]
        table.index_add_(0, rows, change.to(table.dtype))
