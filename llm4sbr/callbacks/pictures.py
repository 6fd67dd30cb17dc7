"""Pictures: draws the paper's figures for a run at the end of training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from llm4sbr.callbacks.chosen_epoch import ChosenEpoch
from llm4sbr.callbacks.run_folder import run_folder
from llm4sbr.callbacks.view_cache import ViewCache
from llm4sbr.contracts.ranges import PositiveInt, Ranged
from llm4sbr.report.evaluation_hooks import Seen
from llm4sbr.report.figures.figures import Format, run_figures, run_numbers, save
from llm4sbr.report.figures.snapshot import Snapshot, SnapshotRecorder, Spaces, evenly, snapshot_spaces
from llm4sbr.training.random_state import random_state, set_random_state
from llm4sbr.training.ranking_module import RankingModule
from llm4sbr.training.wrapper import LLM4SBRWrapper

FOLDER = "pictures"


class Pictures(Ranged, ChosenEpoch):
    """Draws figures of the chosen epoch's validation into the run's folder, as ``pictures/*.png``.

    ``length``: Recall@20 and MRR@20 against the number of clicks. ``gates``: the distributions of the long-
    and the short-term gate (Eq. 10-11, arXiv:2402.13840). ``spaces``: interests and views of the same
    sessions before training and at the chosen epoch (the effect of Eq. 8-9), in two dimensions. A bare model
    has only ``length``. The data behind the figures are in ``pictures/pictures.json``; Weights & Biases and
    TensorBoard receive the figures, too. ``llm4sbr draw`` draws finished runs.

    Args:
        sample: Number of sessions in ``spaces``.
        format: Format of the image files.
    """

    def __init__(self, sample: PositiveInt = 300, format: Format = "png") -> None:
        super().__init__()
        self.sample, self.format = sample, format
        self.before: Spaces | None = None
        self.found: Snapshot | None = None
        self._indices: list[int] = []
        self._recorder = SnapshotRecorder()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record both spaces before the first step."""
        source = getattr(trainer, "datamodule", None)
        if source is None or not hasattr(source, "examples"):
            return
        examples = source.examples("validate")
        rows = evenly(self.sample, len(examples))
        self._indices = [examples.first_index + row for row in rows]
        if self.before is not None or not isinstance(pl_module, LLM4SBRWrapper) or not rows:
            return
        if isinstance(trainer.strategy, FSDPStrategy):
            rank_zero_warn(
                "Pictures: no spaces before training for a sharded model; `llm4sbr draw` adds them."
            )
            return
        drawn = random_state()
        self.before = snapshot_spaces(pl_module, examples, rows)
        set_random_state(drawn)  # so that the callback does not change the run

    def start(self, trainer: Trainer, pl_module: RankingModule) -> None:
        """Reset the records at the start of a validation."""
        self._recorder = SnapshotRecorder(self._indices)

    def add_batch(self, seen: Seen) -> None:
        """Record a validation batch."""
        self._recorder.add(seen)

    def keep_epoch(self, trainer: Trainer, pl_module: RankingModule) -> None:
        """Store the records for the figures."""
        self.found = self._recorder.result()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and log the figures."""
        folder = run_folder(trainer) / FOLDER  # collective: call it on every rank
        if not trainer.is_global_zero or self.found is None:
            return
        views = view_names(trainer, pl_module)
        figures = run_figures(self.found, self.before, views, "run")
        paths = save(folder, figures, run_numbers(self.found, self.before, views), self.format)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and self.format == "png":
                for name, path in zip(figures, paths, strict=True):
                    logger.log_image(f"pictures/{name}", [str(path)])
            elif isinstance(logger, TensorBoardLogger):
                for name, figure in figures.items():
                    logger.experiment.add_figure(f"pictures/{name}", figure, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run."""
        look = None if self.found is None else _plain(self.found)
        return {**super().state_dict(), "before": _plain(self.before), "look": look}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of an interrupted run."""
        super().load_state_dict(state_dict)
        self.before = _spaces(state_dict["before"])
        look = state_dict["look"]
        self.found = None if look is None else Snapshot(look[0], look[1], look[2], _spaces(look[3]))


def view_names(trainer: Trainer, model: LightningModule) -> tuple[str, ...]:
    """Names of a wrapped model's views, from the view store or else from the paired interests."""
    cache = ViewCache.of(trainer)
    if cache is not None and cache.spec_used is not None:
        return cache.spec_used.views
    return model.interest_of_view if isinstance(model, LLM4SBRWrapper) else ()


def _plain(value: tuple[Any, ...] | Tensor | None) -> Any:
    """Convert named tuples to lists, because ``weights_only`` loading accepts no classes of this package."""
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _spaces(value: list[Tensor] | None) -> Spaces | None:
    return None if value is None else Spaces(*value)
