"""``llm4sbr rerun``: repeat a run and compare every number with the first run."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import write_text
from llm4sbr.contracts.ranges import PositiveInt, check_arguments
from llm4sbr.runs.record import NAME, RecordConfig, read_record
from llm4sbr.runs.saved_run import checkpoint_options, read_config
from llm4sbr.runs.trainer_cli import run, say

_METRICS = "metrics.csv"
_OF_THE_MOMENT = ("throughput/",)  # metrics with run-to-run noise


def rerun(run_dir: str, max_epochs: PositiveInt | None = None) -> bool:
    """Train again with a run's configuration, in a new folder beside the first, and compare the metrics.

    The same versions on the same kind of machine with the same number of threads give the same numbers. Any
    difference in these is reported before training begins. Changed data are an error.

    Args:
        run_dir: Folder of the run.
        max_epochs: Number of epochs to repeat, for a quick check against the first epochs of the run. Leave
            it out if the learning rate depends on it.

    Returns:
        Whether all numbers are equal.

    Raises:
        InputError: The folder is not that of a run with a CSV log, or the data have changed.
    """
    folder = Path(run_dir).absolute()
    check_arguments(rerun, {"max_epochs": max_epochs})
    config = read_config(folder / "config.yaml")
    before = _complete(read_record(folder / NAME), folder / NAME)
    if not (folder / _METRICS).is_file():
        raise InputError("the run has no metrics to compare with", path=folder / _METRICS)
    target = _free(folder)
    config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {
            "save_dir": str(folder.parent.parent),
            "name": folder.parent.name,
            "version": target.name,
        },
    }
    config.pop("ckpt_path", None)
    for options in checkpoint_options(config):
        options["dirpath"] = None  # beside the metrics, and not where the first run keeps its own
    if max_epochs is not None:
        config["trainer"]["max_epochs"] = max_epochs
    threads = torch.get_num_threads()
    torch.set_num_threads(before["machine"]["threads"])
    try:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "config.yaml"
            write_text(file, yaml.safe_dump(config))
            run(["fit", "--config", str(file)], save_config=_against(before))
    finally:
        torch.set_num_threads(threads)
    compared, different = compare(folder / _METRICS, target / _METRICS)
    for line in different[:10]:
        say(line)
    say(f"{compared} numbers compared, {len(different)} differ: {folder} and {target}.")
    return compared > 0 and not different


def compare(first: Path, second: Path) -> tuple[int, list[str]]:
    """Compare two ``metrics.csv``: the number of common entries, and a line for each difference."""
    old, new = dict(_numbers(first)), dict(_numbers(second))
    shared = [place for place in new if place in old]
    missing = [f"{name} at step {step} is only in {second}" for step, name in new if (step, name) not in old]
    return len(shared), missing + [
        f"{name} at step {step}: {old[step, name]} before, {new[step, name]} now"
        for step, name in shared
        if old[step, name] != new[step, name]
    ]


def _numbers(path: Path) -> Iterator[tuple[tuple[str, str], str]]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and "/" in name and not name.startswith(_OF_THE_MOMENT):
                    yield (row["step"], name), value


def _complete(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """Check the parts of a record that a repeated run is compared with."""
    threads = record["machine"].get("threads") if isinstance(record.get("machine"), dict) else None
    whole = isinstance(threads, int) and not isinstance(threads, bool) and 0 < threads < 1 << 16
    if not whole or not isinstance(record.get("versions"), dict) or "data" not in record:
        raise InputError("the record of the run lacks versions, machine or data", path=path)
    return record


def _against(before: dict[str, Any]) -> type[RecordConfig]:
    """Return a `RecordConfig` that compares the new run with the record of the first."""

    class Compared(RecordConfig):
        def write(self, made_with: dict[str, Any], path: Path, trainer: Trainer) -> None:
            if made_with["data"] != before["data"]:
                raise InputError(
                    "the data differ from those of the run: files or options have changed", path=path
                )
            for what in _changes(before, made_with):
                say(f"Changed since the run: {what}.")
            super().write(made_with, path, trainer)

    return Compared


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    changes = []
    for part in ("versions", "machine"):
        names = sorted({*before[part], *now[part]})
        changes += [
            f"{name} was {before[part].get(name)}, is {now[part].get(name)}"
            for name in names
            if before[part].get(name) != now[part].get(name)
        ]
    return changes


def _free(folder: Path) -> Path:
    """Return a new folder beside that of the run."""
    number = 1
    while (target := folder.with_name(f"{folder.name}-rerun-{number}")).exists():
        number += 1
    return target
