"""A check of settings that several constructors share; the error names the setting and its value."""

from __future__ import annotations

from llm4sbr.contracts.errors import InputError


def check_heads(embedding_dim: int, **settings: int) -> None:
    """Accept numbers of attention heads that divide the embedding size.

    Args:
        embedding_dim: ``d``.
        settings: Numbers of heads by setting name.

    Raises:
        InputError: If a number is below 1 or does not divide `embedding_dim`.

    >>> check_heads(100, num_heads=4)
    """
    for name, value in settings.items():
        if value < 1 or embedding_dim % value:
            raise InputError(
                f"embedding_dim {embedding_dim} can't be split into {name}",
                value=value,
                hint="Choose a divisor of embedding_dim",
            )
