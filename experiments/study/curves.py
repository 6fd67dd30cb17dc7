"""Figures of validation curves, which show overfitting."""

from __future__ import annotations

from pathlib import Path

from experiments.study.lifts import grouped
from experiments.study.results import Study
from experiments.study.rows import Run

CHOSEN = "val/ndcg@20"  # the validation metric that chooses epochs and trials


def has_curve(run: Run) -> bool:
    """Return whether a result has the choosing metric of every epoch; baselines and old results do not."""
    return bool(run.get("history")) and CHOSEN in run["history"][0]


def draw(study: Study, target: Path) -> None:
    """Draw validation NDCG@20 and Recall@20: a line per fit, a colour per variant, a row per backbone."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    groups = grouped([run for run in study.tested() if has_curve(run)])
    if not groups:
        return
    names, variants = (sorted({key[part] for key in groups}) for part in (0, 1))
    size = (9, 3 * len(names))
    figure, axes = pyplot.subplots(len(names), 2, figsize=size, squeeze=False, layout="constrained")
    for (name, variant), by_seed in groups.items():
        number = variants.index(variant)
        style = {"color": f"C{number}", "marker": "os^Dv"[number % 5], "ms": 4, "lw": 1}
        for axis, metric in zip(axes[names.index(name)], (CHOSEN, "val/recall@20"), strict=True):
            for order, run in enumerate(by_seed.values()):
                values = [100 * epoch[metric] for epoch in run["history"]]
                label = variant if order == 0 else None
                axis.plot(range(1, len(values) + 1), values, label=label, **style)
            axis.set(title=name, xlabel="epoch", ylabel=f"{metric.removeprefix('val/')} (validation, %)")
            axis.grid(alpha=0.3)
    axes[0, 0].legend()
    target.mkdir(parents=True, exist_ok=True)
    figure.savefig(target / f"{study.name}.svg", metadata={"Date": None})
    pyplot.close(figure)
