"""Stage 1: infer session views with a language model once, keep them on disk and look them up by content.

An engine (`engines`) answers the prompts (`prompts`, `templates`), the store (`store`) keeps the answers, and
localisation (`localization`) maps their embeddings (`encoder`) to the nearest titles. `inference` runs these
steps, and `tables` provides the views to stage 2.
Names load on first use, so that `import llm4sbr` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm4sbr.views.encoder import SentenceEncoder
    from llm4sbr.views.engines.openai_engine import OpenAIEngine, RetryPolicy
    from llm4sbr.views.engines.transformers_engine import TransformersEngine
    from llm4sbr.views.inference.pipeline import infer_views
    from llm4sbr.views.inference.plan import Selection
    from llm4sbr.views.inference.summary import ViewSummary
    from llm4sbr.views.loading import load_view_table
    from llm4sbr.views.prompts import PromptOptions
    from llm4sbr.views.store import StoreError, ViewStore
    from llm4sbr.views.templates import DEFAULT_TEMPLATES, PAPER_TEMPLATES, ViewTemplate, load_templates

_HOME = {
    "DEFAULT_TEMPLATES": "templates",
    "OpenAIEngine": "engines.openai_engine",
    "PAPER_TEMPLATES": "templates",
    "PromptOptions": "prompts",
    "RetryPolicy": "engines.openai_engine",
    "Selection": "inference.plan",
    "SentenceEncoder": "encoder",
    "StoreError": "store",
    "TransformersEngine": "engines.transformers_engine",
    "ViewStore": "store",
    "ViewSummary": "inference.summary",
    "ViewTemplate": "templates",
    "infer_views": "inference.pipeline",
    "load_templates": "templates",
    "load_view_table": "loading",
}

__all__ = [
    "DEFAULT_TEMPLATES",
    "PAPER_TEMPLATES",
    "OpenAIEngine",
    "PromptOptions",
    "RetryPolicy",
    "Selection",
    "SentenceEncoder",
    "StoreError",
    "TransformersEngine",
    "ViewStore",
    "ViewSummary",
    "ViewTemplate",
    "infer_views",
    "load_templates",
    "load_view_table",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
