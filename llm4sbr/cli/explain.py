"""``llm4sbr explain``: why a bundle gives an item its place for a session, as tables, JSON or a picture.

Like `recommend`, the command needs neither Lightning nor transformers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import fill, shorten

from rich.console import Console
from rich.table import Table

from llm4sbr.cli.bundle_words import BundleParser, ignored_line, safe, safe_text
from llm4sbr.contracts.files import atomic_file
from llm4sbr.serving import Explanation, Recommender


def explain(words: Sequence[str], description: str, examples: str) -> int:
    """Explain the item that the words name, and return the exit status.

    Args:
        words: Options and arguments.
        description: Description for the help.
        examples: Examples for the help.

    Raises:
        InputError: If the bundle cannot be read, or the catalogue lacks the item or the whole session.
    """
    given = parser(description, examples).parse_args(words)
    found = Recommender.load(given.bundle, given.device).explain(given.session, given.item)
    if given.picture is not None:
        draw(found, given.picture)
    if given.json:
        print(json.dumps({"session": given.session, **asdict(found)}))
    else:
        show(found, Console())
    return 0


def show(found: Explanation, console: Console) -> None:
    """Print an explanation as a table; characters that act on a terminal are escaped.

    Args:
        found: Explanation of one item.
        console: Where to print.
    """
    console.print(
        safe_text(f"{found.item_id} {found.title}: rank {found.rank}, probability {found.probability:.2%}")
    )
    table = Table("what", "", "effect", "rank without")
    for column in (2, 3):
        table.columns[column].justify = "right"
    for kind, name, effect, rank in rows(found):
        table.add_row(kind, safe_text(name), f"{effect:+.3f}", str(rank))
    console.print(table)
    for view in found.views:
        if view.intents:
            said = ", ".join(f"{title or item} ({weight:.2f})" for item, title, weight in view.intents)
            made = "predicted: it is nearest to" if view.predicted else "made of"
            console.print(safe_text(f"The {view.name} view is {made} {said}."))
    if found.ignored:
        console.print(safe_text(ignored_line(found.ignored)))
    console.print("Effects are log-probabilities of the item with the part, minus those without it.")


def rows(found: Explanation) -> list[tuple[str, str, float, int]]:
    """Kind, name, effect and rank without it of each part, in the order of the session and the model."""
    return [
        *(
            ("click", f"{one.item_id} {one.title}", one.effect, one.rank_without)
            for one in found.clicks
        ),
        *(("view", one.name, one.effect, one.rank_without) for one in found.views),
        *(("head", one.name, one.effect, one.rank_without) for one in found.heads),
    ]  # fmt: skip


def draw(found: Explanation, path: Path) -> None:
    """Draw the effects as bars.

    Args:
        found: Explanation of one item.
        path: Picture; its ending is the format, such as .png or .svg.

    Raises:
        InputError: If the ending is unknown.
    """
    from matplotlib.figure import Figure

    from llm4sbr.contracts.errors import InputError

    parts = rows(found)[::-1]
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(parts)), layout="constrained")
    if path.suffix.lstrip(".") not in figure.canvas.get_supported_filetypes():
        raise InputError("the picture has an unknown ending", path=path, value=path.suffix)
    axes = figure.subplots()
    names = [safe(f"{kind}: {name}")[:60] for kind, name, *_ in parts]
    effects = [effect for *_, effect, _ in parts]
    axes.barh(range(len(parts)), effects, color=["#2a6f4e" if one > 0 else "#a23b3b" for one in effects])
    axes.set_yticks(range(len(parts)), names, parse_math=False)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("effect on the item's log-probability")
    name = shorten(safe(found.title or found.item_id), 140, placeholder="…")
    # Above the whole figure: the axes begin right of the names, and a title of theirs runs out of it.
    figure.suptitle(fill(f"{name}: rank {found.rank}", 80), parse_math=False)
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix.lstrip("."))


def parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Parser of the command.

    Args:
        description: Description for the help.
        examples: Examples for the help.
    """
    made = BundleParser("explain", description, examples)
    made.add_argument("--item", required=True, metavar="ID", help="item to explain, recommended or not")
    made.add_argument("--picture", type=Path, metavar="FILE", help="draw the effects (.png, .svg, .pdf)")
    return made
