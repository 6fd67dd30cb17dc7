"""The LightningCLI behind ``fit``, ``validate``, ``test`` and ``predict``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion
from torch.optim import Optimizer

from llm4sbr.callbacks import (
    CandidateFilter,
    EpochChoice,
    EpochLines,
    RecommendationWriter,
    ResumePoint,
    Throughput,
    ViewCache,
    WarmStart,
)
from llm4sbr.callbacks.run_folder import run_folder
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.outputs import Outputs
from llm4sbr.contracts.registry import HEADS, load_plugins
from llm4sbr.runs.bootstrap import bootstrap
from llm4sbr.runs.complaint import complaint, one_line
from llm4sbr.runs.parser import SuggestingParser
from llm4sbr.runs.record import RecordConfig
from llm4sbr.training.atomic_io import save_atomically
from llm4sbr.training.checkpoint import checked
from llm4sbr.training.sbr_module import SBRModule
from llm4sbr.training.schedules import configure
from llm4sbr.training.sharded import is_sharded, read_rest

_PARTS = ("model", "data", "views")  # the parts that identify a run
say = rank_zero_only(print)  # print on rank 0 only


class SBRCLI(LightningCLI):
    """LightningCLI that links the catalogue size to the backbone and finds the checkpoint of a run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._runs, self._old = False, Outputs()
        try:
            super().__init__(*args, **kwargs)
        except Exception as error:
            self._old.warn_stale()
            # Before the command runs, only its options can be at fault.
            if self._runs or complaint(error) is not None or isinstance(error, ArgumentError):
                raise
            said = one_line(str(error))
            raise InputError(f"the options cannot be used: {type(error).__name__}: {said}") from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the catalogue size to the backbone and add options for views, resuming and predictions."""
        parser.link_arguments(
            "data.num_items", "model.init_args.backbone.init_args.num_items", apply_on="instantiate"
        )
        parser.add_lightning_class_args(ViewCache, "views")
        parser.add_lightning_class_args(ResumePoint, "resume")
        parser.add_lightning_class_args(WarmStart, "start")
        parser.add_lightning_class_args(CandidateFilter, "candidates")
        parser.add_argument(
            "--output",
            type=str,
            default="recommendations.parquet",
            help="file of `predict`: .parquet, .jsonl or .csv",
        )

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule,
        optimizer: Optimizer,
        lr_scheduler: LRSchedulerTypeUnion | None = None,
    ) -> Any:
        """Configure ``--optimizer``; without ``--lr_scheduler`` the model keeps its own schedule."""
        if lr_scheduler is None and isinstance(lightning_module, SBRModule):
            lr_scheduler = lightning_module.make_schedule and lightning_module.make_schedule(optimizer)
        return configure(lightning_module, optimizer, lr_scheduler)

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration as given.

        LightningCLI would override it by the hyperparameters of a checkpoint, which lack the backbone.
        """

    def before_instantiate_classes(self) -> None:
        """Choose the checkpoint: without --ckpt_path, evaluation uses the last run of the same parts."""
        config = self.config[self.subcommand]
        config.weights_only = True  # an untrusted checkpoint must not run code
        if self.subcommand == "predict":
            self._old = Outputs(config.output)
        if self.subcommand != "fit" and config.get("ckpt_path") is None:
            config.ckpt_path = str(self._trained_checkpoint())
            say(f"Checkpoint: {config.ckpt_path}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer, which writes checkpoints atomically and validates its last step."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.insert(0, EpochChoice())  # type: ignore[attr-defined]  # ahead of those that it informs
        trainer.callbacks.insert(1, EpochLines())  # type: ignore[attr-defined]
        trainer.callbacks.insert(2, Throughput())  # type: ignore[attr-defined]
        save_atomically(trainer)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the command; a bad checkpoint is reported as bad input."""
        self._runs = True
        path = self.config[subcommand].get("ckpt_path")
        with checked(path, to_train=subcommand == "fit"):
            if path is not None and is_sharded(path) and isinstance(self.model, SBRModule):
                self.model.check_items(read_rest(path), getattr(self.datamodule, "catalogue", None), path)
            super()._run_subcommand(subcommand)

    def before_predict(self) -> None:
        """Add the callback that writes the recommendations of `predict`."""
        self._old = Outputs()  # from here on the writer tells
        self.trainer.callbacks.append(RecommendationWriter(self.config.predict.output))  # type: ignore[attr-defined]

    def after_fit(self) -> None:
        """Print the checkpoint of the run and the command that evaluates it."""
        # Collective: the folder must be read on every rank.
        checkpoint, folder = self.trainer.checkpoint_callback, run_folder(self.trainer)
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_path:
            score = checkpoint.best_model_score  # None without a monitored metric: the last epoch is kept
            found = (
                "The last epoch." if score is None else f"Best epoch by {checkpoint.monitor}: {score:.4f}."
            )
            say(
                f"{found} Evaluate it with\n"
                f"  llm4sbr test --config {shlex.quote(f'{folder}/config.yaml')} "
                f"--ckpt_path {shlex.quote(checkpoint.best_model_path)}"
            )

    def _trained_checkpoint(self) -> Path:
        """Return the best checkpoint of the newest run with the same model, data and views."""
        import yaml

        wanted = yaml.safe_load(self._dump(self.config[self.subcommand]))
        root = Path(wanted["trainer"].get("default_root_dir") or ".")
        saved = sorted(root.rglob("config.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in saved:
            try:
                run = yaml.safe_load(path.read_text("utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                continue  # the file of another program
            if not isinstance(run, dict):
                continue
            if any(_significant(run.get(part)) != _significant(wanted[part]) for part in _PARTS):
                continue
            checkpoints = sorted(path.parent.glob("checkpoints/best*.ckpt"), key=lambda p: p.stat().st_mtime)
            if checkpoints:
                return checkpoints[-1]
        raise InputError(
            f"no trained checkpoint of this model, data and views below {root.resolve()}",
            hint="Run `llm4sbr fit` with the same options first, or pass --ckpt_path",
        )

    def _dump(self, config: Any) -> str:
        text = self._parser(self.subcommand).dump(config, skip_link_targets=True, skip_none=False)
        return str(text)


def _significant(part: Any) -> Any:
    """Remove the options that do not change the metrics from a configuration, such as `num_workers`."""
    if isinstance(part, dict):
        idle = (
            "num_workers",
            "eval_batch_size",
            "cache_dir",
            "top_k",
            "predict_events",
            "num_items",
        )
        return {key: _significant(value) for key, value in part.items() if key not in idle}
    if isinstance(part, list):  # heads that join after training may differ
        return [_significant(value) for value in part if not _joins_later(value)]
    return part


def _joins_later(part: Any) -> bool:
    """Return whether a part of a configuration is a head that takes no part in training."""
    name = part.get("class_path") if isinstance(part, dict) else None
    found = {kind.__qualname__: kind for kind in load_plugins(HEADS).values()}.get(str(name).split(".")[-1])
    return found is not None and not getattr(found, "in_training", True)


def run(
    words: list[str],
    about: dict[str, str] | None = None,
    *,
    save_config: type[SaveConfigCallback] | None = RecordConfig,
    cli: type[SBRCLI] = SBRCLI,
) -> SBRCLI:
    """Parse and run one trainer command.

    Args:
        words: Command and its options.
        about: ``description`` and ``epilog`` of the command's help.
        save_config: Callback that writes the configuration into the run's folder; None if it is there
            already.
        cli: Class of the command line.
    """
    bootstrap()
    return cli(
        SBRModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=words,
        trainer_class=Trainer,
        seed_everything_default=0,
        parser_kwargs={"prog": "llm4sbr", words[0]: about or {}},
        parser_class=SuggestingParser,
        save_config_callback=save_config,
        save_config_kwargs={"save_to_log_dir": False},  # RecordConfig saves by itself
    )
