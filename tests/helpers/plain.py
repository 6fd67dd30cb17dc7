"""Models with the paper's training: no heads unless given, products, no smoothing, no dropout, Adam."""

from functools import partial
from typing import Any

from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR

from llm4sbr import LLM4SBRWrapper, SBRModule, SessionBackbone
from llm4sbr.nn.losses import FullSoftmax
from llm4sbr.nn.scorers import OwnScores


def plain_bare(backbone: SessionBackbone, **more: Any) -> SBRModule:
    """A bare model."""
    return SBRModule(backbone, **(_settings() | more))


def plain_wrapped(backbone: SessionBackbone, **more: Any) -> LLM4SBRWrapper:
    """A wrapped model."""
    return LLM4SBRWrapper(backbone, **(_settings() | more))


def _settings() -> dict[str, Any]:
    return {
        "heads": [],
        "scorer": OwnScores(),
        "loss": FullSoftmax(),
        "session_dropout": 0.0,
        "optimizer": partial(Adam, lr=1e-3, weight_decay=1e-5),
        "lr_scheduler": partial(StepLR, step_size=3, gamma=0.1),
    }
