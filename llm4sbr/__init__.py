"""Session-based recommendation with a large language model's views of the sessions.

>>> from llm4sbr import LLM4SBRWrapper
>>> from llm4sbr.backbones import SRGNN
>>> model = LLM4SBRWrapper(SRGNN(num_items=100))

Names load on first use, so that `llm4sbr --help` and whatever needs no Lightning load none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm4sbr.adapters import ModuleBackbone
    from llm4sbr.adapters.recbole import RecBoleBackbone
    from llm4sbr.contracts.backbone import SessionBackbone
    from llm4sbr.contracts.batch import Interests, SessionBatch, SessionGraph, build_session_graph
    from llm4sbr.contracts.catalogue import Catalogue
    from llm4sbr.contracts.embedding_backbone import EmbeddingBackbone
    from llm4sbr.contracts.errors import InputError
    from llm4sbr.nn.metrics import SessionRanking
    from llm4sbr.training.ranking_module import Recommendations
    from llm4sbr.training.row_adam import RowAdam
    from llm4sbr.training.sbr_module import SBRModule
    from llm4sbr.training.wrapper import LLM4SBRWrapper

__version__ = "0.1.0"

_HOME = {
    "Catalogue": "contracts.catalogue",
    "EmbeddingBackbone": "contracts.embedding_backbone",
    "InputError": "contracts.errors",
    "Interests": "contracts.batch",
    "LLM4SBRWrapper": "training.wrapper",
    "ModuleBackbone": "adapters",
    "RecBoleBackbone": "adapters.recbole",
    "Recommendations": "training.ranking_module",
    "RowAdam": "training.row_adam",
    "SBRModule": "training.sbr_module",
    "SessionBackbone": "contracts.backbone",
    "SessionBatch": "contracts.batch",
    "SessionGraph": "contracts.batch",
    "SessionRanking": "nn.metrics",
    "build_session_graph": "contracts.batch",
}

__all__ = [
    "Catalogue",
    "EmbeddingBackbone",
    "InputError",
    "Interests",
    "LLM4SBRWrapper",
    "ModuleBackbone",
    "RecBoleBackbone",
    "Recommendations",
    "RowAdam",
    "SBRModule",
    "SessionBackbone",
    "SessionBatch",
    "SessionGraph",
    "SessionRanking",
    "build_session_graph",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
