"""What every command does before it parses its options."""

from __future__ import annotations

import warnings

import torch

from llm4sbr.contracts.registry import BACKBONES, DATAMODULES, HEADS, load_plugins


def bootstrap() -> None:
    """Load the plug-ins, set the precision of matrix products and ignore warnings that need no action.

    Call it before parsing: options name plug-ins by their class name. A second call changes nothing.
    """
    for group in (BACKBONES, HEADS, DATAMODULES):
        load_plugins(group)
    torch.set_float32_matmul_precision("high")
    for options in (
        {"message": "LightningCLI's args parameter"},  # the arguments are passed on purpose
        {"module": "lightning.pytorch.utilities._pytree"},  # a deprecation for Lightning to mend
        {"message": "torch.distributed.nn.functional.all_gather"},  # likewise
        {"message": "The dirpath has changed"},  # evaluation saves nothing
        {
            "message": ".*does not have many workers.*"
        },  # batches are made in bulk, and a tuning step takes seconds
        # What is logged under these names is the same in all processes already: `SessionRanking` and
        # `EpochMeans` see to that, and a mean over processes with other numbers of sessions would be wrong.
        {"message": r"It is recommended to use `self.log\('(train|val|test)/"},
    ):
        warnings.filterwarnings("ignore", **options)  # type: ignore[arg-type]
