"""Writing of the tables in both READMEs and docs/experiments-notes.md from the saved JSON files.

A table is the text between ``<!-- table NAME -->`` and ``<!-- end -->``, which is replaced, so that no figure
of these tables is typed by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from experiments.study import published, published_beside, published_speed
from experiments.study.markdown import BESIDE, DATA

HERE = Path(__file__).resolve().parents[1]
FILES = (HERE.parent / "README.md", HERE / "README.md", HERE.parent / "docs" / "experiments-notes.md")
BLOCK = re.compile(r"(<!-- table (?P<name>[\w -]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
BENCHMARKS = (
    "stage1", "floors", "catalogue_ops", "wrapped_step", "large_catalogue", "prepare", "serving", "retrieval",
    "retrieval_index", "load", "soak", "http_layers", "faithfulness",
)  # fmt: skip
TABLES: dict[str, Callable[[Path], Iterator[str]]] = {
    "protocol beauty": partial(published.protocol, data="beauty"),
    "protocol ml-100k": partial(published.protocol, data="ml-100k"),
    "brief": published.brief,
    "seeds": partial(published.seeds, name="lifts"),
    "average": partial(published.average, name="lifts"),
    "groups": published.groups,
    "cost": published.cost,
    "speed": partial(published_speed.speed, names=BENCHMARKS),
    "repeats": published_beside.repeats,
    **{
        f"{suffix[1:]} {data}": partial(published_beside.beside, data=data, suffix=suffix)
        for suffix in BESIDE
        for data in DATA
    },
}


def renewed(text: str, results: Path) -> str:
    """Return a document with its tables renewed from the results.

    Raises:
        ValueError: A table has an unknown name or no end.
    """

    def renew(found: re.Match[str]) -> str:
        if found["name"] not in TABLES:
            raise ValueError(f"no table is called {found['name']!r}; there are {sorted(TABLES)}")
        return found[1] + "\n".join(TABLES[found["name"]](results)) + "\n" + found[4]

    if text.count("<!-- table ") != len(BLOCK.findall(text)):
        raise ValueError("a table's '<!-- end -->' is missing")
    return BLOCK.sub(renew, text)


def publish(check: bool = False, files: list[Path] | None = None, results: Path = HERE / "results") -> int:
    """Write the tables of the documentation from the saved JSON files.

    Example::

        python -m experiments publish --check

    Args:
        check: Write nothing, and exit with status 1 if a table differs from the results. CI runs this.
        files: Documents; README.md, experiments/README.md and docs/experiments-notes.md by default.
        results: Folder of the JSON files.
    """
    old = 0
    for path in files or FILES:
        before = path.read_text()
        after = renewed(before, results)
        if after == before:
            continue
        old += 1
        if check:
            print(f"{path}: tables differ from the results", file=sys.stderr)
        else:
            path.write_text(after)
            print(f"{path}: renewed")
    return 1 if check and old else 0
