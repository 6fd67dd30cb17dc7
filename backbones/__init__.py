"""Session-based recommenders, one per file. Import them as ``llm4sbr.backbones``.

Names load on first use: half of them need torch_geometric, whose import takes longer than that of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if __name__ != "llm4sbr.backbones":  # a second copy of every class would fail isinstance silently
    raise ImportError("import llm4sbr.backbones, not the bare folder 'backbones'")

if TYPE_CHECKING:
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

    PLUGINS: tuple[type, ...]

HOMES = {  # the file of each class
    "AttenMixer": "atten_mixer",
    "CORE": "core",
    "DHCN": "dhcn",
    "GCEGNN": "gcegnn",
    "GCSAN": "gcsan",
    "GRU4Rec": "gru4rec",
    "LESSR": "lessr",
    "MSGIFSR": "msgifsr",
    "NARM": "narm",
    "NISERPlus": "niser",
    "SASRec": "sasrec",
    "SHARE": "share",
    "SRGNN": "srgnn",
    "STAMP": "stamp",
    "TAGNN": "tagnn",
}

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


def __getattr__(name: str) -> object:
    if name == "PLUGINS":  # registered by one entry point in pyproject.toml
        return tuple(__getattr__(one) for one in __all__)
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
