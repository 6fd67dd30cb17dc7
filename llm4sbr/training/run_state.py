"""Run state that Lightning does not save, so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.catalogue_change import CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import IntArray
from llm4sbr.training.distributed import from_all_processes
from llm4sbr.training.random_state import random_state, set_random_state


class SeenViews(NamedTuple):
    """Identity of the views that a model trains with."""

    spec: str  # fingerprint of all settings that produced the views, and of the catalogue
    settings: str  # fingerprint of these settings alone
    described: str  # description for messages
    store: str  # path of the view store


class RunState:
    """Generator states and running means of every process, and the catalogue and views of a model.

    Attributes:
        views: Identity of the views, set by the view cache; None for a model without views.
        exact: Whether a run is continued bit for bit (``llm4sbr resume``), so another catalogue is refused.
    """

    def __init__(self) -> None:
        self.views: SeenViews | None = None
        self.exact = False
        self._random: list[dict[str, Any]] = []

    def collect(
        self, catalogue: Catalogue | None, epoch_means: dict[str, Any], device: torch.device
    ) -> dict[str, Any]:
        """Collect the state of a run for a checkpoint. Collective: call it on every rank.

        Args:
            catalogue: The data module's catalogue; None without one.
            epoch_means: State of this process's running means.
            device: Device of the model.
        """
        return {
            "catalogue": None if catalogue is None else catalogue.fingerprint,
            "items": None if catalogue is None else _digests(catalogue),
            "views": None if self.views is None else self.views._asdict(),
            "epoch_means": from_all_processes(epoch_means),
            "random": from_all_processes(random_state(device)),
        }

    def compare(self, state: Mapping[str, Any], catalogue: Catalogue | None) -> CatalogueChange | None:
        """Compare a checkpoint with this run: its catalogue, and its views.

        If the run has no views, they are not checked: a wrapped model also recommends without views.

        Args:
            state: State that `collect` returned.
            catalogue: The data module's catalogue; None without one.

        Returns:
            How the catalogues differ; None if they are equal, or one is not known.

        Raises:
            InputError: If the catalogues have no item in common, the run must be continued bit for bit, the
                checkpoint does not hold its items, or it was trained with other views.
        """
        change = self._change(state, catalogue)
        self._check_views(state.get("views"), "spec" if change is None else "settings")
        return change

    def _change(self, state: Mapping[str, Any], catalogue: Catalogue | None) -> CatalogueChange | None:
        there = state.get("catalogue")
        if catalogue is None or there is None or catalogue.fingerprint == there:
            return None
        differ = (
            f"the checkpoint was trained on catalogue {str(there)[:12]}, the data module has "
            f"{catalogue.fingerprint[:12]}"
        )
        if self.exact:
            raise InputError(
                f"{differ}, so the run cannot be continued with the same results",
                hint="`llm4sbr fit … --ckpt_path` trains on from a checkpoint with other items or titles",
            )
        items = state.get("items")
        if items is None:
            raise InputError(
                f"{differ}, and it does not say which items it has",
                hint="Items or titles differ, so its scores would be of other items. "
                "Use the data that it was trained on",
            )
        change = CatalogueChange.between(*_read_digests(items), catalogue)
        if not change.num_kept:
            raise InputError(
                "the checkpoint and the data module have no item in common",
                hint="Items are compared by their ids in the shop: check that both tables have the same ids",
            )
        return change

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

    def _check_views(self, seen: dict[str, str] | None, by: str) -> None:
        if seen is None or self.views is None or seen.get(by) == getattr(self.views, by):
            return
        raise InputError(
            f"the checkpoint's model was trained with other views: {seen['described']}; here are "
            f"{self.views.described}",
            path=self.views.store,
            hint=f"They were in {seen['store']}: name them with --views.store and --views.spec "
            f"{seen['spec'][:12]}"
            if by == "spec"
            else "Infer the views of this catalogue with the same LLM, prompts and encoder",
        )


def _digests(catalogue: Catalogue) -> dict[str, Tensor]:
    """Digests of ids and titles, 16 bytes an item."""
    ids, titles = catalogue.id_digests, catalogue.title_digests
    return {"ids": torch.from_numpy(ids), "titles": torch.from_numpy(titles)}


def _read_digests(items: Any) -> tuple[IntArray, IntArray]:
    """The arrays of `_digests` in a checkpoint.

    Raises:
        InputError: If they have another form.
    """
    ids, titles = (items.get(name) if isinstance(items, Mapping) else None for name in ("ids", "titles"))
    if not (isinstance(ids, Tensor) and isinstance(titles, Tensor)):
        raise InputError("the checkpoint's list of items is not valid", value=type(items).__name__)
    whole = ids.dtype == titles.dtype == torch.int64 and ids.ndim == 1 and ids.shape == titles.shape
    if not whole or not len(ids):
        raise InputError("the checkpoint's list of items is not valid", value=tuple(ids.shape))
    return ids.numpy(), titles.numpy()
