"""Text from data on a terminal or a page, without characters that act on what is around them."""

from __future__ import annotations

import unicodedata

# Embeddings, overrides and isolates change the order of the text that follows, beyond their own line's end.
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def acts(char: str) -> bool:
    r"""Whether a character controls a terminal or reorders the text around it; line ends and tabs do not.

    >>> [acts(char) for char in ("a", "\n", "\x1b", "\u202e", "\u0627")]
    [False, False, True, True, False]
    """
    if char in "\n\t":
        return False
    return char in _BIDIRECTIONAL or unicodedata.category(char) in ("Cc", "Cs") or char in "\u2028\u2029"


def printable(text: str) -> str:
    r"""Show control characters, bidirectional overrides and lone surrogates as escapes.

    >>> print(printable("Soap\x1b[2J \u202eevil"))
    Soap\x1b[2J \u202eevil
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char.encode("unicode_escape").decode() if acts(char) else char for char in text)


def without_controls(text: str) -> str:
    r"""Remove the characters that `printable` escapes, for a page that has no place for escapes.

    >>> without_controls("Soap\x00 \u202edoor")
    'Soap door'
    """
    return "".join(char for char in text if not acts(char))
