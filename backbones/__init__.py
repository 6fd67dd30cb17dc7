"""Session-based recommenders, one per file. Import them as ``llm4sbr.backbones``."""

if __name__ != "llm4sbr.backbones":  # a second copy of every class would fail isinstance silently
    raise ImportError("import llm4sbr.backbones, not the bare folder 'backbones'")

from llm4sbr.backbones.atten_mixer import AttenMixer
from llm4sbr.backbones.core import CORE
from llm4sbr.backbones.dhcn import DHCN
from llm4sbr.backbones.gcegnn import GCEGNN
from llm4sbr.backbones.gcsan import GCSAN
from llm4sbr.backbones.gru4rec import GRU4Rec
from llm4sbr.backbones.lessr import LESSR
from llm4sbr.backbones.msgifsr import MSGIFSR
from llm4sbr.backbones.narm import NARM
from llm4sbr.backbones.niser import NISERPlus
from llm4sbr.backbones.sasrec import SASRec
from llm4sbr.backbones.share import SHARE
from llm4sbr.backbones.srgnn import SRGNN
from llm4sbr.backbones.stamp import STAMP
from llm4sbr.backbones.tagnn import TAGNN

__all__ = [
    "CORE",
    "DHCN",
    "GCEGNN",
    "GCSAN",
    "LESSR",
    "MSGIFSR",
    "NARM",
    "SHARE",
    "SRGNN",
    "STAMP",
    "TAGNN",
    "AttenMixer",
    "GRU4Rec",
    "NISERPlus",
    "SASRec",
]

PLUGINS = tuple(globals()[name] for name in __all__)  # registered by one entry point in pyproject.toml
