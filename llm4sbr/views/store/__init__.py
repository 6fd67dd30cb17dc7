"""The view store: answers and localised views on disk, looked up by content and safe against crashes."""

from llm4sbr.views.store.store import StoreError, ViewStore

__all__ = ["StoreError", "ViewStore"]
