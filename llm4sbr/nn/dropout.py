"""FastDropout: dropout of large tensors, which draws many random bits at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LARGE = 1 << 16  # numbers; below, drawing takes no time


class FastDropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) for millions of numbers on a CPU.

    There `torch.nn.Dropout` draws one random number for each, a quarter of a training step for a backbone
    that drops numbers of its item table (``experiments/benchmarks/floors.py``). This draws 64 bits for four
    numbers, so the rate is a multiple of 2^-16. Small inputs, and those on a GPU, are left to
    `torch.nn.Dropout`.

    Args:
        p: Rate, in [0, 1).

    Shapes:
        - input and output: any
    """

    def forward(self, input: Tensor) -> Tensor:
        """Set a share of the numbers to zero in training, and scale the others."""
        if not self.training or not self.p or input.numel() < _LARGE or input.device.type != "cpu":
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.long).random_(-(2**63), None)
        bits = words.view(torch.int16)[: input.numel()].view(input.shape)
        dropped = round(self.p * 2**16)
        kept = bits >= dropped - 2**15
        return input * (kept * (2**16 / (2**16 - dropped))).to(input.dtype)
