"""Write the tables of README.md and experiments/README.md from the results that are kept.

    python experiments/publish.py            # after a command has renewed a JSON under results/
    python experiments/publish.py --check    # says which tables are not what the results say; CI runs it

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``; what is between is replaced. So no figure
of these tables is typed by hand. The JSONs come from table.py, summary.py, where.py and cost.py.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import published
import published_beside

HERE = Path(__file__).resolve().parent
FILES = (HERE.parent / "README.md", HERE / "README.md")
BLOCK = re.compile(r"(<!-- table (?P<name>[\w -]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
TABLES: dict[str, Callable[[Path], Iterator[str]]] = {
    "protocol beauty": partial(published.protocol, data="beauty"),
    "protocol ml-100k": partial(published.protocol, data="ml-100k"),
    "lifts": partial(published.lifts, name="lifts"),
    "seeds": partial(published.lifts, name="lifts", key="interval_with_seeds"),
    "average": partial(published.average, name="lifts"),
    "where": published.where,
    "cost": published.cost,
    "clicked": published_beside.clicked,
    **{
        f"{suffix[1:]} {data}": partial(published_beside.beside, data=data, suffix=suffix)
        for suffix in published.BESIDE
        for data in published.DATA
    },
}


def renewed(text: str, results: Path) -> str:
    """A document with its tables as the results have them.

    Raises:
        ValueError: A table that nobody makes, or one without its end.
    """

    def renew(found: re.Match[str]) -> str:
        if found["name"] not in TABLES:
            raise ValueError(f"no table is called {found['name']!r}; there are {sorted(TABLES)}")
        return found[1] + "\n".join(TABLES[found["name"]](results)) + "\n" + found[4]

    if text.count("<!-- table ") != len(BLOCK.findall(text)):
        raise ValueError("a table's '<!-- end -->' is missing")
    return BLOCK.sub(renew, text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="*", default=list(FILES))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a table is old")
    args = parser.parse_args()
    old = 0
    for path in args.files:
        before = path.read_text()
        after = renewed(before, args.results)
        if after == before:
            continue
        old += 1
        if args.check:
            print(f"{path}: tables are not what the results say", file=sys.stderr)
        else:
            path.write_text(after)
            print(f"{path}: renewed")
    return 1 if args.check and old else 0


if __name__ == "__main__":
    sys.exit(main())
