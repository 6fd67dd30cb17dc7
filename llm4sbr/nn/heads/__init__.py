"""Score heads: what joins a model's scores with titles, repeats and counts. One head a file."""

from llm4sbr.nn.heads.item_titles import ItemTitles, add_item_titles, item_tables_once
from llm4sbr.nn.heads.repeat_explore import RepeatExplore
from llm4sbr.nn.heads.sequential_rules import SequentialRules
from llm4sbr.nn.heads.text_scores import TextScores
from llm4sbr.nn.heads.title_axes import TitleAxes, title_axes

__all__ = [
    "ItemTitles",
    "RepeatExplore",
    "SequentialRules",
    "TextScores",
    "TitleAxes",
    "add_item_titles",
    "item_tables_once",
    "title_axes",
]
