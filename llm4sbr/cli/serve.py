"""``llm4sbr serve``: the HTTP server of a bundle. It needs no Lightning, so it has a parser of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, auto_cli

from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.retrieval import RetrievalName, named_retrieval
from llm4sbr.runs.complaint import one_line, report
from llm4sbr.runs.example_help import EXAMPLES, ExampleFormatter
from llm4sbr.runs.short_names import written_out
from llm4sbr.serving.server.options import Batching, Limits, Network, Questions, Records


class _Parser(ArgumentParser):
    """Parser whose error is one line; groups' names may be left out, as with the other commands."""

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """Parse the words of a command line."""
        words = sys.argv[1:] if args is None else args
        return super().parse_args(written_out(words, self._option_string_actions), *more, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and exit with status 2."""
        report(ex, one_line(message))
        sys.exit(2)


def serve(words: Sequence[str], description: str, examples: str) -> int:
    """Serve the bundle that the words name, until SIGTERM, and return the exit status.

    Args:
        words: Options and arguments.
        description: Description for the help.
        examples: Examples for the help.

    Raises:
        InputError: If the bundle cannot be read, or the address or a folder cannot be used.
    """
    found = auto_cli(
        started,
        args=list(words),
        as_positional=True,
        prog="llm4sbr serve",
        description=description,
        epilog=EXAMPLES + examples,
        parser_class=_Parser,
        allow_abbrev=False,
        formatter_class=ExampleFormatter,
    )
    return int(found)


def started(
    bundle: str,
    device: str = "cpu",
    network: Network = Network(),  # noqa: B008
    batching: Batching = Batching(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    records: Records = Records(),  # noqa: B008
    questions: Questions = Questions(),  # noqa: B008
    compare: str | None = None,
    page: bool = True,
    retrieval: RetrievalName | None = None,
) -> int:
    """Serve a bundle over HTTP.

    Args:
        bundle: Folder of `llm4sbr export`, or a link to one.
        device: Device of the model.
        network: Address of the server, and its end.
        batching: Micro-batches of concurrent requests.
        limits: Limits of a request.
        records: What the server writes down.
        questions: A language model beside the server.
        compare: Folder of another bundle, such as that of the bare model; the page shows its recommendations
            beside the first one's.
        page: Whether `/` is a page to try the server.
        retrieval: How items are found; by default all scores are computed. `bfloat16` is fast for batches,
            `int8` for single sessions of large catalogues; both find what `float32` finds. `index` is
            approximate, and needs the extra of that name.
    """
    # Each thread of a BLAS that waits for work keeps a core busy, which HTTP needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from llm4sbr.serving.server.process import serve_bundle
    except ModuleNotFoundError as error:
        raise InputError(
            f"the server needs a package that is not installed: {error.name}",
            hint='pip install "llm4sbr[serve]"',
        ) from error
    return serve_bundle(
        bundle,
        device,
        network,
        batching,
        limits,
        records,
        questions,
        compare=compare,
        page=page,
        retrieval=named_retrieval(retrieval),
    )
