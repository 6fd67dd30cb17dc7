"""Items held out of training: how well their titles place them, and what the other items lose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from experiments.benchmarks.results import keep, row
from experiments.study.cold_ranks import Ranks, Targets, nearest, popular, rank, some, targets
from experiments.study.cold_variants import VARIANTS as ROWS
from experiments.study.cold_variants import Variant
from experiments.study.data import data_module, quiet_lightning
from experiments.study.fits import VARIANTS, Shared, fit_once
from experiments.study.held_out import HeldOut, hold_out
from experiments.study.intervals import gains, interval
from experiments.study.results import Study
from experiments.study.rows import Key, Run
from llm4sbr.contracts.examples import Split
from llm4sbr.runs.export import export
from llm4sbr.runs.update import EPOCHS, LR_FACTOR
from llm4sbr.serving import Recommender
from llm4sbr.serving.bundle import Content, open_content
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore

METRICS = ("recall@20", "mrr@20")
EXAMPLES = 4000  # of validation, for the choice of the rows
TABLES = ("backbone.embedding.parametrizations.weight.original", "backbone.embedding.weight")
DEFAULTS: dict[str, Any] = {  # of the package; a setting that is not named would have the paper's value
    "lr": 6e-3,
    "lr_schedule": "cosine",
    "label_smoothing": 0.1,
    "session_dropout": 0.3,
    "score_scale": 16.0,
    "repeat_explore": True,
    "item_titles": 100,
    "batch_size": 200,
    "bucket": 50,
    "epochs": 10,
}


def new_items(
    data: str,
    out: Path,
    backbone: str = "SRGNN",
    seeds: list[int] | None = None,
    share: float = 0.1,
    draw: int = 0,
    settings: dict[str, Any] | None = None,
    whole: list[int] | None = None,
    json: Path | None = None,
) -> None:
    """Measure recommendations of items that training has never seen.

    A random share of the items, the same for all seeds, is held out: their clicks are removed from the
    training and validation sessions. The wrapped model trained without them gets them by `with_items`, and is
    compared with popularity, random order, the nearest titles of the last click, and the same model trained
    with them. Targets among the other items are ranked before and after. The rows of new items are chosen on
    validation sessions, with the first seed. Saved fits and measurements are not repeated.

    Example::

        python -m experiments new_items --data experiments/data/ml-100k.yaml
            --out experiments/results/new-items-ml-100k.parquet
            --json experiments/results/new-items-ml-100k.json

    Args:
        data: Data module YAML.
        out: Results file of the fits.
        backbone: Registered name of the backbone.
        seeds: Seeds of the fits; 0, 1 and 2 by default.
        share: Share of the items that is held out.
        draw: Seed of the draw of these items.
        settings: Settings of every fit (see compare); by default those of the package.
        whole: Seeds of which the model is also trained on with the held-out items, and trained with them from
            the start; by default all.
        json: File for the rows.
    """
    quiet_lightning()
    study, seeds = Study(out), [0, 1, 2] if seeds is None else seeds
    source: Any = data_module(data, None)
    held = hold_out(source, share, draw, study.work / "data", max_length=50)
    one = Experiment(study, backbone, held, data_module(str(held.whole), None), _titles(held))
    each: dict[str, dict[int, Ranks]] = {}
    for seed in seeds:
        compared = seed in (seeds if whole is None else whole)
        fit_kinds(one, seed, {**DEFAULTS, **(settings or {})}, whole=compared)
        for name, ranks in one.tested(seed):
            each.setdefault(name, {})[seed] = ranks
    rows = [*one.choice(seeds[0]), *told(each, one.targets("test"))]
    keep("new_items", rows, json)


def fit_kinds(one: Experiment, seed: int, settings: dict[str, Any], *, whole: bool) -> None:
    """Fit the model without the cold items, and with them: trained on, and from the start."""
    stores = dict(zip(("whole", "warm"), one.held.stores, strict=True))
    for kind in ("warm", "updated", "whole") if whole else ("warm",):
        of, given = ("warm" if kind == "warm" else "whole"), dict(settings)
        if kind == "updated":
            start = next(Path(one.fit("warm", seed)["log_dir"]).glob("checkpoints/best*.ckpt"))
            given |= {"start.ckpt_path": str(start), "epochs": EPOCHS, "lr": LR_FACTOR * settings["lr"]}
        shared = Shared(str(getattr(one.held, of)), store=str(stores[of]), settings=given)
        fit_once(one.study, shared, Key(one.backbone, kind, seed), given, VARIANTS["titles"])


@dataclass(frozen=True)
class Experiment:
    """Data, fits and measurements of held-out items.

    Args:
        study: Study of the fits.
        backbone: Registered name of the backbone.
        held: Data with and without the cold items.
        full: Data module with all items.
        titles: Title embeddings of all items, ``(V, d_t)``.
    """

    study: Study
    backbone: str
    held: HeldOut
    full: Any
    titles: Tensor

    def fit(self, kind: str, seed: int) -> Run:
        """The saved fit of a kind: warm, updated or whole."""
        key = self.backbone, kind, seed
        return next(run for run in self.study.runs() if (run["backbone"], run["variant"], run["seed"]) == key)

    def served(self, kind: str, seed: int) -> Recommender | None:
        """The recommender of a fit, whose bundle is made once; None without the fit."""
        if Key(self.backbone, kind, seed) not in self.study.kept():
            return None
        folder = self.study.work / "bundles" / str(Key(self.backbone, kind, seed))
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            export(self.fit(kind, seed)["log_dir"], str(folder))
        return Recommender.load(folder)

    def grown(self, seed: int) -> Recommender:
        """The recommender that was trained without the cold items, with them added."""
        before, known = self.served("warm", seed), self.full.catalogue
        assert before is not None
        places = [place for place, item in enumerate(known.item_ids) if item in self.held.cold]
        items = {known.item_ids[place]: known.titles[place] for place in places}
        return before.with_items(items, self.titles[places])

    def targets(self, split: Split) -> Targets:
        """Examples of a split."""
        return targets(self.full, split, self.held.cold)

    def tested(self, seed: int) -> Iterator[tuple[str, Ranks]]:
        """Ranks of all test targets, by model; the baselines come with every seed."""
        given, index = self.targets("test"), self.full.catalogue.index
        kinds = {kind: self.served(kind, seed) for kind in ("warm", "updated", "whole")}
        for name, model in {**kinds, "with_items": self.grown(seed)}.items():
            if model is not None:
                yield name, self.ranked(model, given)
        yield "nearest titles", rank(nearest(self.titles, index), index, given)
        warm: Any = data_module(str(self.held.warm), None)
        yield "popularity", rank(popular(warm, index), index, given)

    def choice(self, seed: int) -> Iterator[dict[str, Any]]:
        """Rows that compare ways to make the rows of new items, on validation sessions."""
        given = some(self.targets("validate"), EXAMPLES)
        manifest, content = self.grown(seed)._read_content()
        known = {"training with them": self.served("whole", seed), "nothing": self.served("warm", seed)}
        for name in (*known, *ROWS):
            model = known.get(name)
            if name in ROWS:
                made = open_content(manifest, self.with_rows(content, ROWS[name]))
                length = manifest.max_length
                model = Recommender(made.model, made.catalogue, max_length=length, views=made.views)
            if model is None:
                continue
            ranks = self.ranked(model, given)
            for of, chosen in (("cold", given.cold), ("warm", ~given.cold)):
                for metric in METRICS:
                    if (name, of) != ("nothing", "cold"):
                        value = float(gains(ranks[chosen], metric).mean())
                        note = f"{int(chosen.sum())} validation examples, seed {seed}"
                        yield row(f"choice, {of} targets, {name}, {metric}", value, "share", note=note)

    def with_rows(self, content: Content, variant: Variant) -> Content:
        """The same content with other learned rows of the cold items, which come last."""
        order = [self.full.catalogue.index[item] - 1 for item in content.catalogue.item_ids]
        known = [item not in self.held.cold for item in content.catalogue.item_ids]
        count, weights = sum(known), dict(content.weights)
        for name in weights.keys() & set(TABLES):
            table = weights[name].clone()
            old, new = self.titles[order[:count]], self.titles[order[count:]]
            table[1 + count :] = variant(table[1 : 1 + count], old, new)
            weights[name] = table
        return content._replace(weights=weights)

    def ranked(self, model: Recommender, given: Targets) -> Ranks:
        """Ranks of the targets by a model, computed once for the same items, rows and examples."""
        made = hashlib.sha256(model.model.backbone.item_embeddings().numpy().tobytes())
        made.update(repr((model.catalogue.fingerprint, given.sessions, given.target)).encode())
        file = self.study.work / "ranks" / f"{made.hexdigest()}.npy"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            np.save(file, rank(model.scores, model.catalogue.index, given))
        found: Ranks = np.load(file)
        return found


def told(each: dict[str, dict[int, Ranks]], given: Targets) -> Iterator[dict[str, Any]]:
    """Rows of the results: means over seeds, and paired differences with their intervals."""
    pairs = {
        "cold": (("with_items", "nearest titles"), ("updated", "whole")),
        "warm": (("with_items", "warm"), ("with_items", "whole"), ("updated", "whole")),
    }
    for of, chosen in (("cold", given.cold), ("warm", ~given.cold)):
        session = np.unique(given.session[chosen], return_inverse=True)[1]
        for metric in METRICS:
            worth = {
                name: {seed: gains(ranks[chosen], metric) for seed, ranks in seeds.items()}
                for name, seeds in each.items()
                if (of, name) != ("cold", "warm")
            }
            for name, seeds in worth.items():
                note = f"{int(chosen.sum())} test examples, seeds {sorted(seeds)}"
                value = float(np.mean([one.mean() for one in seeds.values()]))
                yield row(f"test, {of} targets, {name}, {metric}", value, "share", note=note)
            for one, other in pairs[of]:
                both = sorted(worth[one].keys() & worth[other].keys()) if {one, other} <= set(worth) else []
                if both:
                    differ = np.stack([worth[one][seed] - worth[other][seed] for seed in both])
                    low, high = interval(differ, session)
                    note = f"95 % interval [{low:.4f}, {high:.4f}]; seeds {both}"
                    what = f"test, {of} targets, {one} minus {other}, {metric}"
                    yield row(what, float(differ.mean()), "share", note=note)


def _titles(held: HeldOut) -> Tensor:
    """Title embeddings of all items, ``(V, d_t)``."""
    full: Any = data_module(str(held.whole), None)
    with ViewStore(held.stores[0]) as store:
        return load_view_table(store, full, "titles").table.table.titles[1:]
