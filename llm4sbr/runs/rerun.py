"""``llm4sbr rerun``: the same run once more, number by number against the first."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import write_text
from llm4sbr.runs.record import NAME, RecordConfig
from llm4sbr.runs.saved_run import read_config
from llm4sbr.runs.trainer_cli import run, say

_METRICS = "metrics.csv"
_OF_THE_MOMENT = ("throughput/",)  # numbers that tell of the machine's mood


def rerun(run_dir: str, max_epochs: int | None = None) -> bool:
    """Train again with a run's configuration, in a folder of its own beside the first, and compare.

    The same versions on the same kind of machine with as many threads give the same numbers; what differs of
    these is told before the training begins. Other data are an error.

    Args:
        run_dir: Folder of the run.
        max_epochs: Only so many epochs, for a quick look, against the first ones of the run. Leave it out
            where the learning rate depends on it.

    Returns:
        Whether every number was the same.

    Raises:
        InputError: The folder is not a run's that logged to a CSV file, or the data have changed.
    """
    folder = Path(run_dir)
    config = read_config(folder / "config.yaml")
    before = _read_record(folder / NAME)
    if not (folder / _METRICS).is_file():
        raise InputError("there are no numbers to compare with", path=folder / _METRICS)
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
    """How many numbers two ``metrics.csv`` have in common places, and a line on each that differs."""
    old, new = dict(_numbers(first)), dict(_numbers(second))
    shared = [place for place in new if place in old]
    missing = [f"{name} at step {step} is only in {second}" for step, name in new if (step, name) not in old]
    return len(shared), missing + [
        f"{name} at step {step}: {old[step, name]} was, {new[step, name]} is"
        for step, name in shared
        if old[step, name] != new[step, name]
    ]


def _numbers(path: Path) -> Iterator[tuple[tuple[str, str], str]]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and "/" in name and not name.startswith(_OF_THE_MOMENT):
                    yield (row["step"], name), value


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            "what the run was made with is not known", path=path, hint="`llm4sbr fit` writes it"
        ) from error
    return found


def _against(before: dict[str, Any]) -> type[RecordConfig]:
    """Records a run that should be as the one before was."""

    class Compared(RecordConfig):
        def write(self, made_with: dict[str, Any], path: Path, trainer: Trainer) -> None:
            if made_with["data"] != before["data"]:
                raise InputError(
                    "the data are not those of the run: files or choices have changed", path=path
                )
            for what in _changes(before, made_with):
                say(f"Not as it was: {what}.")
            super().write(made_with, path, trainer)

    return Compared


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    told = []
    for part in ("versions", "machine"):
        names = sorted({*before[part], *now[part]})
        told += [
            f"{name} {before[part].get(name)} is {now[part].get(name)}"
            for name in names
            if before[part].get(name) != now[part].get(name)
        ]
    return told


def _free(folder: Path) -> Path:
    """A folder beside the run's that is not there yet."""
    number = 1
    while (target := folder.with_name(f"{folder.name}-rerun-{number}")).exists():
        number += 1
    return target
