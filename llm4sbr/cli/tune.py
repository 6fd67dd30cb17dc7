"""The function behind ``llm4sbr tune-llm``: a LightningCLI around the tuner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from llm4sbr.contracts.outputs import replacing
from llm4sbr.runs.bootstrap import bootstrap
from llm4sbr.runs.parser import SuggestingParser
from llm4sbr.training.atomic_io import save_atomically
from llm4sbr.training.checkpoint import checked
from llm4sbr.tuning.adapter_writer import AdapterWriter
from llm4sbr.tuning.training_texts import TrainingTextDataModule
from llm4sbr.tuning.tuner import TitleTuner
from llm4sbr.views.prompts import PromptOptions

_STEPS_PER_CHECKPOINT = 50


class TuningCLI(LightningCLI):
    """LightningCLI with options for the adapter, the prompts and the training texts."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options besides model, data and trainer."""
        parser.add_argument("--out", type=str, required=True, help="folder of the adapter")
        parser.add_argument("--ckpt_path", type=str, default=None, help="checkpoint to continue from")
        parser.add_class_arguments(PromptOptions, "prompts")
        parser.add_class_arguments(
            TrainingTextDataModule, "texts", skip={"source", "prompts"}, instantiate=False
        )
        parser.set_defaults({"trainer.max_epochs": 1})


def tune(words: list[str], about: dict[str, str] | None = None) -> TuningCLI:
    """Parse and run ``llm4sbr tune-llm``.

    Args:
        words: Command and its options.
        about: ``description`` and ``epilog`` of the command's help.
    """
    bootstrap()
    cli = TuningCLI(
        TitleTuner,
        LightningDataModule,
        subclass_mode_data=True,
        run=False,
        args=words[1:],
        trainer_class=Trainer,
        seed_everything_default=0,
        save_config_callback=None,
        parser_kwargs={"prog": "llm4sbr tune-llm", **(about or {})},
        parser_class=SuggestingParser,
    )
    config, source = cli.config, cli.datamodule
    source.prepare_data()
    texts: Any = TrainingTextDataModule(source, cli.config_init.prompts, **vars(config.texts))
    cli.model.learn_titles(texts.titles)
    callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
    callbacks += [
        AdapterWriter(config.out),
        # By steps: an epoch takes hours, and a run that was killed continues from this checkpoint.
        ModelCheckpoint(
            filename="last",
            every_n_train_steps=_STEPS_PER_CHECKPOINT,
            save_on_exception=True,
            enable_version_counter=False,
        ),
    ]
    if cli.trainer.loggers:
        callbacks.append(LearningRateMonitor("step"))
    save_atomically(cli.trainer)
    with replacing(Path(config.out) / "adapter_config.json"), checked(config.ckpt_path, to_train=True):
        cli.trainer.fit(cli.model, texts, ckpt_path=config.ckpt_path, weights_only=True)
    return cli
