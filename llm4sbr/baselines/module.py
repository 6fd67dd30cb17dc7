"""BaselineModule: a baseline under Lightning, evaluated by the same code as the neural models."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from llm4sbr.baselines.clicks import Baseline
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt
from llm4sbr.training.ranking_module import RankingModule


class BaselineModule(RankingModule):
    """Validates, tests and predicts with a baseline, as `SBRModule` does with a backbone.

    Before each of these stages it fits the baseline on the training split of the Trainer's data module and
    reads no other split, so it needs no ``fit`` and no checkpoint. Without a data module, call the baseline's
    ``fit`` yourself. It logs Recall, MRR and NDCG at every K under names such as ``test/recall@20``.

    >>> from llm4sbr.baselines import BaselineModule, SessionKNN
    >>> model = BaselineModule(SessionKNN(k=100))  # Trainer().test(model, datamodule=data)

    Args:
        baseline: Baseline to evaluate.
        ks: Cut-offs of the metrics.
        top_k: Number of items in a prediction (fewer if the catalogue is smaller).

    Shapes:
        - forward: `SessionBatch` -> scores ``(B, V)``; column ``k - 1`` is item ``k``
    """

    def __init__(
        self, baseline: Baseline, ks: Sequence[PositiveInt] = (5, 10, 20), top_k: PositiveInt = 20
    ) -> None:
        super().__init__(ks, top_k)
        if not (hasattr(baseline, "fit") and hasattr(baseline, "scores")):
            raise InputError(
                "baseline must have fit and scores",
                value=type(baseline).__name__,
                hint="See llm4sbr.baselines.Baseline; a backbone goes into llm4sbr.SBRModule",
            )
        self.baseline = baseline

    def setup(self, stage: str) -> None:
        """Fit the baseline; every stage fits again, because the data module may have changed."""
        source = getattr(self.trainer, "datamodule", None)
        if source is not None and hasattr(source, "examples"):
            self.baseline.fit(source.examples("train"), source.catalogue.num_items)

    def forward(self, batch: SessionBatch) -> Tensor:
        """Scores over the catalogue."""
        return self.baseline.scores(batch)
