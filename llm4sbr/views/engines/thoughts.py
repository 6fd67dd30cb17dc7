"""Thoughts of reasoning models: switched off in the chat template, or cut from the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SWITCH = "enable_thinking"  # the variable of the templates of Qwen3, SmolLM3, GLM and others
UNFINISHED = "the model reasoned up to max_new_tokens: raise it, or switch reasoning off"
NOTHING_ELSE = "the model reasoned and gave no answer: raise max_new_tokens, or switch reasoning off"

_TAGS = r"(?:think|thinking|thought|thoughts|reason|reasoning|seed:think)"
_OPEN = re.compile(rf"<{_TAGS}>|\[THINK\]|◁think▷|<\|channel\|>\s*(?:analysis|commentary)", re.IGNORECASE)
_CLOSE = re.compile(rf"</{_TAGS}>|\[/THINK\]|◁/think▷|<\|channel\|>\s*final\s*<\|message\|>", re.IGNORECASE)


def template_options(template: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Variables of a chat template: the given ones; thinking is off where the template knows the switch.

    >>> template_options("{% if enable_thinking %}…", None)
    {'enable_thinking': False}
    >>> template_options("{{ messages }}", None)
    {}
    """
    return {**({SWITCH: False} if SWITCH in template else {}), **(given or {})}


def without_thoughts(text: str, opened: bool = False) -> str | None:
    """Cut closed thoughts from an answer.

    Args:
        text: Answer, with its control tokens if it has any.
        opened: Whether the prompt already opens the thoughts.

    Returns:
        The rest, stripped; None if the thoughts do not end.

    >>> without_thoughts("<think>hm</think> Soap")
    'Soap'
    >>> without_thoughts("<think>hm, so") is None
    True
    """
    closings = list(_CLOSE.finditer(text))
    rest = text[closings[-1].end() :] if closings else text
    if is_open(rest) or (opened and not closings):
        return None
    return rest.strip()


def is_open(text: str) -> bool:
    """Whether a text opens thoughts and does not close them."""
    openings, closings = list(_OPEN.finditer(text)), list(_CLOSE.finditer(text))
    return bool(openings) and (not closings or openings[-1].start() > closings[-1].start())
