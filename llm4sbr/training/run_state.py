"""Run state that Lightning does not save, so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from llm4sbr.contracts.errors import InputError
from llm4sbr.training.distributed import from_all_processes
from llm4sbr.training.random_state import random_state, set_random_state


class SeenViews(NamedTuple):
    """Identity of the views that a model trains with."""

    spec: str  # fingerprint of all settings that produced the views
    described: str  # description for messages
    store: str  # path of the view store


class RunState:
    """Generator states and running means of every process, and the catalogue and views of a model.

    Attributes:
        views: Identity of the views, set by the view cache; None for a model without views.
    """

    def __init__(self) -> None:
        self.views: SeenViews | None = None
        self._random: list[dict[str, Any]] = []

    def collect(
        self, catalogue: str | None, epoch_means: dict[str, Any], device: torch.device
    ) -> dict[str, Any]:
        """Collect the state of a run for a checkpoint. Collective: call it on every rank.

        Args:
            catalogue: Fingerprint of the data module's catalogue; None without one.
            epoch_means: State of this process's running means.
            device: Device of the model.
        """
        return {
            "catalogue": catalogue,
            "views": None if self.views is None else self.views._asdict(),
            "epoch_means": from_all_processes(epoch_means),
            "random": from_all_processes(random_state(device)),
        }

    def check(self, state: Mapping[str, Any], catalogue: str | None) -> None:
        """Reject a checkpoint of another catalogue or of other views.

        If the run has no views, they are not checked: a wrapped model also recommends without views.

        Args:
            state: State that `collect` returned.
            catalogue: Fingerprint of the data module's catalogue; None without one.

        Raises:
            InputError: If the checkpoint's catalogue or views differ from those of this run.
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
        """Load the state of an interrupted run and return its epoch means.

        `restore` sets the generator states later. The result is None if the run had another number of
        processes: its generator states and means then cannot be continued.

        Args:
            state: State that `collect` returned.
            rank: Rank of this process.
            world_size: Number of processes.
        """
        means: list[dict[str, Any]] = state.get("epoch_means", [])
        if len(means) != world_size:
            return None
        self._random = state["random"]
        return means[rank]

    def restore(self, rank: int, device: torch.device) -> None:
        """Set the loaded generator states, once.

        Call it as late as possible: building loaders, graphs and caches may draw random numbers.
        """
        if self._random:
            set_random_state(self._random[rank], device)
        self._random = []

    def _check_views(self, seen: dict[str, str] | None) -> None:
        if seen is None or self.views is None or seen["spec"] == self.views.spec:
            return
        raise InputError(
            f"the checkpoint's model was trained with other views: {seen['described']}; here are "
            f"{self.views.described}",
            path=self.views.store,
            hint=f"They were in {seen['store']}: name them with --views.store and --views.spec "
            f"{seen['spec'][:12]}",
        )
