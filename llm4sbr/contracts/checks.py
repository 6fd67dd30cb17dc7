"""Checks of settings that many constructors share; each error names the setting and its value."""

from __future__ import annotations

import math

from llm4sbr.contracts.errors import InputError


def check_whole(**settings: int) -> None:
    """Accept positive whole numbers only.

    Raises:
        InputError: If a setting is not a whole number or is below 1.

    >>> check_whole(num_layers=2, max_length=50)
    """
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a positive whole number", value=value)


def check_positive(**settings: float) -> None:
    """Accept finite numbers above 0 only.

    Raises:
        InputError: If a setting is 0, negative, infinite or NaN.

    >>> check_positive(temperature=0.07)
    """
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be positive and finite", value=value)


def check_dropout(**settings: float) -> None:
    """Accept dropout rates only, numbers in [0, 1).

    Raises:
        InputError: If a rate is negative, at least 1, or NaN.

    >>> check_dropout(dropout=0.25, session_dropout=0.0)
    """
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise InputError(f"{name} must be in [0, 1)", value=value)


def check_heads(embedding_dim: int, **settings: int) -> None:
    """Accept numbers of attention heads that divide the embedding size.

    Args:
        embedding_dim: ``d``.
        settings: Numbers of heads by setting name.

    Raises:
        InputError: If a number is below 1 or does not divide `embedding_dim`.

    >>> check_heads(100, num_heads=4)
    """
    check_whole(**settings)
    for name, value in settings.items():
        if embedding_dim % value:
            raise InputError(
                f"embedding_dim {embedding_dim} can't be split into {name}",
                value=value,
                hint="Choose a divisor of embedding_dim",
            )
