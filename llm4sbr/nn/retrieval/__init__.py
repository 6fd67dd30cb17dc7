"""Retrieval: the items with the highest scores, without the scores of the whole catalogue at once."""

from llm4sbr.nn.retrieval.index import IndexedItems
from llm4sbr.nn.retrieval.names import RETRIEVALS, RetrievalName, named_retrieval
from llm4sbr.nn.retrieval.ranker import Ranker
from llm4sbr.nn.retrieval.retrieval import Bfloat16Items, Float32Items, Int8Items, Retrieval
from llm4sbr.nn.retrieval.scan import Nearest, Own, top_items

__all__ = [
    "RETRIEVALS",
    "Bfloat16Items",
    "Float32Items",
    "IndexedItems",
    "Int8Items",
    "Nearest",
    "Own",
    "Ranker",
    "Retrieval",
    "RetrievalName",
    "named_retrieval",
    "top_items",
]
