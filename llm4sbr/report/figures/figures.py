"""The figures of a run and the numbers behind them, and the function that writes both to files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from llm4sbr.contracts.files import atomic_file, write_text
from llm4sbr.report.figures.pictures import by_length, gates_figure, length_figure, mean_cosine, spaces_figure
from llm4sbr.report.figures.snapshot import Snapshot, Spaces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "svg", "pdf"]
NUMBERS = "pictures.json"


def run_figures(
    snapshot: Snapshot, before: Spaces | None, views: Sequence[str], name: str
) -> dict[str, Figure]:
    """Draw the figures of one run.

    A bare model has no gates and no spaces, and some fusions have no gates: those figures are left out.

    Args:
        snapshot: Snapshot of the trained model.
        before: Spaces of the same sessions before training; None where they are unknown.
        views: Names of the ``K`` views.
        name: Name of the run, for the legend.

    Returns:
        Figures by name: ``length``, ``gates``, ``spaces``.
    """
    figures = {}
    if len(snapshot.rank):
        figures["length"] = length_figure({name: snapshot})
    if snapshot.gates is not None and len(snapshot.gates):
        figures["gates"] = gates_figure(snapshot.gates, views)
    if snapshot.spaces is not None and snapshot.spaces.mask.any():
        stages = {"before training": before} if before is not None else {}
        figures["spaces"] = spaces_figure({**stages, "after training": snapshot.spaces}, views)
    return figures


def run_numbers(snapshot: Snapshot, before: Spaces | None, views: Sequence[str]) -> dict[str, Any]:
    """Return the numbers that the figures of a run show, as plain values."""
    numbers: dict[str, Any] = {"by_length": [found._asdict() for found in by_length(snapshot)]}
    if snapshot.gates is not None and len(snapshot.gates):
        levels = (0.05, 0.25, 0.5, 0.75, 0.95)
        quantiles = np.quantile(snapshot.gates.numpy(), levels, axis=0).T.tolist()  # one row per view
        numbers["gate_quantiles"] = {
            view: {str(level): value for level, value in zip(levels, row, strict=True)}
            for view, row in zip(views, quantiles, strict=True)
        }
    numbers["mean_cosine"] = {
        view: {
            stage: mean_cosine(spaces, k)
            for stage, spaces in (("before", before), ("after", snapshot.spaces))
            if spaces is not None
        }
        for k, view in enumerate(views)
        if snapshot.spaces is not None
    }
    return numbers


def save(
    folder: Path, figures: Mapping[str, Figure], numbers: Mapping[str, Any], format: Format = "png"
) -> list[Path]:
    """Write the figures and ``pictures.json``, and return the paths of the figures.

    Warns:
        UserWarning: If the folder has a figure of an earlier run that is not drawn now.
    """
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.{format}")
        with atomic_file(paths[-1]) as file:
            figure.savefig(file, format=format)
    write_text(folder / NUMBERS, json.dumps(numbers, indent=1) + "\n")
    others = [path.name for path in _drawn(folder) if path not in paths]
    if others:
        warnings.warn(
            f"{folder} also has figures of an earlier run: {', '.join(others)}", UserWarning, stacklevel=2
        )
    return paths


def _drawn(folder: Path) -> list[Path]:
    """Figures in a folder, by the names that this module and ``llm4sbr draw`` give them."""
    names = ("length", "gates", "spaces", "*-against-*")
    return sorted(
        path for name in names for kind in get_args(Format) for path in folder.glob(f"{name}.{kind}")
    )
