"""ViewCache: keeps the views of every example on the training device."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from llm4sbr.callbacks.wandb_logger import WandbLogger
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt, Ranged, Share
from llm4sbr.training.run_state import SeenViews
from llm4sbr.training.wrapper import LLM4SBRWrapper
from llm4sbr.views.loading import LoadedViews, load_view_table
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.key_file import read_keys
from llm4sbr.views.store.spec import ViewSpec
from llm4sbr.views.tables import UsedViews, ViewTable


class ViewCache(Ranged, Callback):
    """Fills `SessionBatch.views` from a view store by a weighted gather on the device.

    A localised view consists of r item ids and r weights (Eq. 4-5, arXiv:2402.13840). The cache holds these
    and one table of title embeddings: 60 bytes per session for two views of five items. If the device has
    too little memory, the table stays in host memory, batches are copied through pinned memory, and the log
    says so.

    Args:
        store: Folder written by ``llm4sbr views infer``; None for no views.
        spec: Fingerprint, or a prefix of it, of the views to use if the store holds several.
        fallback: View of a session without an LLM view: ``"mask"`` (no view) or ``"titles"``.
        max_device_share: Largest share of the device's free memory that the cache may use.
        only: File of session keys (`llm4sbr.views.store.key_file`). Views of other sessions are treated as
            unknown, as if the LLM had been queried for these sessions only.
        use: Names of the views to use; all other views are treated as unknown. By default all; an ablation.
        r: Number of nearest titles in a localised view (Eq. 5), at most the number in the store; by default
            all. It allows sweeping r without repeating stage 1.

    Raises:
        InputError: If there is no data module with the examples, the store has no matching views, the text
            size differs from the model's ``text_dim``, or a number is out of range.
    """

    def __init__(
        self,
        store: str | None = None,
        spec: str | None = None,
        fallback: Literal["mask", "titles"] = "mask",
        max_device_share: Share = 0.5,
        only: str | None = None,
        use: list[str] | None = None,
        r: PositiveInt | None = None,
    ) -> None:
        self.store = store
        self.spec = spec
        self.fallback = fallback
        self.max_device_share = max_device_share
        self.only, self.use, self.r = only, use, r
        self.table: ViewTable | None = None
        self.spec_used: ViewSpec | None = None  # spec of the loaded views

    @classmethod
    def of(cls, trainer: Trainer) -> ViewCache | None:
        """The view cache among a Trainer's callbacks; None without one."""
        return next((found for found in trainer.callbacks if isinstance(found, cls)), None)  # type: ignore[attr-defined]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look up the views of every example of the data module once."""
        if not isinstance(pl_module, LLM4SBRWrapper):
            return
        if self.table is not None:
            pl_module.catalogue_titles = _titles_of(self.table)
            return
        if self.store is None:
            rank_zero_warn(
                "The wrapped model gets no views: it learns from behaviour alone. Make some with "
                "`llm4sbr views infer` and name their folder (--views.store)."
            )
            return
        source = getattr(trainer, "datamodule", None)
        if source is None or not hasattr(source, "examples"):
            raise InputError(
                "the view cache needs a data module with a catalogue and examples",
                value=type(source).__name__,
                hint="Give the Trainer a SessionDataModule, or fill SessionBatch.views yourself",
            )
        only = None if self.only is None else read_keys(self.only)
        with ViewStore(self.store) as store:
            loaded = load_view_table(store, source, self.spec, self.fallback, only, self.r)
        self._check(loaded, pl_module)
        less = "" if self.r is None else f", of which the nearest {self.r}"
        spec = loaded.spec
        settings = replace(spec, catalogue="").fingerprint
        pl_module.run_state.views = SeenViews(
            spec.fingerprint + less, settings + less, spec.describe() + less, self.store
        )
        self.spec_used = spec
        self.table = loaded.table if self.use is None else UsedViews(loaded.table, self.use)
        titles = pl_module.catalogue_titles = _titles_of(self.table)  # for items that a checkpoint lacks
        if stage == "fit":  # a tested or served checkpoint holds its own titles
            pl_module.read_titles(*titles)
        shares = ", ".join(f"{share:.1%} of {split}" for split, share in loaded.coverage.items())
        rank_zero_info(
            f"View cache: {loaded.spec.source} views of {shares}; elsewhere "
            f"{'titles' if self.fallback == 'titles' else 'none'}; {_nbytes(loaded.table) / 2**20:.1f} MiB."
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the table to the model's device and log the store to Weights & Biases."""
        self._place(pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and self.store is not None and self.spec_used is not None:
                logger.log_view_store(self.store, self.spec_used)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the table to the model's device."""
        self._place(pl_module)

    on_test_start = on_predict_start = on_validation_start

    def _check(self, loaded: LoadedViews, model: LLM4SBRWrapper) -> None:
        if model.text_dim != loaded.table.text_dim:
            raise InputError(
                f"the views have {loaded.table.text_dim} dimensions, the model expects {model.text_dim}",
                path=self.store,
                hint=f"Set text_dim={loaded.table.text_dim} on the wrapper, or choose another store",
            )
        if len(model.interest_of_view) != len(loaded.table.views):
            raise InputError(
                f"the store has the views {loaded.table.views}, the model reads "
                f"{len(model.interest_of_view)}",
                path=self.store,
                hint="Give the wrapper one interest_of_view per view, in the same order",
            )

    def _place(self, model: LightningModule) -> None:
        if self.table is None or not isinstance(model, LLM4SBRWrapper):
            return
        model.catalogue_titles = None  # the model has been loaded
        if model.view_table is not None:
            return
        if model.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(model.device)
            if _nbytes(self.table) > self.max_device_share * free:
                rank_zero_info(f"View cache: no room on {model.device}; it stays in host memory.")
                model.view_table = HostViews(self.table)
                return
        model.view_table = self.table.to(model.device)


class HostViews:
    """A view table in host memory; only the dense views of a batch are copied to the device.

    Args:
        table: View table on the CPU.
    """

    def __init__(self, table: ViewTable) -> None:
        self.table = table

    def __call__(self, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """Gather the views on the host and copy them from pinned memory."""
        device = batch.item_ids.device
        here = SessionBatch(
            batch.item_ids.cpu(), batch.lengths.cpu(), batch.target.cpu(), batch.example_index.cpu()
        )
        views, mask = self.table(here)
        if device.type == "cuda":
            views, mask = views.pin_memory(), mask.pin_memory()
        return views.to(device, non_blocking=True), mask.to(device, non_blocking=True)


def _nbytes(table: ViewTable) -> int:
    return sum(buffer.numel() * buffer.element_size() for buffer in table.buffers())


def _titles_of(table: ViewTable) -> tuple[Tensor, Tensor]:
    """Title embeddings ``(V, d_t)`` and their mask ``(V,)``, without padding."""
    return table.table.titles[1:], table.table.mask[1:]
