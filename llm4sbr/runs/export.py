"""``llm4sbr export``: a bundle of a finished run, checked against the run's own scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llm4sbr.callbacks import ViewCache
from llm4sbr.contracts.batch import batch_prefixes
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, ExampleSource
from llm4sbr.runs.record import versions
from llm4sbr.runs.saved_run import SavedRun, load_run
from llm4sbr.runs.trainer_cli import say
from llm4sbr.serving.bundle import Content, write_bundle
from llm4sbr.serving.known_views import pack_views
from llm4sbr.serving.manifest import Manifest, ServedViewsSpec
from llm4sbr.serving.model import build_model, serving_state
from llm4sbr.serving.recommender import Recommender
from llm4sbr.training.wrapper import LLM4SBRWrapper
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.key_file import read_keys
from llm4sbr.views.tables import ScaledTitleViews, StoredViews, UsedViews, ViewTable

_PACKAGES = ("llm4sbr", "torch", "torch-geometric", "numpy", "polars", "safetensors")
_COMPARED = 32  # sessions whose scores are compared before a bundle gets its name
_TOLERANCE = 1e-4  # of a score, and relative; batches of another size differ by about 1e-6


class RunViews(NamedTuple):
    """Views of a run, in the form of a bundle."""

    spec: ServedViewsSpec
    table: ViewTable  # views of the data module's examples, as in training
    encoder: dict[str, Any]
    stored: dict[str, Tensor] | None  # None where the views come from titles


def export(run: str, out: str = "bundle", ckpt_path: str | None = None, views: bool = True) -> None:
    """Make one folder of a trained model that recommends without Lightning, an LLM or a pickle.

    The folder holds the weights, the catalogue, and for a wrapped model the titles' embeddings and the views
    of known sessions; `llm4sbr recommend` and `llm4sbr.serving.Recommender` read it. Before it gets its name,
    its scores are compared with those of the run.

    Args:
        run: Folder of a run of `fit`; its best checkpoint is exported.
        out: Folder of the bundle. An existing bundle is replaced when the new one is complete.
        ckpt_path: Another checkpoint of the run.
        views: Whether to export the run's views; without them a wrapped model recommends from clicks alone.

    Raises:
        InputError: The run, its data or its views are missing, or its model cannot be built from plain values
            and registered classes.
    """
    found = load_run(run, ckpt_path)
    source: Any = found.data
    source.prepare_data()
    description = found.model.described()
    served = build_model(description)
    seen = run_views(found) if views else None
    limits = [getattr(one, "max_length", None) for one in (source, found.model.backbone)]
    manifest = Manifest(
        model=description,
        num_items=source.catalogue.num_items,
        catalogue=source.catalogue.fingerprint,
        max_length=min((limit for limit in limits if isinstance(limit, int)), default=None),
        views=None if seen is None else seen.spec,
        encoder={} if seen is None else seen.encoder,
        metrics=_metrics(found.checkpoint.parent.parent) if ckpt_path is None else {},
        versions=versions(_PACKAGES),
        origin={"checkpoint": found.checkpoint.name, "data": getattr(source, "fingerprint", None)},
    )
    content = Content(
        serving_state(found.model, served),
        source.catalogue,
        None if seen is None else (seen.table.table.titles[1:], seen.table.table.mask[1:]),
        None if seen is None else seen.stored,
    )
    folder = write_bundle(
        out, manifest, content, lambda made: compare(made, found, None if seen is None else seen.table)
    )
    size = sum(path.stat().st_size for path in folder.iterdir())
    known = f", known views of {seen.spec.sessions:,} sessions" if seen is not None and seen.stored else ""
    say(
        f"{type(found.model.backbone).__name__} with {manifest.num_items:,} items{known}: "
        f"{size / 2**20:.1f} MiB. Try it with\n  llm4sbr recommend {out} --session "
        f"{source.catalogue.item_ids[0]}"
    )


def run_views(run: SavedRun) -> RunViews | None:
    """Load the views that a run trained with; None for a bare model, or a run without a view store.

    Raises:
        InputError: The store is missing or damaged, or its views are not those of the run's catalogue.
    """
    cache = ViewCache(**run.config["views"])
    if not isinstance(run.model, LLM4SBRWrapper) or cache.store is None:
        return None
    only = None if cache.only is None else read_keys(cache.only)
    stored = None
    with ViewStore(cache.store) as store:
        loaded = load_view_table(store, _source(run), cache.spec, cache.fallback, only, cache.r)
        table, spec = loaded.table, loaded.spec
        names = tuple(table.views)
        made = ServedViewsSpec(
            names,
            spec.source,
            names if cache.use is None else tuple(name for name in names if name in cache.use),
            fingerprint=spec.fingerprint,
            described=spec.describe(),
        )
        if isinstance(table, StoredViews):
            keys = sorted(
                store.localised_keys(spec) if only is None else store.localised_keys(spec) & set(only)
            )
            rows = store.lookup_localised(spec, keys, dim=table.text_dim)
            if rows.vectors is not None:
                views = {"vectors": torch.from_numpy(rows.vectors)}
            else:
                small = torch.int16 if run.model.backbone.num_items < 1 << 15 else torch.int32
                views = {
                    "ids": torch.from_numpy(rows.ids[..., : cache.r]).to(small),
                    "weights": torch.from_numpy(rows.weights[..., : cache.r]),
                }
            stored = pack_views(keys, views)
            made = replace(made, sessions=len(keys))
            if isinstance(table.fallback, ScaledTitleViews):
                made = replace(made, fallback="titles", norms=tuple(table.fallback.norms.tolist()))
    encoder = {
        "name": spec.encoder.name,
        "fingerprint": spec.encoder.fingerprint,
        "revision": spec.encoder.revision,
    }
    return RunViews(made, table if cache.use is None else UsedViews(table, cache.use), encoder, stored)


@torch.inference_mode()
def compare(folder: Path, run: SavedRun, table: ViewTable | None) -> None:
    """Compare the scores of a bundle with those of its run, on sessions of every split.

    Args:
        folder: Bundle.
        run: Run that it was made of.
        table: Views of the run's examples; None without views.

    Raises:
        InputError: If the scores differ: a part of the model keeps state outside its tensors.
    """
    recommender, source = Recommender.load(folder), _source(run)
    names = source.catalogue.item_ids
    for split in SPLITS:
        examples = source.examples(split)
        places = range(0, len(examples), max(1, len(examples) // _COMPARED))
        sessions = [examples.prefix(place) for place in places]
        if not sessions:
            continue
        batch = batch_prefixes(sessions, example_index=[examples.first_index + place for place in places])
        if table is not None:
            views, mask = table(batch)
            batch = batch._replace(views=views, view_mask=mask)
        expected = run.model(batch)
        found = recommender.scores([[names[item - 1] for item in session] for session in sessions])
        if not torch.allclose(found, expected.float(), rtol=_TOLERANCE, atol=_TOLERANCE):
            raise InputError(
                "the bundle would score differently than the run, so it is not written",
                value=float((found - expected).abs().max()),
                hint="A backbone or head keeps state outside its parameters and buffers",
            )


def _source(run: SavedRun) -> ExampleSource:
    source: Any = run.data
    made: ExampleSource = source
    return made


def _metrics(folder: Path) -> dict[str, Any]:
    """Metrics of the chosen epoch; empty where the run was stopped before it wrote them."""
    try:
        found = json.loads((folder / "summary.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
