"""The one place of the golden runs that knows how a model is built.

A run describes its model in neutral words (`Description`). `build_model` turns a description into a model,
`model_words` turns it into options of the command line, and `canonical_name` gives a parameter the name under
which the golden runs fill it. Where the package's constructors or parameter names change, change this file;
the descriptions and the kept numbers stay.
"""

from __future__ import annotations

from typing import Any

from llm4sbr import LLM4SBRWrapper, SBRModule, backbones

Description = dict[str, Any]

# Every value is explicit, so that another default of the package changes no number.
TRAINING: Description = {
    "lr": 0.01,
    "weight_decay": 1e-5,
    "lr_schedule": "step",
    "lr_step": 1,
    "lr_gamma": 0.5,
    "ks": [1, 5, 10],
    "top_k": 5,
    "score_scale": None,
    "label_smoothing": 0.0,
    "session_dropout": 0.0,
    "rules": 0.0,
    "repeat_explore": False,
}
WRAPPING: Description = {
    "text_dim": 24,
    "fusion": "gate",
    "tau": 0.1,
    "interest_of_view": ["long_term", "short_term"],
    "align": True,
    "uniform": True,
    "separate_projections": False,
    "view_dropout": 0.0,
    "text_scores": 0,
    "item_titles": 0,
}
BACKBONES: dict[str, Description] = {
    "SRGNN": {"embedding_dim": 16, "steps": 1},
    "GRU4Rec": {"embedding_dim": 16, "num_layers": 1, "dropout": 0.25},
    "GCEGNN": {"embedding_dim": 16},
    "DHCN": {"embedding_dim": 16},
}


def model_options(description: Description) -> Description:
    """Options of a description's model, without its backbone."""
    known = {**TRAINING, **(WRAPPING if description["wrapped"] else {})}
    own = {name: value for name, value in description.items() if name not in ("backbone", "wrapped")}
    unknown = sorted(own.keys() - known.keys())
    assert not unknown, f"a description has no {unknown}"
    return known | own


def build_model(description: Description, num_items: int) -> SBRModule:
    """The model of a description."""
    name = description["backbone"]
    backbone = getattr(backbones, name)(num_items, **BACKBONES[name])
    made = LLM4SBRWrapper if description["wrapped"] else SBRModule
    return made(backbone, **model_options(description))


def model_words(description: Description) -> list[str]:
    """The same model in words of the command line; the catalogue's size comes from the data."""
    name = description["backbone"]
    words = ["--model", "llm4sbr.LLM4SBRWrapper" if description["wrapped"] else "llm4sbr.SBRModule"]
    words += ["--model.backbone", name]
    for option, value in BACKBONES[name].items():
        words += [f"--model.backbone.{option}", str(value)]
    for option, value in model_options(description).items():
        words += [f"--model.{option}", "null" if value is None else str(value)]
    return words


def canonical_name(name: str) -> str:
    """The name that a parameter had when the numbers were kept.

    Where the package renames a parameter, the new name is turned into the old one here, for instance
    ``heads.1.gate.weight`` into ``repeats.gate.weight``.

    Args:
        name: Its name in `Module.named_parameters` today.
    """
    return name
