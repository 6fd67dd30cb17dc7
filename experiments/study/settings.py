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

OPTIONS = {
    **{name: f"model.{name}" for name in (
        "lr", "lr_schedule", "weight_decay", "label_smoothing", "session_dropout", "score_scale", "fusion",
        "item_titles", "text_scores", "tau", "view_dropout", "align", "uniform", "separate_projections",
        "global_batch", "rules", "repeat_explore",
    )},
    **{name: f"data.{name}" for name in ("data_dir", "batch_size", "bucket", "max_length")},
    "epochs": "trainer.max_epochs",
    **{f"views_{name}": f"views.{name}" for name in ("store", "spec", "fallback", "use", "only")},
}  # fmt: skip


def words(settings: Mapping[str, Any]) -> list[str]:
    """Words for the command line.

    Raises:
        InputError: A name is neither a known setting nor a dotted option.

    >>> words({"lr": 0.003, "align": False, "score_scale": None, "trainer.accelerator": "cpu"})
    ... # doctest: +NORMALIZE_WHITESPACE
    ['--model.lr', '0.003', '--model.align', 'false', '--model.score_scale', 'null',
     '--trainer.accelerator', 'cpu']
    """
    found = []
    for name, value in settings.items():
        if name not in OPTIONS and "." not in name:
            raise InputError(
                "there is no such setting",
                value=name,
                hint=f"Settings are {', '.join(OPTIONS)}; any other option of `llm4sbr fit` goes by its "
                "dotted name, such as trainer.accelerator",
            )
        text = value if isinstance(value, str) else json.dumps(value)
        found += [f"--{OPTIONS.get(name, name)}", text]
    return found


def compared(settings: Mapping[str, Any]) -> Settings:
    """What makes two fits different: settings by neutral name that are not switched off, in one order.

    Dotted options say how a fit is run (on which device, with how many workers) and are left out.

    >>> compared({"tau": 0.1, "trainer.accelerator": "cpu", "score_scale": None, "lr": 0.001})
    {'lr': 0.001, 'tau': 0.1}
    """
    return {
        name: settings[name] for name in sorted(settings) if name in OPTIONS and settings[name] is not None
    }
