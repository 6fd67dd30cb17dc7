"""Settings by neutral names, and the words of ``llm4sbr fit`` that set them.

Results, search spaces and ablations name a setting by what it is (``item_titles``), not by the option that
sets it today. This module alone knows the options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm4sbr.contracts.errors import InputError

Settings = dict[str, Any]  # neutral name, or dotted option of `llm4sbr fit` -> value; None switches off

# What a setting is where nobody names it: the paper's. Every fit says all of them, so that another default of
# the package changes no kept result.
TRAINING: Settings = {
    "lr": 1e-3,
    "weight_decay": 1e-5,
    "lr_schedule": "step",
    "label_smoothing": 0.0,
    "session_dropout": 0.0,
    "score_scale": None,
    "rules": 0,
    "repeat_explore": False,
}
WRAPPING: Settings = {
    "fusion": "gate",
    "item_titles": 0,
    "text_scores": 0,
    "tau": 0.1,
    "align": True,
    "uniform": True,
    "global_batch": True,
    "separate_projections": False,
    "view_dropout": 0.0,
}
DATA: Settings = {"batch_size": 100, "bucket": 0}
OPTIONS = {
    **{name: f"data.{name}" for name in ("data_dir", "batch_size", "bucket", "max_length")},
    "epochs": "trainer.max_epochs",
    **{f"views_{name}": f"views.{name}" for name in ("store", "spec", "fallback", "use", "only")},
}
SCHEDULES = {  # of the learning rate
    "step": ("StepLR", "--model.lr_scheduler.step_size", "3", "--model.lr_scheduler.gamma", "0.1"),
    "cosine": ("CosineToEnd",),
}


def words(settings: Mapping[str, Any], *, wrapped: bool) -> list[str]:
    """Words for the command line: every setting of the model, and what else is named.

    Args:
        settings: By neutral name or dotted option.
        wrapped: Whether the model is wrapped; a bare one has none of `WRAPPING`.

    Raises:
        InputError: A name is neither a known setting nor a dotted option.
    """
    named = {**DATA, **settings}
    rest = {name: value for name, value in named.items() if name not in TRAINING and name not in WRAPPING}
    return model_words(settings, wrapped=wrapped) + plain_words(rest)


def plain_words(settings: Mapping[str, Any]) -> list[str]:
    """Words of settings that are options as they stand: data, views, the trainer.

    >>> plain_words({"epochs": 3, "views_use": [], "trainer.accelerator": "cpu"})
    ['--trainer.max_epochs', '3', '--views.use', '[]', '--trainer.accelerator', 'cpu']
    """
    found = []
    for name, value in settings.items():
        if name not in OPTIONS and "." not in name:
            raise InputError(
                "there is no such setting",
                value=name,
                hint=f"Settings are {', '.join([*TRAINING, *WRAPPING, *OPTIONS])}; any other option of "
                "`llm4sbr fit` goes by its dotted name, such as trainer.accelerator",
            )
        found += [f"--{OPTIONS.get(name, name)}", _text(value)]
    return found


def model_words(settings: Mapping[str, Any], *, wrapped: bool) -> list[str]:
    """Words that build the model: its heads in their order, scorer, loss, optimiser and schedule.

    >>> model_words({"item_titles": 100, "repeat_explore": True}, wrapped=True)[:9]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['--model.heads', '[]', '--model.heads+', 'ItemTitles', '--model.heads.axes', '100',
     '--model.heads+', 'RepeatExplore', '--model.scorer']
    """
    chosen = {**TRAINING, **(WRAPPING if wrapped else {})}
    chosen |= {name: value for name, value in settings.items() if name in chosen}
    found = ["--model.heads", "[]"]
    for setting, head, option in (
        ("text_scores", "TextScores", "axes"),
        ("item_titles", "ItemTitles", "axes"),
        ("repeat_explore", "RepeatExplore", None),
        ("rules", "SequentialRules", "weight"),
    ):
        value = chosen.get(setting)
        if value:
            found += ["--model.heads+", head]
            found += [f"--model.heads.{option}", _text(value)] if option else []
    if chosen["score_scale"] is None:
        found += ["--model.scorer", "OwnScores"]
    else:
        found += ["--model.scorer", "CosineScores", "--model.scorer.scale", _text(chosen["score_scale"])]
    found += ["--model.loss", "FullSoftmax", "--model.loss.smoothing", _text(chosen["label_smoothing"])]
    found += ["--model.session_dropout", _text(chosen["session_dropout"])]
    found += ["--model.optimizer", "Adam", "--model.optimizer.lr", _text(chosen["lr"])]
    found += ["--model.optimizer.weight_decay", _text(chosen["weight_decay"])]
    found += ["--model.lr_scheduler", *SCHEDULES[chosen["lr_schedule"]]]
    if wrapped:
        for name in ("fusion", "separate_projections", "view_dropout"):
            found += [f"--model.{name}", _text(chosen[name])]
        found += ["--model.alignment", "Alignment"]
        for name in ("tau", "align", "uniform", "global_batch"):
            found += [f"--model.alignment.{name}", _text(chosen[name])]
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def compared(settings: Mapping[str, Any]) -> Settings:
    """What makes two fits different: settings by neutral name that are not switched off, in one order.

    Dotted options say how a fit is run (on which device, with how many workers) and are left out.

    >>> compared({"tau": 0.1, "trainer.accelerator": "cpu", "score_scale": None, "lr": 0.001})
    {'lr': 0.001, 'tau': 0.1}
    """
    return {
        name: settings[name]
        for name in sorted(settings)
        if name in {**TRAINING, **WRAPPING, **OPTIONS} and settings[name] is not None
    }
