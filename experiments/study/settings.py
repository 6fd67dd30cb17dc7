"""Settings by neutral names, and their command-line words for ``llm4sbr fit``.

Results, search spaces and ablations name a setting by its meaning (``item_titles``), not by its current
option. Only this module knows the options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm4sbr.contracts.errors import InputError

Settings = dict[str, Any]  # neutral name, or dotted option of `llm4sbr fit` -> value; None switches it off

# Default values: those of the paper. Every fit passes all settings, so a changed default of the package does
# not affect saved results.
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
    "view_predictor": False,
}
DATA: Settings = {"batch_size": 100, "bucket": 0}
OPTIONS = {
    **{name: f"data.{name}" for name in ("data_dir", "batch_size", "bucket", "max_length")},
    "epochs": "trainer.max_epochs",
    **{f"views_{name}": f"views.{name}" for name in ("store", "spec", "fallback", "use", "only")},
}
SCHEDULES = {  # schedules of the learning rate
    "step": ("StepLR", "--model.lr_scheduler.step_size", "3", "--model.lr_scheduler.gamma", "0.1"),
    "cosine": ("CosineToEnd",),
}


def words(settings: Mapping[str, Any], *, wrapped: bool) -> list[str]:
    """Return the command-line words of all model settings and of the other given settings.

    Args:
        settings: Values by neutral name or dotted option.
        wrapped: Whether the model is wrapped; a bare model ignores `WRAPPING`.

    Raises:
        InputError: A name is neither a known setting nor a dotted option.
    """
    named = {**DATA, **settings}
    rest = {name: value for name, value in named.items() if name not in TRAINING and name not in WRAPPING}
    return model_words(settings, wrapped=wrapped) + plain_words(rest)


def plain_words(settings: Mapping[str, Any]) -> list[str]:
    """Return the words of settings that correspond to one option: data, views and trainer.

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
    """Return the words that build the model: heads in order, scorer, loss, optimiser and schedule.

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
        if chosen["view_predictor"]:
            found += ["--model.view_predictor", "ViewPredictor"]
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def compared(settings: Mapping[str, Any]) -> Settings:
    """Return the settings that distinguish fits: those by neutral name that are not switched off, sorted.

    Dotted options, such as the device or the number of workers, do not distinguish fits and are left out.

    >>> compared({"tau": 0.1, "trainer.accelerator": "cpu", "score_scale": None, "lr": 0.001})
    {'lr': 0.001, 'tau': 0.1}
    """
    return {
        name: settings[name]
        for name in sorted(settings)
        if name in {**TRAINING, **WRAPPING, **OPTIONS} and settings[name] is not None
    }
