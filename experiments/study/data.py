"""Creation of a data module from a YAML file, without training."""

from __future__ import annotations

import logging
import warnings

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from llm4sbr.contracts.registry import DATAMODULES, load_plugins


def data_module(path: str, data_dir: str | None) -> LightningDataModule:
    """Create and prepare the data module of a YAML file."""
    load_plugins(DATAMODULES)
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    words = ["--data", path] + (["--data.data_dir", data_dir] if data_dir else [])
    data: LightningDataModule = parser.instantiate_classes(parser.parse_args(words)).data
    data.prepare_data()
    return data


def quiet_lightning() -> None:
    """Silence warnings about few workers and a missing logger, which are on purpose here."""
    warnings.filterwarnings("ignore", module="lightning.pytorch")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
