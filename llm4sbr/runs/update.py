"""``llm4sbr update``: train a finished run on with new events and a grown catalogue, as a new run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import write_text
from llm4sbr.contracts.ranges import PositiveFloat, PositiveInt, check_arguments
from llm4sbr.runs.line_parser import LineParser
from llm4sbr.runs.saved_run import checkpoint_options, find_checkpoint, read_config
from llm4sbr.runs.trainer_cli import SBRCLI, run

EPOCHS, LR_FACTOR = 3, 0.3
_OPEN = {"max_steps": -1, "min_epochs": None, "min_steps": None, "max_time": None}  # `epochs` is the limit
_USAGE = "llm4sbr update RUN [--epochs N] [--lr_factor F] [--out FOLDER] [--ckpt_path FILE] [options of fit]"


def update(words: Sequence[str], about: dict[str, str] | None = None) -> SBRCLI:
    """Parse the words of the command and train; see `words_of_update`.

    Args:
        words: ``update``, and the words after it.
        about: ``description`` and ``epilog`` of the command's help.
    """
    words_of = parser(about or {})
    given, more = words_of.parse_known_args(list(words[1:]))
    if given.run.startswith("-"):
        words_of.error("name the run first: llm4sbr update RUN --data …")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "config.yaml"
        config = config_of_update(
            given.run,
            given.epochs,
            given.lr_factor,
            given.out,
            given.ckpt_path,
            other_data=any(word.partition("=")[0] == "--data" for word in more),
        )
        write_text(file, yaml.safe_dump(config))
        return run(["fit", "--config", str(file), *more])


def config_of_update(
    run_dir: str | Path,
    epochs: PositiveInt = EPOCHS,
    lr_factor: PositiveFloat = LR_FACTOR,
    out: str | Path | None = None,
    ckpt_path: str | Path | None = None,
    *,
    other_data: bool = False,
) -> dict[str, Any]:
    """Configuration of a fit that starts from the weights of a finished run.

    Known items keep their rows, and new ones start from their titles (`WarmStart`). Optimiser, schedule and
    epochs begin anew, with fewer epochs and a lower learning rate; a run that is an update itself keeps its
    rate. The new run has a folder of its own and is a run as any other.

    Args:
        run_dir: Folder of the finished run.
        epochs: Largest number of epochs.
        lr_factor: Factor of the run's learning rate.
        out: Folder of the new run; by default the next version beside the run.
        ckpt_path: Checkpoint of the run; by default its best.
        other_data: Whether other options replace the run's data module.

    Raises:
        InputError: The folder is not that of a finished run, `out` is not empty, or a number is out of range.
    """
    check_arguments(config_of_update, {"epochs": epochs, "lr_factor": lr_factor})
    folder, checkpoint = find_checkpoint(Path(run_dir))
    if ckpt_path is not None:
        checkpoint = find_checkpoint(Path(ckpt_path))[1]
    config = read_config(folder / "config.yaml")
    began_from = (config.get("start") or {}).get("ckpt_path")
    config.pop("ckpt_path", None)
    config["start"] = {"ckpt_path": str(checkpoint.absolute())}
    if other_data:
        del config["data"]
    config["trainer"] |= {**_OPEN, "max_epochs": epochs}
    for options in checkpoint_options(config):
        options["dirpath"] = None
    if began_from is None:
        for optimizer in (config.get("optimizer"), config["model"].get("init_args", {}).get("optimizer")):
            settings = optimizer.get("init_args") if isinstance(optimizer, dict) else None
            if isinstance(settings, dict) and isinstance(settings.get("lr"), int | float):
                settings["lr"] *= lr_factor
    _log_into(config["trainer"], None if out is None else Path(out).absolute())
    return config


def _log_into(trainer: dict[str, Any], out: Path | None) -> None:
    """Give the run a folder of its own, and a run of its own in Weights & Biases."""
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("this folder is not empty", path=out, hint="Name another one with --out")
    place = {} if out is None else {"save_dir": str(out.parent), "name": "", "version": out.name}
    loggers = trainer.get("logger")
    if out is not None and not isinstance(loggers, dict | list):
        loggers = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {}}
        trainer["logger"] = loggers
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, dict):
            options = logger["init_args"] = logger.get("init_args") or {}
            if str(logger.get("class_path")).endswith("WandbLogger"):
                options.pop("id", None)
            else:
                options.update({"version": None, **place})


def parser(about: dict[str, str]) -> LineParser:
    """Parser of the command's own words; all others are those of `fit`.

    Args:
        about: ``description`` and ``epilog`` of the help.
    """
    description = (
        f"{about.get('description', '')} Known items keep their rows, new ones start from their titles. "
        "All other options are those of `llm4sbr fit`; without --data the run's own data are read again."
    )
    examples = about.get("epilog", "").removeprefix("Examples:\n")
    made = LineParser("update", description, examples, _USAGE)
    made.add_argument("run", metavar="RUN", help="folder of a finished run of `fit` or `update`")
    made.add_argument(
        "--epochs", type=int, default=EPOCHS, help=f"largest number of epochs (default: {EPOCHS})"
    )
    made.add_argument(
        "--lr_factor",
        type=float,
        default=LR_FACTOR,
        help=f"factor of the run's learning rate (default: {LR_FACTOR})",
    )
    made.add_argument("--out", help="folder of the new run (default: the next version beside RUN)")
    made.add_argument("--ckpt_path", help="another checkpoint of the run (default: its best)")
    return made
