"""The function behind ``llm4sbr tune-llm``: a LightningCLI around the tuner."""

from __future__ import annotations

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from llm4sbr.registry import DATAMODULES, load_plugins
from llm4sbr.tuning.adapter_writer import AdapterWriter
from llm4sbr.tuning.lessons import LessonDataModule
from llm4sbr.tuning.tuner import TitleTuner
from llm4sbr.views.prompts import templates_named

_STEPS_PER_CHECKPOINT = 50


class TuningCLI(LightningCLI):
    """Adds where the adapter goes and what a prompt looks like."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options beside model, data and trainer."""
        parser.add_argument("--out", type=str, required=True, help="folder of the adapter")
        parser.add_argument("--ckpt_path", type=str, default=None, help="checkpoint to go on from")
        parser.add_argument(
            "--templates",
            type=str,
            default="default",
            help="default, later, paper, or a YAML file of view templates",
        )
        parser.add_class_arguments(
            LessonDataModule, "lessons", skip={"source", "templates"}, instantiate=False
        )
        parser.set_defaults({"trainer.max_epochs": 1})


def tune(words: list[str]) -> TuningCLI:
    """Parse and run ``llm4sbr tune-llm``.

    Args:
        words: Its options.
    """
    load_plugins(DATAMODULES)
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # we mean what we pass
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # a step takes seconds
    cli = TuningCLI(
        TitleTuner,
        LightningDataModule,
        subclass_mode_data=True,
        run=False,
        args=words,
        trainer_class=Trainer,
        seed_everything_default=0,
        save_config_callback=None,
        parser_kwargs={"prog": "llm4sbr tune-llm"},
    )
    config, source = cli.config, cli.datamodule
    source.prepare_data()
    lessons: Any = LessonDataModule(source, templates_named(config.templates), **vars(config.lessons))
    cli.model.learn_titles(lessons.titles)
    callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
    callbacks += [
        AdapterWriter(config.out),
        # By steps: an epoch takes hours, and a run that dies in it goes on from here.
        ModelCheckpoint(
            filename="last",
            every_n_train_steps=_STEPS_PER_CHECKPOINT,
            save_on_exception=True,
            enable_version_counter=False,
        ),
    ]
    if cli.trainer.loggers:
        callbacks.append(LearningRateMonitor("step"))
    cli.trainer.fit(cli.model, lessons, ckpt_path=config.ckpt_path, weights_only=True)
    return cli
