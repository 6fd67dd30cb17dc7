"""The metrics that a run has logged to a file."""

import csv


def steady(file):
    """Rows of a metrics.csv without the throughput, which is of the moment."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: value for name, value in row.items() if not name.startswith("throughput")} for row in rows]
