"""``llm4sbr recommend``: the recommendations of a bundle for one session, as a table or as JSON.

The command needs neither Lightning nor transformers, so it has a parser of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from llm4sbr.cli.bundle_words import BundleParser, ignored_line, safe_text
from llm4sbr.contracts.catalogue import read_ids
from llm4sbr.nn.retrieval import RETRIEVALS, named_retrieval
from llm4sbr.serving import Recommendation, Recommender


def recommend(words: Sequence[str], description: str, examples: str) -> int:
    """Recommend for the session that the words name, and return the exit status.

    Args:
        words: Options and arguments.
        description: Description for the help.
        examples: Examples for the help.

    Raises:
        InputError: If the bundle or a list of items cannot be read, or an option is out of range.
    """
    given = parser(description, examples).parse_args(words)
    recommender = Recommender.load(given.bundle, given.device, retrieval=named_retrieval(given.retrieval))
    (found,) = recommender.recommend(
        [given.session],
        given.k,
        seen=given.seen == "true",
        only=None if given.only is None else read_ids(given.only),
        without=None if given.without is None else read_ids(given.without),
    )
    if given.json:
        print(json.dumps({"session": given.session, **asdict(found)}))
    else:
        show(found, Console())
    return 0


def show(found: Recommendation, console: Console) -> None:
    """Print recommendations as a table; characters that act on a terminal are escaped.

    Args:
        found: Recommendations of one session.
        console: Where to print.
    """
    if found.item_ids:
        table = Table("rank", "item", "title", "score")
        for column, justify in ((0, "right"), (3, "right")):
            table.columns[column].justify = justify  # type: ignore[assignment]
        for rank, (item, title, score) in enumerate(
            zip(found.item_ids, found.titles, found.scores, strict=True), start=1
        ):
            table.add_row(str(rank), safe_text(item), safe_text(title), f"{score:.4f}")
        console.print(table)
    views = {
        "known": "known",
        "titles": "from the titles, in place of unknown ones",
        "predicted": "predicted, in place of unknown ones",
        "absent": "none",
    }
    lines = [f"Views of the session: {views[found.view]}."]
    if found.ignored:
        lines.insert(0, ignored_line(found.ignored))
    if found.reason:
        lines = [f"No recommendations: {found.reason}.", *lines[:-1]]
    for line in lines:
        console.print(safe_text(line))


def parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Parser of the command.

    Args:
        description: Description for the help.
        examples: Examples for the help.
    """
    made = BundleParser("recommend", description, examples)
    made.add_argument("--k", type=int, default=20, help="number of items (default: 20)")
    made.add_argument(
        "--seen",
        choices=("true", "false"),
        default="true",
        help="whether items of the session may be recommended (default: true)",
    )
    made.add_argument(
        "--only", metavar="FILE", help="text file of the only items to recommend, one id a line"
    )
    made.add_argument(
        "--retrieval",
        choices=tuple(RETRIEVALS),
        help="how items are found (default: by all scores)",
    )
    made.add_argument("--without", metavar="FILE", help="text file of items to leave out, one id a line")
    return made
