"""Session-based recommenders, one a file. Import them as ``llm4sbr.backbones``."""

if __name__ != "llm4sbr.backbones":  # a second copy of every class would fail isinstance silently
    raise ImportError("import llm4sbr.backbones, not the bare folder 'backbones'")

from llm4sbr.backbones.gru4rec import GRU4Rec
from llm4sbr.backbones.sasrec import SASRec
from llm4sbr.backbones.srgnn import SRGNN

__all__ = ["SRGNN", "GRU4Rec", "SASRec"]
