"""RecommendationWriter: what ``llm4sbr predict`` leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from llm4sbr.catalogue import Catalogue
from llm4sbr.errors import InputError
from llm4sbr.examples import Examples
from llm4sbr.ranking_module import Recommendations


class RecommendationWriter(BasePredictionWriter):
    """Writes one row per session to Parquet: ``session_id``; and, best first, ``item_ids, titles, scores``.

    With several processes each rank writes a file of its own beside ``path``, named ``NAME-rankR.parquet``.

    Args:
        path: File to write; its folder is made. An existing file is replaced once the new one is complete.
    """

    def __init__(self, path: str = "recommendations.parquet") -> None:
        super().__init__(write_interval="batch")
        self.path = Path(path)
        self._rows: list[dict[str, Any]] = []
        self._known: tuple[Examples, Catalogue] | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start afresh."""
        self._rows = []
        source = getattr(trainer, "datamodule", None)
        if source is None or not hasattr(source, "examples"):
            raise InputError(
                "the recommendation writer needs a data module: it knows the session ids and titles",
                hint="Give the Trainer a SessionDataModule",
            )
        self._known = source.examples("predict"), source.catalogue

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the rows of a batch."""
        if not isinstance(prediction, Recommendations) or self._known is None:
            return
        examples, catalogue = self._known
        for index, items, scores in zip(*(column.tolist() for column in prediction), strict=True):
            self._rows.append(
                {
                    "session_id": examples.session_id(index - examples.first_index),
                    "item_ids": [catalogue.item_ids[item - 1] for item in items],
                    "titles": [catalogue.title(item) for item in items],
                    "scores": scores,
                }
            )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        import polars as pl

        schema: dict[str, pl.DataType | type[pl.DataType]] = {
            "session_id": pl.String,
            "item_ids": pl.List(pl.String),
            "titles": pl.List(pl.String),
            "scores": pl.List(pl.Float32),
        }
        path = self.path
        if trainer.world_size > 1:
            path = path.with_stem(f"{path.stem}-rank{trainer.global_rank}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(path.suffix + ".partial")
        pl.DataFrame(self._rows, schema=schema).write_parquet(partial)
        partial.replace(path)
        rank_zero_info(f"Recommendations for {len(self._rows)} sessions written to {path}.")
