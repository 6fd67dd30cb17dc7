"""Setup that every command needs before it parses its options."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import yaml
from jsonargparse import get_loader, set_loader

from llm4sbr.contracts.registry import BACKBONES, DATAMODULES, HEADS, load_plugins
from llm4sbr.runs.class_paths import renamed


def bootstrap() -> None:
    """Load the plug-ins, map earlier class paths, set the precision of matrix products, silence warnings.

    Call it before parsing, since options name plug-ins by their class name. A second call changes nothing.
    """
    for group in (BACKBONES, HEADS, DATAMODULES):
        load_plugins(group)
    load = get_loader("yaml")
    if not isinstance(load, _Renaming):
        set_loader("yaml", _Renaming(load), (yaml.YAMLError, RecursionError))
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


class _Renaming:
    """Loader of configurations that replaces the class paths of earlier versions."""

    def __init__(self, load: Callable[[str], Any]) -> None:
        self.load = load

    def __call__(self, text: str) -> Any:
        return renamed(self.load(text))
