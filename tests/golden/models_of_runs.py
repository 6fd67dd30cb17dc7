"""The one place of the golden runs that knows how a model is built.

A run describes its model in neutral words (`Description`). `build_model` turns a description into a model,
`model_words` turns it into options of the command line, and `canonical_name` gives a parameter the name under
which the golden runs fill it. Where the package's constructors or parameter names change, change this file;
the descriptions and the kept numbers stay.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR

from llm4sbr import LLM4SBRWrapper, SBRModule, backbones
from llm4sbr.nn import heads
from llm4sbr.nn.alignment import Alignment
from llm4sbr.nn.losses import FullSoftmax
from llm4sbr.nn.scorers import CosineScores, OwnScores
from llm4sbr.training.schedules import CosineToEnd

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
WRAPPED_BY_NAME = ("text_dim", "fusion", "interest_of_view", "separate_projections", "view_dropout")
SCHEDULES = {"CosineToEnd": CosineToEnd, "StepLR": StepLR}
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


def heads_of(options: Description) -> list[tuple[str, Description]]:
    """The score heads of a description in the order in which they apply, with their settings."""
    named = [
        ("TextScores", {"axes": options.get("text_scores", 0)}),
        ("ItemTitles", {"axes": options.get("item_titles", 0)}),
        ("RepeatExplore", {}),
        ("SequentialRules", {"weight": options["rules"]}),
    ]
    wanted = [
        options.get("text_scores"),
        options.get("item_titles"),
        options["repeat_explore"],
        options["rules"],
    ]
    return [head for head, asked in zip(named, wanted, strict=True) if asked]


def schedule_of(options: Description) -> tuple[str, Description] | None:
    """The learning-rate schedule of a description."""
    if options["lr_schedule"] == "cosine":
        return "CosineToEnd", {}
    if options["lr_step"] == 0:
        return None
    step = {"step_size": options["lr_step"], "gamma": options["lr_gamma"]}
    return "StepLR", step


def build_model(description: Description, num_items: int) -> SBRModule:
    """The model of a description."""
    name, options = description["backbone"], model_options(description)
    backbone = getattr(backbones, name)(num_items, **BACKBONES[name])
    scale, schedule = options["score_scale"], schedule_of(options)
    rate = {"lr": options["lr"], "weight_decay": options["weight_decay"]}
    training: Description = {
        "heads": [getattr(heads, head)(**settings) for head, settings in heads_of(options)],
        "scorer": OwnScores() if scale is None else CosineScores(scale),
        "loss": FullSoftmax(options["label_smoothing"]),
        "session_dropout": options["session_dropout"],
        "optimizer": partial(Adam, **rate),
        "lr_scheduler": schedule and partial(SCHEDULES[schedule[0]], **schedule[1]),
        "ks": options["ks"],
        "top_k": options["top_k"],
    }
    if not description["wrapped"]:
        return SBRModule(backbone, **training)
    wrapping = {name: options[name] for name in WRAPPED_BY_NAME}
    alignment = Alignment(options["tau"], align=options["align"], uniform=options["uniform"])
    return LLM4SBRWrapper(backbone, alignment=alignment, **wrapping, **training)


def model_words(description: Description) -> list[str]:
    """The same model in words of the command line; the catalogue's size comes from the data."""
    name, options = description["backbone"], model_options(description)
    words = ["--model", "llm4sbr.LLM4SBRWrapper" if description["wrapped"] else "llm4sbr.SBRModule"]
    words += ["--model.backbone", name]
    for option, value in BACKBONES[name].items():
        words += [f"--model.backbone.{option}", str(value)]
    words += ["--model.heads", "[]"]
    for head, settings in heads_of(options):
        words += ["--model.heads+", head]
        for option, value in settings.items():
            words += [f"--model.heads.{option}", str(value)]
    if options["score_scale"] is None:
        words += ["--model.scorer", "OwnScores"]
    else:
        words += ["--model.scorer", "CosineScores", "--model.scorer.scale", str(options["score_scale"])]
    words += ["--model.loss", "FullSoftmax", "--model.loss.smoothing", str(options["label_smoothing"])]
    words += ["--model.optimizer", "Adam"]
    words += ["--model.optimizer.lr", str(options["lr"])]
    words += ["--model.optimizer.weight_decay", str(options["weight_decay"])]
    schedule = schedule_of(options)
    words += ["--model.lr_scheduler", "null" if schedule is None else schedule[0]]
    for option, value in schedule[1].items() if schedule else ():
        words += [f"--model.lr_scheduler.{option}", str(value)]
    for option in ("session_dropout", "ks", "top_k"):
        words += [f"--model.{option}", str(options[option])]
    if description["wrapped"]:
        for option in WRAPPED_BY_NAME:
            words += [f"--model.{option}", str(options[option])]
        words += ["--model.alignment", "Alignment"]
        for option in ("tau", "align", "uniform"):
            words += [f"--model.alignment.{option}", str(options[option])]
    return words


def canonical_name(name: str) -> str:
    """The name that a parameter had when the numbers were kept.

    Args:
        name: Its name in `Module.named_parameters` today.
    """
    of_head = re.fullmatch(r"heads\.\d+\.(.+)", name)
    if of_head is None:
        return name
    head = "repeats" if of_head[1].startswith("gate.") else "text_scores"
    return f"{head}.{of_head[1]}"
