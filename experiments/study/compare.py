"""Comparison of bare and wrapped backbones over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.study.fits import VARIANTS, Shared, check_variants, fit_once
from experiments.study.results import Study
from experiments.study.rows import Key


def compare(
    data: str,
    out: Path,
    data_dir: str | None = None,
    backbones: list[str] | None = None,
    variants: list[str] | None = None,
    seeds: list[int] | None = None,
    store: str = "views/beauty",
    settings: dict[str, Any] | None = None,
) -> None:
    """Train and test bare and wrapped backbones over seeds.

    Each fit is ``llm4sbr fit`` with experiments/base.yaml; its best epoch by validation is tested once. Saved
    fits are not repeated, so a stopped command resumes, and several processes can share the fits.

    Example::

        python -m experiments compare --data experiments/data/beauty.yaml --variants '[bare, titles, llm]'
            --store views/beauty --out experiments/results/beauty.parquet

    Args:
        data: Data module YAML.
        out: Results file.
        data_dir: Folder of the data; by default that of the YAML.
        backbones: Registered names of the backbones; SR-GNN by default.
        variants: Variants among bare, titles, llm, llm+titles and no-views; the first two by default.
        seeds: Seeds of the fits; 0, 1 and 2 by default.
        store: Folder of the view store.
        settings: Settings of every fit, by neutral name (study/settings.py) or dotted option of
            ``llm4sbr fit``: ``'{batch_size: 200, trainer.accelerator: cpu}'``.
    """
    shared = Shared(data, data_dir, store, settings or {})
    variants = variants or ["bare", "titles"]
    check_variants(variants)
    for seed in seeds or (0, 1, 2):
        for backbone in backbones or ("SRGNN",):
            for variant in variants:
                key = Key(backbone, variant, seed)
                fit_once(Study(out), shared, key, dict(shared.settings), VARIANTS[variant])
