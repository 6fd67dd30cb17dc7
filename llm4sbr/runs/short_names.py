"""Short forms of options: without the group's name, or without the optimiser's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# The model's optimiser is a class of its own; its two numbers are what every run sets.
_OF_THE_OPTIMISER = {
    "--model.lr": "--model.optimizer.lr",
    "--model.weight_decay": "--model.optimizer.weight_decay",
}


def written_out(words: Sequence[str], options: Iterable[str]) -> list[str]:
    """Replace the short forms of options by their full names.

    An option of a group may be written without the group's name if no other option ends in the same word.

    Args:
        words: Words of a command line.
        options: Full names of the options of the command's parser.

    >>> written_out(["--limit", "5", "--retries=2"], ["--sessions.limit", "--server.retries"])
    ['--sessions.limit', '5', '--server.retries=2']
    >>> written_out(["--device", "cpu"], ["--local.device", "--encoder.device"])
    ['--device', 'cpu']
    """
    known = set(options)
    full: dict[str, list[str]] = {}
    for option in known:
        group, dot, last = option.rpartition(".")
        if dot and group != "--data":  # the options of a data module come and go with its class
            full.setdefault(f"--{last}", []).append(option)
    written = []
    for word in words:
        name, equals, value = word.partition("=")
        name = _OF_THE_OPTIMISER.get(name, name)
        if name not in known and len(full.get(name, ())) == 1:
            name = full[name][0]
        written.append(f"{name}{equals}{value}")
    return written
