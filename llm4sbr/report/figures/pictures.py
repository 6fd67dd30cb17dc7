"""Figures of one run, from its `Snapshot`, or of several runs: one function per figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from llm4sbr.report.figures.snapshot import Snapshot, Spaces

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")
_EDGES = (1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 31, 51)  # first length of each bin
_ENOUGH = 20  # sessions that a bin needs for a meaningful mean
_TICKS = 8  # values of an option that an axis shows as categories
_PAIRS = 40  # sessions whose two points are joined by a line


class LengthBin(NamedTuple):
    """Metrics of the sessions whose length lies in one bin."""

    first: int  # clicks, inclusive
    last: int  # clicks, inclusive
    sessions: int
    recall: float
    mrr: float


def by_length(snapshot: Snapshot, k: int = 20) -> list[LengthBin]:
    """Compute Recall@k and MRR@k by session length; a bin with too few sessions joins the bin before it.

    >>> snapshot = Snapshot(torch.tensor([1.0, 40.0, 2.0]), torch.tensor([1, 1, 2]), None, None)
    >>> [tuple(bin) for bin in by_length(snapshot)]
    [(1, 2, 3, 0.6666666865348816, 0.5)]
    """
    bins: list[LengthBin] = []
    if not len(snapshot.length):
        return bins
    longest = int(snapshot.length.max())
    starts = [edge for edge in _EDGES if edge <= longest]
    ends = [edge - 1 for edge in starts[1:]] + [longest]
    spans: list[tuple[int, int]] = []
    for start, end in zip(starts, ends, strict=True):
        inside = int(((snapshot.length >= start) & (snapshot.length <= end)).sum())
        if spans and inside < _ENOUGH:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
    for start, end in spans:
        rank = snapshot.rank[(snapshot.length >= start) & (snapshot.length <= end)]
        if len(rank):
            hit = (rank <= k).float()
            bins.append(LengthBin(start, end, len(rank), hit.mean().item(), (hit / rank).mean().item()))
    return bins


def mean_cosine(spaces: Spaces, view: int) -> float:
    """Return the mean cosine of an interest and its view, over the sessions whose view is known."""
    known = spaces.mask[:, view]
    h, z = normalize(spaces.h[known, view], dim=-1), normalize(spaces.z[known, view], dim=-1)
    return (h * z).sum(-1).mean().item() if len(h) else float("nan")


def length_figure(snapshots: Mapping[str, Snapshot], k: int = 20) -> Figure:
    """Draw Recall and MRR against session length, one line per run, with the number of sessions per bin."""
    figure, [[recall, mrr]] = _axes(1, 2, (12, 3.8))
    binned = {name: by_length(snapshot, k) for name, snapshot in snapshots.items()}
    widest = max(binned.values(), key=len)
    spans = [str(b.first) if b.first == b.last else f"{b.first}–{b.last}" for b in widest]
    ticks = [f"{span}\n{b.sessions:,}" for span, b in zip(spans, widest, strict=True)]
    for axes, metric, title in ((recall, "recall", "Recall"), (mrr, "mrr", "MRR")):
        for place, (name, bins) in enumerate(binned.items()):
            values = [100 * getattr(b, metric) for b in bins]
            axes.plot(range(len(bins)), values, label=name, **_style(place))
        axes.set_title(f"{title}@{k}, %", loc="left")
        axes.set_xticks(range(len(widest)), ticks, fontsize=8)
        axes.set_xlabel("clicks before the target, and sessions")
        axes.set_ylim(bottom=0)
    if len(snapshots) > 1:
        recall.legend(frameon=False)
    return figure


def gates_figure(gates: Tensor, views: Sequence[str]) -> Figure:
    """Draw the distribution of each view's gate over the sessions, with its median.

    Each view has its own axis: the gates are unbounded, so two views can lie far apart while each varies
    little.

    Shapes:
        - gates: ``(N, K)``
    """
    figure, [row] = _axes(1, len(views), (4.8 * len(views), 3.6))
    for place, (axes, view) in enumerate(zip(row, views, strict=True)):
        values, colour = gates[:, place].numpy(), COLOURS[place % len(COLOURS)]
        low, median, high = np.quantile(values, (0.002, 0.5, 0.998)).tolist()
        margin = 0.05 * max(high - low, 1e-3)
        edges = np.linspace(low - margin, high + margin, 41).tolist()
        axes.hist(values, edges, histtype="stepfilled", color=colour, alpha=0.35)
        axes.axvline(median, color=colour, linewidth=1.2, linestyle="--")
        axes.set_title(f"{view}: median {median:.2f}", loc="left")
        axes.set_xlabel("gate (Eq. 10–11)")
    row[0].set_ylabel("sessions")
    return figure


def spaces_figure(stages: Mapping[str, Spaces], views: Sequence[str]) -> Figure:
    """Draw interests and views of the same sessions in two dimensions, one column per stage of training.

    Both are normalised to length 1, as in the alignment loss (Eq. 8), and projected onto their first two
    common principal axes. Lines join the interest and the view of a session.
    """
    figure, grid = _axes(len(views), len(stages), (4.6 * len(stages), 4.1 * len(views)))
    for row, view in enumerate(views):
        for axes, (stage, spaces) in zip(grid[row], stages.items(), strict=True):
            known = spaces.mask[:, row]
            h, z = normalize(spaces.h[known, row], dim=-1), normalize(spaces.z[known, row], dim=-1)
            points, share = _plane(torch.cat((h, z)))
            behaviour, text = points[: len(h)], points[len(h) :]
            for a, b in list(zip(behaviour.tolist(), text.tolist(), strict=True))[:_PAIRS]:
                axes.plot((a[0], b[0]), (a[1], b[1]), color="#bbbbbb", linewidth=0.6, zorder=0)
            for place, (name, cloud) in enumerate((("interest", behaviour), ("view", text))):
                x, y = cloud.T.tolist() if len(cloud) else ([], [])
                axes.scatter(x, y, s=14, color=COLOURS[place], marker=_MARKERS[place],
                             alpha=0.6, linewidths=0, label=name)  # fmt: skip
            axes.set_title(f"{view}, {stage}: mean cosine {mean_cosine(spaces, row):.2f}", loc="left")
            axes.set_xlabel(f"first two principal axes, {share:.0%} of the variance")
            axes.grid(False)
    grid[0][0].legend(frameon=False)
    return figure


def option_figure(option: str, lines: Mapping[str, Mapping[float, Sequence[float]]], metric: str) -> Figure:
    """Draw a metric against an option, one line per group of runs; bars span the worst to the best seed.

    Args:
        option: Label of the horizontal axis.
        lines: Group to option value to the metric of each run, in 0..1.
        metric: Name of the metric.
    """
    figure, [[axes]] = _axes(1, 1, (6.4, 3.8))
    ticks = sorted({value for line in lines.values() for value in line})
    continuous = len(ticks) > _TICKS and ticks[0] > 0
    for place, (name, line) in enumerate(lines.items()):
        values = sorted(line)
        shift = 0.04 * (place - (len(lines) - 1) / 2)  # places the bars side by side
        x = values if continuous else [ticks.index(value) + shift for value in values]
        y = [100 * mean(line[value]) for value in values]
        spread = [
            [at - 100 * min(line[value]) for at, value in zip(y, values, strict=True)],
            [100 * max(line[value]) - at for at, value in zip(y, values, strict=True)],
        ]
        style = {**_style(place), "linestyle": "none"} if continuous else _style(place)
        axes.errorbar(x, y, spread, label=name, capsize=3, **style)
    if continuous:  # a random sweep over a range, as `wandb sweep` draws
        axes.set_xscale("log")
    else:
        axes.set_xticks(range(len(ticks)), [f"{value:g}" for value in ticks])
    axes.set_xlabel(option)
    axes.set_title(f"{metric}, %", loc="left")
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure


def _plane(points: Tensor) -> tuple[Tensor, float]:
    """Project points ``(n, d)`` onto two principal axes; also return the explained share of the variance."""
    centred = points - points.mean(0) if len(points) else points
    if len(points) < 3:
        return points.new_zeros(len(points), 2), 1.0
    _, sizes, axes = torch.linalg.svd(centred.double(), full_matrices=False)
    variance = sizes.square()
    return (centred.double() @ axes[:2].T).float(), float(
        variance[:2].sum() / variance.sum().clamp(min=1e-12)
    )


def _axes(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, [list(row) for row in grid]


def _style(place: int) -> dict[str, Any]:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "linewidth": 1.6,
        "markersize": 5,
    }
