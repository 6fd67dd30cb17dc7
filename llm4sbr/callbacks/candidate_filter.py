"""CandidateFilter: which items ``predict`` may recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from llm4sbr.contracts.catalogue import Catalogue, read_ids
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.candidates import Candidates
from llm4sbr.training.ranking_module import RankingModule


class CandidateFilter(Callback):
    """Limits the items that predictions recommend; metrics and training rank the whole catalogue.

    A list may be shorter than ``top_k`` if too few items are left.

    Args:
        seen: Whether a session's own items may be recommended.
        only: Text file of the only items to recommend, such as those in stock: one item id a line, UTF-8.
        without: Text file of items to leave out, one id a line.

    Raises:
        InputError: On use, if a file cannot be read or leaves no item.
    """

    def __init__(self, seen: bool = True, only: str | None = None, without: str | None = None) -> None:
        self.seen, self.only, self.without = seen, only, without

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the files."""
        if not isinstance(pl_module, RankingModule):
            return
        allowed = None
        if self.only is not None or self.without is not None:
            catalogue = _catalogue(trainer)
            allowed = torch.ones(catalogue.num_items, dtype=torch.bool)
            if self.only is not None:
                allowed &= _listed(Path(self.only), catalogue)
            if self.without is not None:
                allowed &= ~_listed(Path(self.without), catalogue)
            if not allowed.any():
                raise InputError("no item is left to recommend", path=self.only or self.without)
        pl_module.candidates = Candidates(allowed, self.seen).to(pl_module.device)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Allow every item again."""
        if isinstance(pl_module, RankingModule):
            pl_module.candidates = Candidates()


def _catalogue(trainer: Trainer) -> Catalogue:
    source: Any = getattr(trainer, "datamodule", None)
    if source is None or not hasattr(source, "catalogue"):
        raise InputError(
            "a list of items needs a data module: it knows the items' ids",
            hint="Give the Trainer a SessionDataModule",
        )
    catalogue: Catalogue = source.catalogue
    return catalogue


def _listed(path: Path, catalogue: Catalogue) -> Tensor:
    """True for each item of a file, ``(V,)``; ids that the catalogue lacks are counted in a warning."""
    wanted = set(read_ids(path))
    listed = torch.tensor([item in wanted for item in catalogue.item_ids])
    unknown = sorted(wanted.difference(catalogue.item_ids))
    if unknown:
        rank_zero_warn(
            f"{path}: {len(unknown)} of {len(wanted)} items are not in the catalogue, such as {unknown[0]!r}."
        )
    return listed
