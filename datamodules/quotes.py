"""Stray quotes in tables: inch marks and unbalanced quotes of titles, made literal."""

from __future__ import annotations

import re

_FIELD = '"[^"]*(?:""[^"]*)*"'
_MOST_LINES = 1000  # of one quoted value


def mend_quotes(text: str, separator: str) -> tuple[str, int]:
    r"""Quote the lines of a table whose quotes are not those of CSV, so that a CSV reader reads them.

    A value is quoted if it begins with ``"`` and the closing ``"`` ends it; a quote inside it is written
    twice. In any other place a quote is part of the value, as in ``15" screen``. A quoted value may contain
    line ends, unless each of its lines is a complete row by itself: then its quote is a stray one. A line
    that has neither form stays as it is, for the reader to name.

    Args:
        text: Table whose first line shows the number of columns.
        separator: Separator, one character.

    Returns:
        The table, and the number of lines that were quoted anew.

    >>> mend_quotes('id,title\n1,15" screen\n2,"a, b"\n', ",")
    ('id,title\n1,"15"" screen"\n2,"a, b"\n', 1)
    """
    if '"' not in text:
        return text, 0
    plain = rf'[^"{re.escape(separator)}\r\n]*'
    value = f"(?:{_FIELD}|{plain})"
    row = re.compile(rf"{value}(?:{re.escape(separator)}{value})*[\r\n]*")
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # str.splitlines also splits at other characters
    width = lines[0].count(separator) + 1
    found: list[str] = []
    at = mended = 0
    while at < len(lines):
        end = _end(lines, at, row) if '"' in lines[at] else at + 1
        whole = _complete(lines[at], separator, width)
        if end is None or (end > at + 1 and all(_complete(one, separator, width) for one in lines[at:end])):
            found.append(_quoted(lines[at], separator) if whole else lines[at])
            mended += whole
            at += 1
        else:
            found += lines[at:end]
            at = end
    return "".join(found), mended


def _end(lines: list[str], at: int, row: re.Pattern[str]) -> int | None:
    """One past the last line of the row of well-formed values that starts at a line; None if none does."""
    text = ""
    for end in range(at, min(len(lines), at + _MOST_LINES)):
        text += lines[end]
        if text.count('"') % 2 == 0:
            return end + 1 if row.fullmatch(text) else None
    return None


def _complete(line: str, separator: str, width: int) -> bool:
    return line.count(separator) + 1 == width


def _quoted(line: str, separator: str) -> str:
    body = line.rstrip("\r\n")
    values = body.split(separator)
    quoted = ['"' + value.replace('"', '""') + '"' if '"' in value else value for value in values]
    return separator.join(quoted) + line[len(body) :]
