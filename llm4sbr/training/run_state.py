"""What a checkpoint needs beyond Lightning's own, for a run to go on as if nothing had happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.training.random_state import random_state, set_random_state

if TYPE_CHECKING:
    from llm4sbr.training.sbr_module import SBRModule


class SeenViews(NamedTuple):
    """The views that a model learns with."""

    spec: str  # fingerprint of all that made them
    described: str  # in words
    store: str  # where they lie


class RunState:
    """Random numbers and running means of every process, and whose items and views a model has seen.

    Attributes:
        views: Set by the view cache; None for a model without views.
    """

    def __init__(self) -> None:
        self.views: SeenViews | None = None
        self._random: list[dict[str, Any]] = []

    def collect(self, module: SBRModule) -> dict[str, Any]:
        """State of a module's run for a checkpoint; every process must ask."""
        return {
            "catalogue": _catalogue(module),
            "views": None if self.views is None else self.views._asdict(),
            "epoch_means": _of_all_processes(module.epoch_means.state_dict()),
            "random": _of_all_processes(random_state(module.device)),
        }

    def load(self, module: SBRModule, state: dict[str, Any]) -> None:
        """From a checkpoint; random numbers wait for `restore`.

        Without views nothing is refused for their sake: a wrapped model recommends without them, too.

        Raises:
            InputError: The checkpoint is of another catalogue than the data module's, or of other views.
        """
        here, there = _catalogue(module), state.get("catalogue")
        if here is not None and there is not None and here != there:
            raise InputError(
                f"the checkpoint was trained on catalogue {there[:12]}, the data module has {here[:12]}",
                hint="Items or titles differ, so its scores would be of other items. "
                "Use the data that it was trained on",
            )
        self._check_views(state.get("views"))
        trainer = module._trainer
        if trainer is not None and trainer.state.fn == "fit":
            means = state.get("epoch_means", [])
            # Another number of processes than before can't go on as if nothing had happened.
            if len(means) == trainer.world_size:
                module.epoch_means.load_state_dict(means[trainer.global_rank], module.device)
                self._random = state["random"]

    def restore(self, module: SBRModule) -> None:
        """Set the random numbers that were loaded, once.

        As late as possible: making loaders, graphs and caches may draw some.
        """
        if self._random:
            set_random_state(self._random[module.global_rank], module.device)
        self._random = []

    def _check_views(self, seen: dict[str, str] | None) -> None:
        if seen is None or self.views is None or seen["spec"] == self.views.spec:
            return
        raise InputError(
            f"the checkpoint's model learned with other views: {seen['described']}; here are "
            f"{self.views.described}",
            path=self.views.store,
            hint=f"They were in {seen['store']}: name them with --views.store and --views.spec "
            f"{seen['spec'][:12]}",
        )


def _catalogue(module: SBRModule) -> str | None:
    trainer = module._trainer
    source = getattr(trainer, "datamodule", None)
    catalogue = getattr(source, "catalogue", None)
    fingerprint = getattr(catalogue, "fingerprint", None)
    return str(fingerprint) if fingerprint else None


def _of_all_processes(value: dict[str, Any]) -> list[dict[str, Any]]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    every: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, value)
    return every
