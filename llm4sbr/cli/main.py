"""The command line: ``llm4sbr COMMAND``, from the dictionary in `commands`."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, NoReturn

from llm4sbr.cli.commands import COMMANDS, run

_ROOMS = {
    "Training and use": ("fit", "validate", "test", "predict", "resume", "rerun", "update", "draw"),
    "Production": ("export", "convert", "add-items", "recommend", "explain", "serve"),
    "Stage 1": ("views infer", "views report", "views merge", "views answer", "tune-llm"),
    "Tour": ("demo",),
}


def usage() -> str:
    """Return the help text: every command with its summary."""
    lines = ["usage: llm4sbr COMMAND [options]", ""]
    for room, names in _ROOMS.items():
        lines += [f"{room}:", *(f"  {name:<13} {COMMANDS[name].summary}" for name in names)]
    lines += [
        "",
        "`llm4sbr COMMAND --help` lists a command's options and shows examples; `llm4sbr --version`.",
        "Exit status: 1 for bad input, 2 for a wrong word. With --debug an error shows its stack.",
        "Configurations build known classes only; with --trust any (docs/security.md).",
    ]
    return "\n".join(lines) + "\n"


def console() -> NoReturn:
    """Console script: run `main`; a process that SIGTERM stops ends by SIGTERM, as its parent expects.

    A shell shows status 143 either way. But a sweep agent of Weights & Biases that stops a poor run counts
    any positive exit status as a failure, and gives up after a few failures.
    """
    stopped = False

    def end() -> None:
        if stopped:
            sys.stdout.flush()
            sys.stderr.flush()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    atexit.register(end)  # register first: atexit runs handlers in reverse order
    warnings.showwarning = partial(_warn, warnings.showwarning)
    try:
        sys.exit(main())
    except SystemExit as ended:
        stopped = ended.code == 128 + signal.SIGTERM
        raise


def _warn(
    otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any, **more: Any
) -> None:
    """Print a warning in one line, without the line of code that gave it; with ``--debug`` as Python does."""
    from llm4sbr.runs.complaint import is_debugging, one_line

    if issubclass(category, UserWarning) and not is_debugging():
        print(f"llm4sbr: warning: {one_line(str(message))}", file=sys.stderr)
    else:
        otherwise(message, category, *place, **more)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: Words after ``llm4sbr``; by default those of the process.

    Raises:
        SystemExit: The parser of a command exits, with 0 after ``--help`` and 2 for a wrong word.
    """
    from llm4sbr.runs.complaint import complaint, debugging, report, unexpected

    with debugging(sys.argv[1:] if arguments is None else arguments) as words:
        try:
            return _dispatch(words)
        except KeyboardInterrupt:
            print("llm4sbr: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader of the output has ended, as in `llm4sbr … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            report(error, complaint(error, words) or unexpected(error))
            return 1


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage(), end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"llm4sbr {version('llm4sbr')}")
        return 0
    room = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]  # `views` and its commands
    if room and words[1:2] and words[1] in ("-h", "--help"):
        print("\n".join(f"llm4sbr {name:<13} {COMMANDS[name].summary}" for name in room))
        return 0
    depth = 2 if room else 1
    name = " ".join(words[:depth])
    if name in COMMANDS:
        return run(name, words[depth:])
    known = [one.split()[1] for one in room] or sorted({one.split()[0] for one in COMMANDS})
    close = get_close_matches(words[depth - 1], known, 1) if len(words) >= depth else []
    hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(known)}"
    print(f"llm4sbr: error: there is no command {name!r}; {hint}", file=sys.stderr)
    return 2
