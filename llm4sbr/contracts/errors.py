"""InputError: an error that names the file, the row, the value and a remedy."""

from __future__ import annotations

from pathlib import Path

from llm4sbr.contracts.text import printable


class InputError(ValueError):
    """Invalid input, with a message that lets the user correct it and is safe to print.

    Args:
        problem: Description of the error, in one sentence.
        path: File that contains the error.
        row: Data row (1 = first row below the header) or session that contains the error.
        value: Invalid value; the message shortens it to 80 characters.
        hint: Remedy, in one sentence.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        row: int | str | None = None,
        value: object = None,
        hint: str | None = None,
    ) -> None:
        self.problem, self.path, self.row, self.value, self.hint = problem, path, row, value, hint
        where = "".join(
            part
            for part in (
                f"{path}: " if path is not None else "",
                f"row {row}: " if row is not None else "",
            )
        )
        shown = ""
        if value is not None:
            text = repr(value)
            shown = f" (got {text if len(text) <= 80 else text[:77] + '...'})"
        super().__init__(printable(f"{where}{problem}{shown}{'. ' + hint if hint else ''}"))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle all arguments, so that a data-loader worker can pass the error to the main process."""
        return (_rebuild, (self.problem, self.path, self.row, self.value, self.hint))


def _rebuild(
    problem: str, path: str | Path | None, row: int | str | None, value: object, hint: str | None
) -> InputError:
    return InputError(problem, path=path, row=row, value=value, hint=hint)
