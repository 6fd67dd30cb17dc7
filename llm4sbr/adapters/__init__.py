"""Adapters: use third-party models as a `SessionBackbone` without changing their code."""

from llm4sbr.adapters.module_backbone import ModuleBackbone
from llm4sbr.adapters.recbole import RecBoleBackbone

__all__ = ["ModuleBackbone", "RecBoleBackbone"]
