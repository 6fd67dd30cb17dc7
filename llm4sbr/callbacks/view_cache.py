"""ViewCache: the views of every example, on the training device, once."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from llm4sbr.errors import InputError
from llm4sbr.module import SBRModule
from llm4sbr.views.store import ViewStore
from llm4sbr.views.tables import LocalisedViews, TitleViews, load_view_table


class ViewCache(Callback):
    """Fills `SessionBatch.views` from a view store by a weighted gather on the device.

    A localised view is r item ids and r weights (Eq. 4-5, arXiv:2402.13840): the cache holds those and one
    table of title embeddings, 60 bytes a session for two views of five items. Where the device has no room,
    the table stays in pinned host memory and the log says so.

    Args:
        store: Folder that ``llm4sbr views`` wrote.
        spec: Fingerprint, or the beginning of one, of the views to use where the store holds several.
        fallback: What a session without an LLM view gets: ``"mask"`` (no view) or ``"titles"``.
        max_device_share: Largest share of the device's free memory that the cache may take.

    Raises:
        InputError: No data module to look the examples up in, no fitting views, or another text size than the
            model's ``text_dim``.
    """

    def __init__(
        self,
        store: str,
        spec: str | None = None,
        fallback: Literal["mask", "titles"] = "mask",
        max_device_share: float = 0.5,
    ) -> None:
        self.store = store
        self.spec = spec
        self.fallback = fallback
        self.max_device_share = max_device_share
        self.table: LocalisedViews | TitleViews | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look up the views of every example of the data module, once."""
        if not isinstance(pl_module, SBRModule) or not pl_module.uses_views or self.table is not None:
            return
        source = getattr(trainer, "datamodule", None)
        if source is None or not hasattr(source, "examples"):
            raise InputError(
                "the view cache needs a data module with a catalogue and examples",
                value=type(source).__name__,
                hint="Give the Trainer a SessionDataModule, or fill SessionBatch.views yourself",
            )
        with ViewStore(self.store, readonly=True) as store:
            table, coverage = load_view_table(store, source, spec=self.spec, fallback=self.fallback)
        text_dim = getattr(pl_module, "text_dim", table.text_dim)
        if text_dim != table.text_dim:
            raise InputError(
                f"the views of {self.store} have {table.text_dim} dimensions, the model expects {text_dim}",
                hint=f"Set text_dim={table.text_dim} on the wrapper, or choose another store",
            )
        self.table = table
        rank_zero_info(f"View cache: {coverage}, {table.nbytes / 2**20:.1f} MiB.")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Place the table beside the model."""
        self._place(pl_module)

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def _place(self, pl_module: LightningModule) -> None:
        if self.table is None or not isinstance(pl_module, SBRModule) or pl_module.view_table is self.table:
            return
        device = pl_module.device
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if self.table.nbytes > self.max_device_share * free:
                rank_zero_info(f"View cache: no room on {device}; it stays in pinned host memory.")
                self.table = self.table.pin_memory()
            else:
                self.table = self.table.to(device)
        pl_module.view_table = self.table
