"""The wrapper's heads: pure modules and functions, equations of arXiv:2402.13840 and our own."""

from llm4sbr.heads.alignment import alignment_loss, uniformity_loss
from llm4sbr.heads.fusion import FUSIONS, AverageFusion, ConcatFusion, Fused, GateFusion, ResidualFusion
from llm4sbr.heads.text_scores import TextScores

__all__ = [
    "FUSIONS",
    "AverageFusion",
    "ConcatFusion",
    "Fused",
    "GateFusion",
    "ResidualFusion",
    "TextScores",
    "alignment_loss",
    "uniformity_loss",
]
