"""What a checkpoint needs beyond Lightning's own, for a run to go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.training.distributed import from_all_processes
from llm4sbr.training.random_state import random_state, set_random_state


class SeenViews(NamedTuple):
    """The views that a model learns with."""

    spec: str  # fingerprint of all that made them
    described: str  # in words
    store: str  # where they lie


class RunState:
    """Random numbers and running means of every process, and the items and views that a model has seen.

    Attributes:
        views: Set by the view cache; None for a model without views.
    """

    def __init__(self) -> None:
        self.views: SeenViews | None = None
        self._random: list[dict[str, Any]] = []

    def collect(
        self, catalogue: str | None, epoch_means: dict[str, Any], device: torch.device
    ) -> dict[str, Any]:
        """The state of a run for a checkpoint. Collective: call it on every rank.

        Args:
            catalogue: Fingerprint of the data module's catalogue, where there is one.
            epoch_means: State of this process's running means.
            device: Of the model.
        """
        return {
            "catalogue": catalogue,
            "views": None if self.views is None else self.views._asdict(),
            "epoch_means": from_all_processes(epoch_means),
            "random": from_all_processes(random_state(device)),
        }

    def check(self, state: Mapping[str, Any], catalogue: str | None) -> None:
        """Refuse a checkpoint of other items or other views.

        Without views nothing is refused for their sake: a wrapped model recommends without them, too.

        Args:
            state: What `collect` returned.
            catalogue: Fingerprint of the data module's catalogue, where there is one.

        Raises:
            InputError: The checkpoint is of another catalogue than the data module's, or of other views.
        """
        there = state.get("catalogue")
        if catalogue is not None and there is not None and catalogue != there:
            raise InputError(
                f"the checkpoint was trained on catalogue {there[:12]}, the data module has {catalogue[:12]}",
                hint="Items or titles differ, so its scores would be of other items. "
                "Use the data that it was trained on",
            )
        self._check_views(state.get("views"))

    def resume(self, state: Mapping[str, Any], rank: int, world_size: int) -> dict[str, Any] | None:
        """Take up an interrupted run's random numbers, which wait for `restore`; return its epoch's means.

        None where the run had another number of processes: it cannot go on as if nothing had happened.

        Args:
            state: What `collect` returned.
            rank: Number of this process.
            world_size: Number of processes.
        """
        means: list[dict[str, Any]] = state.get("epoch_means", [])
        if len(means) != world_size:
            return None
        self._random = state["random"]
        return means[rank]

    def restore(self, rank: int, device: torch.device) -> None:
        """Set the random numbers that were loaded, once.

        As late as possible: loaders, graphs and caches may draw some while they are made.
        """
        if self._random:
            set_random_state(self._random[rank], device)
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
