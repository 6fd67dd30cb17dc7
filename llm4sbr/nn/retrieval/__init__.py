"""Retrieval: the items with the highest scores, without the scores of the whole catalogue at once."""

from llm4sbr.nn.retrieval.ranker import Ranker
from llm4sbr.nn.retrieval.retrieval import (
    RETRIEVALS,
    Bfloat16Items,
    Float32Items,
    Int8Items,
    Retrieval,
    RetrievalName,
    named_retrieval,
)
from llm4sbr.nn.retrieval.scan import Nearest, Own, top_items

__all__ = [
    "RETRIEVALS",
    "Bfloat16Items",
    "Float32Items",
    "Int8Items",
    "Nearest",
    "Own",
    "Ranker",
    "Retrieval",
    "RetrievalName",
    "named_retrieval",
    "top_items",
]
