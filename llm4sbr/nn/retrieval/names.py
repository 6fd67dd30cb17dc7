"""Retrievals by the names of a command line."""

from __future__ import annotations

from typing import Literal

from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.retrieval.index import IndexedItems
from llm4sbr.nn.retrieval.retrieval import Bfloat16Items, Float32Items, Int8Items, Retrieval

RetrievalName = Literal["float32", "bfloat16", "int8", "index"]
RETRIEVALS: dict[str, type[Retrieval]] = {
    "float32": Float32Items,
    "bfloat16": Bfloat16Items,
    "int8": Int8Items,
    "index": IndexedItems,
}


def named_retrieval(name: str | None) -> Retrieval | None:
    """Make the retrieval of a name; None for None.

    Raises:
        InputError: If there is no such retrieval.
    """
    if name is None:
        return None
    if name not in RETRIEVALS:
        raise InputError(f"retrieval must be one of {', '.join(RETRIEVALS)}", value=name)
    return RETRIEVALS[name]()
