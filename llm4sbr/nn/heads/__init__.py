"""Score heads add titles, repeats and counts to a model's scores. One head per file."""

from llm4sbr.nn.heads.item_titles import ItemTitles
from llm4sbr.nn.heads.repeat_explore import RepeatExplore
from llm4sbr.nn.heads.score_head import ScoreHead
from llm4sbr.nn.heads.sequential_rules import SequentialRules
from llm4sbr.nn.heads.text_scores import TextScores

__all__ = ["ItemTitles", "RepeatExplore", "ScoreHead", "SequentialRules", "TextScores"]

# Registered by one entry point in pyproject.toml.
PLUGINS = tuple(globals()[name] for name in __all__ if name != "ScoreHead")
