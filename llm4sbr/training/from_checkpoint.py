"""Load a model from its checkpoint alone, without the original constructor arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import require_finite_state
from llm4sbr.contracts.rebuildable import Rebuildable, arguments, class_path, describe
from llm4sbr.contracts.registry import BACKBONES, HEADS, load_plugins
from llm4sbr.nn.alignment import Alignment
from llm4sbr.nn.carry_over import carried_state, describe_change
from llm4sbr.nn.losses import LOSSES
from llm4sbr.nn.scorers import SCORERS
from llm4sbr.nn.view_predictor import ViewPredictor
from llm4sbr.training.checkpoint import named_mismatch, read_checkpoint
from llm4sbr.training.epoch_means import EpochMeans
from llm4sbr.training.run_state import RunState
from llm4sbr.training.train_on import begin_epoch, take_optimizers

# Classes that a checkpoint may name besides registered backbones and heads.
PARTS: tuple[type, ...] = (Alignment, ViewPredictor, *LOSSES, *SCORERS)
_NOT_OF_THE_MODEL = ("optimizer", "lr_scheduler")  # training settings; a run's config.yaml holds them


class LoadedFromCheckpoint(Rebuildable, LightningModule):
    """A `LightningModule` of `Rebuildable` parts that can be rebuilt from its checkpoint alone."""

    backbone: SessionBackbone
    run_state: RunState
    epoch_means: EpochMeans
    reads_titles = False  # whether weights or buffers depend on the titles
    catalogue_titles: tuple[Tensor, Tensor] | None = None  # embeddings and mask, while a Trainer starts
    start_from: Path | None = None  # checkpoint whose weights a fit begins with, set by `WarmStart`
    _to_take: tuple[dict[str, Any], CatalogueChange] | None = None  # optimisers' states for `on_fit_start`

    def described(self) -> dict[str, Any]:
        """Class and arguments of the model as plain values, without the optimiser and the schedule."""
        found = describe(self, self.parts())
        kept = {name: value for name, value in found["init_args"].items() if name not in _NOT_OF_THE_MODEL}
        return {**found, "init_args": kept}

    def parts(self) -> dict[str, Any]:
        """Default parts that the constructor created for omitted arguments, by argument name."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the model's parts, generator states, epoch means and catalogue fingerprint.

        Raises:
            InputError: If a weight is not finite; the file is not written.
        """
        weights = frozenset(dict(self.named_parameters()))
        require_finite_state(checkpoint.get("state_dict", {}), finite=weights)
        state = self.run_state.collect(self._catalogue(), self.epoch_means.state_dict(), self.device)
        checkpoint["llm4sbr"] = {**state, "model": self.described()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the state that `on_save_checkpoint` saved; weights of another catalogue are carried over.

        Raises:
            InputError: If a weight is not finite, or the weights cannot be carried over to the data module's
                catalogue (`RunState.compare`, `carried_state`).
        """
        require_finite_state(
            checkpoint.get("state_dict", {}), finite=frozenset(dict(self.named_parameters()))
        )
        state = checkpoint.get("llm4sbr", {})
        change = self.run_state.compare(state, self._catalogue())
        trainer = self._trainer
        if change is not None and not (change.same_items and not self.reads_titles):
            self._carry_over(checkpoint, change)
        elif trainer is not None and trainer.state.fn == "fit":
            means = self.run_state.resume(state, trainer.global_rank, trainer.world_size)
            if means is not None:
                self.epoch_means.load_state_dict(means, self.device)

    def on_fit_start(self) -> None:
        """Convert the optimisers' states of a checkpoint with another catalogue, before they are loaded."""
        if self._to_take is not None:
            (checkpoint, change), self._to_take = self._to_take, None
            take_optimizers(checkpoint, self.trainer, self, change)

    def check_items(
        self, checkpoint: Mapping[str, Any], catalogue: Catalogue | None, path: str | Path
    ) -> None:
        """Check that weights fit a catalogue as they are, item by item, where none can be carried over.

        Raises:
            InputError: If the checkpoint has other items, or the same ones in another order.
        """
        change = RunState().compare(checkpoint.get("llm4sbr", {}), catalogue)
        if change is not None and not change.same_items:
            raise InputError(
                f"the checkpoint has other items than the data: {describe_change(change, titles=False)}",
                path=path,
                hint="Use the data that it was trained on",
            )

    def _carry_over(self, checkpoint: dict[str, Any], change: CatalogueChange) -> None:
        """Convert a checkpoint to the data module's catalogue, in place."""
        if self.trainer.strategy.restore_checkpoint_after_setup:  # FSDP: no process has the whole weights
            raise InputError(
                "the checkpoint has another catalogue, and sharded weights cannot be carried over",
                hint="Train on with another strategy, such as ddp, from a checkpoint in one file",
            )
        if self.backbone.num_items != change.num_items:
            raise InputError(
                f"the model has {self.backbone.num_items} items, the data module {change.num_items}",
                hint="Build the backbone with the num_items of the data module",
            )
        fitting = self.trainer.state.fn == "fit"
        change = self._with_titles(change, fitting=fitting)
        # Rows of new items may be random; the strategy then copies the state of rank 0 to all ranks.
        checkpoint["state_dict"] = carried_state(self, checkpoint["state_dict"], change)
        said = describe_change(change, titles=self.reads_titles)
        if fitting:
            done = begin_epoch(checkpoint, self.trainer)
            self._to_take = checkpoint, change
            said += f"; training goes on at the start of epoch {done}"
        rank_zero_info(f"Another catalogue: {said}.")

    def start(self) -> None:
        """Load the weights that a fit starts from (`start_from`), after the training sessions are read.

        Raises:
            InputError: If the file is no checkpoint of this model, or has no item of the data module.
        """
        if self.start_from is None:
            return
        path, self.start_from = self.start_from, None
        checkpoint = read_checkpoint(path)
        # Not that of the run: `llm4sbr resume` continues with one catalogue, and starts from another.
        state = RunState()
        state.views = self.run_state.views
        found = state.compare(checkpoint.get("llm4sbr", {}), self._catalogue())
        change = CatalogueChange.none(self.backbone.num_items) if found is None else found
        if self.backbone.num_items != change.num_items:
            raise InputError(f"the model has {self.backbone.num_items} items, the data {change.num_items}")
        change = self._with_titles(change, fitting=True)
        with named_mismatch(path):
            self.load_state_dict(carried_state(self, checkpoint["state_dict"], change))
        said = "The same items" if found is None else describe_change(change, titles=self.reads_titles)
        rank_zero_info(f"Training starts from {path}: {said}.")

    def _with_titles(self, change: CatalogueChange, *, fitting: bool) -> CatalogueChange:
        titles, titled = self.catalogue_titles or (None, None)
        return replace(change, fitting=fitting, titles=titles, titled=titled)

    def _catalogue(self) -> Catalogue | None:
        """The data module's catalogue; None without one."""
        source = getattr(self._trainer, "datamodule", None)
        catalogue = getattr(source, "catalogue", None)
        return catalogue if isinstance(catalogue, Catalogue) else None

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        *,
        classes: Iterable[type] = (),
        strict: bool = True,
        weights_only: bool | None = None,
        **arguments_: Any,
    ) -> Self:
        """Load a model with its backbone and heads from a checkpoint.

        The checkpoint is read with ``weights_only=True``. Only registered classes (`llm4sbr.backbones`,
        `llm4sbr.heads`) and the given ``classes`` are built. The optimiser and the schedule are the defaults.

        Args:
            checkpoint_path: Checkpoint file written by a Trainer.
            map_location: Device of the weights.
            classes: Further classes that may be built, such as your own backbone.
            strict: Whether every weight must be present.
            weights_only: As in Lightning; only True or None is accepted.
            arguments_: Constructor arguments that replace those in the checkpoint. An argument without a
                plain form, such as the module of a `ModuleBackbone`, must be given here.

        Raises:
            InputError: If the file is damaged, belongs to another class, names a class that is not
                registered or lacks an argument, if its weights do not fit, or if ``weights_only`` is False.
        """
        if weights_only is False:
            raise InputError("a checkpoint is read as tensors and plain values only", value=weights_only)
        path = Path(checkpoint_path)
        checkpoint = read_checkpoint(path)
        description = checkpoint.get("llm4sbr", {}).get("model")
        if not isinstance(description, dict) or not isinstance(description.get("init_args"), dict):
            raise InputError("this checkpoint does not name its model", path=path)
        if description.get("class_path") not in {class_path(one) for one in _family(cls)}:
            raise InputError(
                f"this checkpoint is of {description.get('class_path')}, not of {cls.__name__}", path=path
            )
        given = {name: value for name, value in description["init_args"].items() if name not in arguments_}
        allowed = [*load_plugins(BACKBONES).values(), *load_plugins(HEADS).values(), *PARTS, *classes]
        made = arguments({"class_path": description["class_path"], "init_args": given}, allowed)
        missing = set(given) - set(made)
        if missing:
            raise InputError(
                f"the checkpoint could not keep what these arguments were: {', '.join(sorted(missing))}",
                path=path,
                hint=f"Give them: {cls.__name__}.load_from_checkpoint(path, {min(missing)}=…)",
            )
        model = cls(**made, **arguments_)
        with named_mismatch(path):
            model.load_state_dict(checkpoint["state_dict"], strict=strict)
        model.on_load_checkpoint(checkpoint)
        return model.to(map_location)


def _family(cls: type) -> set[type]:
    """A class and all its subclasses."""
    found = {cls}
    child: type
    for child in cls.__subclasses__():
        found |= _family(child)
    return found
