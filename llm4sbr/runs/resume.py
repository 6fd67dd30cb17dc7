"""``llm4sbr resume``: continue a run from its last checkpoint, in its own folder."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from llm4sbr.callbacks.resume_point import NAME
from llm4sbr.callbacks.run_folder import in_folder
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import write_text
from llm4sbr.runs.record import NAME as RECORD
from llm4sbr.runs.record import read_record
from llm4sbr.runs.saved_run import checkpoint_options, read_config
from llm4sbr.runs.trainer_cli import SBRCLI, run, say
from llm4sbr.training.checkpoint import read_checkpoint
from llm4sbr.training.sbr_module import SBRModule

_FOLDERS = ("CSVLogger", "TensorBoardLogger")  # loggers that write into the run's folder


def resume(run_dir: str, ckpt_path: str | None = None) -> None:
    """Continue a run of ``fit`` that was killed or stopped, in its own folder, with the same results.

    Args:
        run_dir: Folder of the run, with its ``config.yaml``.
        ckpt_path: Checkpoint to continue from; by default ``checkpoints/resume.ckpt``. Without a checkpoint
            the run starts again.

    Raises:
        InputError: The folder is not that of a run, or the run has ended.
    """
    resumed(run_dir, ckpt_path)


def resumed(run_dir: str | Path, ckpt_path: str | None = None) -> SBRCLI:
    """The trained run, for a program that continues it; see `resume`."""
    folder = Path(run_dir).absolute()
    config = read_config(folder / "config.yaml")
    checkpoint = Path(ckpt_path) if ckpt_path else folder / "checkpoints" / NAME
    step = 0
    if checkpoint.is_file():
        step = int(read_checkpoint(checkpoint, to_train=True)["global_step"])
        say(f"Continuing after step {step}.")
    elif ckpt_path:
        raise InputError("there is no such checkpoint", path=checkpoint)
    elif any(folder.glob("checkpoints/best*.ckpt")):
        raise InputError(
            f"this run has no checkpoints/{NAME}: it has ended",
            path=folder,
            hint="To train on, give its config.yaml more epochs and name a checkpoint with --ckpt_path",
        )
    else:
        say("There is no checkpoint yet; the run starts again.")
    config.pop("ckpt_path", None)
    _log_into(folder, config, step)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "config.yaml"
        write_text(file, yaml.safe_dump(config))
        words = ["fit", "--config", str(file)]
        with in_folder(folder):
            words += ["--ckpt_path", str(checkpoint)] if step else []
            return run(words, save_config=None, cli=_ExactCLI)


class _ExactCLI(SBRCLI):
    """Command line of a run that is continued with the same results, so only with the same catalogue."""

    def before_fit(self) -> None:
        """Refuse a checkpoint of another catalogue."""
        if isinstance(self.model, SBRModule):
            self.model.run_state.exact = True


def _log_into(folder: Path, config: dict[str, Any], step: int) -> None:
    """Configure loggers and checkpoints to continue in the run's folder, wherever it was or is now.

    In Weights & Biases the run continues as the same run.
    """
    tracked, begun_in = _recorded(folder / RECORD)
    trainer = config["trainer"]
    elsewhere = begun_in is not None and begun_in != str(folder.resolve())
    for options in checkpoint_options(config):
        if elsewhere or not options.get("dirpath"):  # the original of a copied run keeps its checkpoints
            options["dirpath"] = str(folder / "checkpoints")
    if trainer.get("logger") is False:
        trainer["default_root_dir"] = str(folder)
    elif trainer.get("logger") in (None, True):  # Lightning's default logger
        board = not (folder / "metrics.csv").is_file() and any(folder.glob("events.out.*"))
        kind = "TensorBoardLogger" if board else "CSVLogger"
        trainer["logger"] = {"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": {}}
    loggers = trainer["logger"]
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if not isinstance(logger, dict):
            continue
        options = logger["init_args"] = logger.get("init_args") or {}
        kind = str(logger.get("class_path"))
        if kind.endswith("WandbLogger"):
            options["save_dir"] = str(folder.parent.parent)
            if tracked:
                options["id"] = tracked
        if not kind.endswith(_FOLDERS):
            continue
        options.update(save_dir=str(folder.parent), name="", version=folder.name)
        if kind.endswith("CSVLogger"):
            logger["class_path"] = "llm4sbr.runs.resume.ContinuedCSVLogger"
            options["after_step"] = step


def _recorded(record: Path) -> tuple[str | None, str | None]:
    """Id of the run in Weights & Biases, and the folder that it began in, from its record."""
    if not record.exists():
        return None, None
    found = read_record(record)
    tracked, begun_in = found.get("wandb"), found.get("run")
    if not isinstance(tracked, str | None):
        raise InputError(
            "the record of the run has no valid id of Weights & Biases", path=record, value=tracked
        )
    return tracked, begun_in if isinstance(begun_in, str) else None


class ContinuedCSVLogger(CSVLogger):
    """Logger that continues the ``metrics.csv`` of an interrupted run.

    Args:
        save_dir: As in `CSVLogger`.
        name: As in `CSVLogger`.
        version: As in `CSVLogger`.
        prefix: As in `CSVLogger`.
        flush_logs_every_n_steps: As in `CSVLogger`.
        after_step: Step of the checkpoint; rows of this step and later ones are removed, since they are
            logged again.
    """

    def __init__(
        self,
        save_dir: str,
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
        after_step: int = 0,
    ) -> None:
        super().__init__(save_dir, name, version, prefix, flush_logs_every_n_steps)
        self.after_step = after_step

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer of ``metrics.csv``."""
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)
            self._experiment = _ContinuedWriter(self.log_dir, self.after_step)
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment


class _ContinuedWriter(ExperimentWriter):
    def __init__(self, log_dir: str, after_step: int) -> None:
        super().__init__(log_dir)
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            self.metrics_keys = list(reader.fieldnames or [])
            rows = [row for row in reader if row.get("step") and int(row["step"]) < after_step]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())

    def _check_log_dir_exists(self) -> None:
        """Skip the check: the folder exists, and its files are kept."""
