"""The wrapper's heads: pure modules and functions, equations of arXiv:2402.13840 and our own."""

from llm4sbr.heads.alignment import alignment_and_uniformity, alignment_loss, uniformity_loss
from llm4sbr.heads.fusion import FUSIONS, AverageFusion, ConcatFusion, Fused, GateFusion, ResidualFusion
from llm4sbr.heads.item_titles import ItemTitles, add_item_titles, item_tables_once
from llm4sbr.heads.repeat_explore import RepeatExplore
from llm4sbr.heads.sequential_rules import SequentialRules
from llm4sbr.heads.text_scores import TextScores
from llm4sbr.heads.title_axes import TitleAxes, title_axes

__all__ = [
    "FUSIONS",
    "AverageFusion",
    "ConcatFusion",
    "Fused",
    "GateFusion",
    "ItemTitles",
    "RepeatExplore",
    "ResidualFusion",
    "SequentialRules",
    "TextScores",
    "TitleAxes",
    "add_item_titles",
    "alignment_and_uniformity",
    "alignment_loss",
    "item_tables_once",
    "title_axes",
    "uniformity_loss",
]
