"""RecommendationWriter: writes the output file of ``llm4sbr predict``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.files import atomic_file
from llm4sbr.contracts.outputs import Outputs
from llm4sbr.training.ranking_module import Recommendations

if TYPE_CHECKING:
    import polars as pl


class RecommendationWriter(BasePredictionWriter):
    """Writes one row per session: ``session_id`` and, best first, ``item_ids, titles, scores``.

    The rows are in session order for any number of processes. If machines share no folder, each process
    leaves its own file ``NAME-rankR.parquet``.

    Args:
        path: Output file, ``.parquet``, ``.jsonl`` for JSON lines, or ``.csv`` with a row for each
            recommendation (``session_id, rank, item_id, title, score``); its folder is created. An existing
            file is replaced when the new one is complete.

    Raises:
        InputError: If the file name has another suffix.
    """

    def __init__(self, path: str = "recommendations.parquet") -> None:
        super().__init__(write_interval="batch")
        self.path = Path(path)
        if self.path.suffix not in (".parquet", ".jsonl", ".csv"):
            raise InputError("recommendations are written as .parquet, .jsonl or .csv", path=path)
        self._rows: list[dict[str, Any]] = []
        self._known: tuple[Examples, Catalogue] | None = None
        self._outputs = Outputs(self.path)
        self._ended = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the file of an earlier run."""
        self._outputs, self._ended = Outputs(self.path), False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Report a prediction without sessions.

        Raises:
            InputError: If the data module had no session to recommend for.
        """
        if stage == "predict" and not self._ended:
            raise InputError(
                "there is no session to recommend for, so nothing was written"
                + ("; the file is of an earlier run" if self._outputs.stale() else ""),
                path=self.path,
                hint="Give predict_events a table with sessions, or a larger test split",
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Warn that the file is of an earlier run."""
        self._outputs.warn_stale()

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
            count = sum(score > -math.inf for score in scores)  # fewer candidates than top_k
            items, scores = items[:count], scores[:count]
            self._rows.append(
                {
                    "row": index - examples.first_index,
                    "session_id": examples.session_id(index - examples.first_index),
                    "item_ids": [catalogue.item_ids[item - 1] for item in items],
                    "titles": [catalogue.title(item) for item in items],
                    "scores": scores,
                }
            )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file; with several processes, rank 0 merges the rows of all."""
        import polars as pl

        self._ended = True
        rows = pl.DataFrame(self._rows, schema={"row": pl.Int64, **_schema()})
        if trainer.world_size > 1:
            # A piece of a .csv file is Parquet: its lists are merged before they become rows.
            suffix = ".parquet" if self.path.suffix == ".csv" else self.path.suffix
            pieces = [
                self.path.with_name(f"{self.path.stem}-rank{rank}{suffix}")
                for rank in range(trainer.world_size)
            ]
            _write(rows, pieces[trainer.global_rank])
            trainer.strategy.barrier("recommendations")
            if not trainer.is_global_zero:
                return
            missing = [piece for piece in pieces if not piece.is_file()]
            if missing:  # the machines share no folder
                rank_zero_warn(f"{self.path} is not made: there is no {missing[0]} on this machine.")
                return
            # A rank with fewer sessions repeats one, so that all ranks have the same number of batches.
            rows = pl.concat([_read(piece, rows.schema) for piece in pieces]).unique("row").sort("row")
            for piece in pieces:
                piece.unlink()
        _write(rows.drop("row"), self.path)
        rank_zero_info(f"Recommendations for {len(rows)} sessions written to {self.path}.")


def _schema() -> dict[str, Any]:
    import polars as pl

    names = pl.List(pl.String)
    return {"session_id": pl.String, "item_ids": names, "titles": names, "scores": pl.List(pl.Float32)}


def _write(rows: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        with atomic_file(path) as file:
            _flat(rows).write_csv(file)
        return
    with atomic_file(path) as file:
        (rows.write_ndjson if path.suffix == ".jsonl" else rows.write_parquet)(file)


def _flat(rows: pl.DataFrame) -> pl.DataFrame:
    """One row for each recommendation; a session without any has none."""
    import polars as pl

    return (
        rows.filter(pl.col("item_ids").list.len() > 0)
        .with_columns(rank=pl.int_ranges(1, pl.col("item_ids").list.len() + 1))
        .explode("rank", "item_ids", "titles", "scores")
        .select("session_id", "rank", item_id="item_ids", title="titles", score="scores")
    )


def _read(path: Path, schema: pl.Schema) -> pl.DataFrame:
    import polars as pl

    return pl.read_ndjson(path, schema=schema) if path.suffix == ".jsonl" else pl.read_parquet(path)
