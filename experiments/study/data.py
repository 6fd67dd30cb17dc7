"""The data module of a YAML file, without training."""

from __future__ import annotations

import logging
import warnings

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from llm4sbr.contracts.registry import DATAMODULES, load_plugins


def data_module(path: str, data_dir: str | None) -> LightningDataModule:
    """The data module of a YAML file, prepared."""
    load_plugins(DATAMODULES)
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    words = ["--data", path] + (["--data.data_dir", data_dir] if data_dir else [])
    data: LightningDataModule = parser.instantiate_classes(parser.parse_args(words)).data
    data.prepare_data()
    return data


def quiet_lightning() -> None:
    """Few workers and no logger are meant: no warning of either."""
    warnings.filterwarnings("ignore", module="lightning.pytorch")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
