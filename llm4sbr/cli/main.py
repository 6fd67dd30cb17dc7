"""The command line: ``llm4sbr COMMAND``, as `USAGE` lists them."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from llm4sbr.contracts.errors import InputError

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
USAGE = """usage: llm4sbr COMMAND [options]

Training and use (Lightning CLI; `llm4sbr COMMAND --help` lists every option):
  fit        train a backbone, bare or wrapped, and keep the best epoch by validation
  validate   evaluate a checkpoint on the validation split
  test       evaluate a checkpoint on the test split
  predict    write recommendations to Parquet
  rerun      make a run of `fit` again and compare every number: llm4sbr rerun RUN_DIR
  resume     go on with a run of `fit` that was killed or stopped: llm4sbr resume RUN_DIR
  draw       pictures of finished runs: llm4sbr draw RUN_DIR [RUN_DIR ...]
Stage 1:
  views      infer | estimate | report | merge: each session's intents from an LLM, and how good they are
  tune-llm   fit a LoRA adapter of a small LLM to the training sessions, for `views` to load
Tour:
  demo       real data, a real LLM, a bare and a wrapped SR-GNN, and a page that compares them

Options common to all: --help, --version
"""


def console() -> NoReturn:
    """The console script: `main`, and a process that SIGTERM stopped ends by SIGTERM, as its parent expects.

    A shell shows status 143 either way. But an agent of Weights & Biases that stops a hopeless run takes an
    exit with any status above 0 for a failure, and gives up after a few.
    """
    stopped = False

    def end() -> None:
        if stopped:
            sys.stdout.flush()
            sys.stderr.flush()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    atexit.register(end)  # before anybody else does, for the first comes last
    try:
        sys.exit(main())
    except SystemExit as ended:
        stopped = ended.code == 128 + signal.SIGTERM
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: Words after ``llm4sbr``; the process's own by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"llm4sbr {version('llm4sbr')}")
        return 0
    try:
        return _dispatch(words)
    except ValueError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(
            cause, InputError
        ):  # the parser wraps what a class refuses
            cause = cause.__cause__
        if cause is None:
            raise
        # What went wrong and what to do, without forty lines of a stranger's stack.
        print(f"llm4sbr: error: {cause}", file=sys.stderr)
        return 1


def _dispatch(words: list[str]) -> int:
    if words[0] in TRAINER_COMMANDS:
        from llm4sbr.runs.trainer_cli import run

        run(words)
        return 0
    if words[0] in ("resume", "rerun", "draw", "views", "tune-llm", "demo"):
        from llm4sbr.cli import commands

        return int(getattr(commands, words[0].replace("-", "_"))(words[1:]))
    print(f"llm4sbr: there is no command {words[0]!r}\n\n{USAGE}", end="", file=sys.stderr)
    return 2
