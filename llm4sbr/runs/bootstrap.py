"""Setup that every command needs before it parses its options."""

from __future__ import annotations

import warnings

import torch

from llm4sbr.contracts.registry import BACKBONES, DATAMODULES, HEADS, load_plugins


def bootstrap() -> None:
    """Load the plug-ins, set the precision of matrix products and silence warnings that need no action.

    Call it before parsing, since options name plug-ins by their class name. A second call changes nothing.
    """
    for group in (BACKBONES, HEADS, DATAMODULES):
        load_plugins(group)
    torch.set_float32_matmul_precision("high")
    for options in (
        {"message": "LightningCLI's args parameter"},  # this package passes the arguments on purpose
        {"module": "lightning.pytorch.utilities._pytree"},  # a deprecated call inside Lightning
        {"message": "torch.distributed.nn.functional.all_gather"},  # a deprecated call inside torch
        {"message": "The dirpath has changed"},  # evaluation saves nothing
        {
            "message": ".*does not have many workers.*"
        },  # loading is fast: batches are made in bulk, or a tuning step takes seconds
    ):
        warnings.filterwarnings("ignore", **options)  # type: ignore[arg-type]
