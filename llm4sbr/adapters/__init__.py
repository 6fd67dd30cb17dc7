"""Adapters: anybody's model as a `SessionBackbone`, unedited."""

from llm4sbr.adapters.module_backbone import ModuleBackbone
from llm4sbr.adapters.recbole import RecBoleBackbone

__all__ = ["ModuleBackbone", "RecBoleBackbone"]
