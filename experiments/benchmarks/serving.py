"""Time of one recommendation from a bundle, wrapped over bare; time to load a bundle, and its size."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from experiments.benchmarks.results import keep, row
from llm4sbr import LLM4SBRWrapper, SBRModule, backbones
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.nn.view_predictor import ViewPredictor
from llm4sbr.serving import Recommender
from llm4sbr.serving.bundle import Content, write_bundle
from llm4sbr.serving.known_views import pack_views
from llm4sbr.serving.manifest import MANIFEST, Manifest, ServedViewsSpec
from llm4sbr.serving.model import build_model, serving_state
from llm4sbr.testing import make_examples

TEXT = 384  # dimension of MiniLM
BATCH = 16  # sessions of one call, as a server that collects requests makes it
VIEWS = ("long_term", "short_term")


def shop(num_items: int, sessions: int) -> tuple[Catalogue, list[list[int]]]:
    """Make a catalogue and sessions of about four clicks, some long."""
    draw = random.Random(0)
    ids = tuple(f"B{item:09d}" for item in range(num_items))
    titles = tuple(" ".join(f"word{draw.randrange(999)}" for _ in range(8)) for _ in ids)
    lengths = (min(50, 1 + int(draw.expovariate(1 / 4))) for _ in range(sessions))
    return Catalogue(ids, titles), [[draw.randint(1, num_items) for _ in range(n)] for n in lengths]


def write(
    folder: Path, model: SBRModule, catalogue: Catalogue, known: Sequence[Sequence[int]], dtype: torch.dtype
) -> Path:
    """Write the bundle of a model, with random views of the `known` sessions of a wrapped one."""
    draw, num_items, spec, views = torch.Generator().manual_seed(0), catalogue.num_items, None, None
    table = normalize(torch.randn(num_items, TEXT, generator=draw), dim=-1)
    if isinstance(model, LLM4SBRWrapper):
        keys = sorted({catalogue.session_key(session) for session in known})
        ids = torch.randint(1, num_items + 1, (len(keys), 2, 5), generator=draw, dtype=torch.int32)
        weights = torch.rand(ids.shape, generator=draw).half()
        views = pack_views(keys, {"ids": ids, "weights": weights})
        spec = ServedViewsSpec(VIEWS, "llm", VIEWS, sessions=len(keys))
    described = model.described()
    manifest = Manifest(described, num_items, catalogue.fingerprint, 50, spec)
    titles = (table.to(dtype), torch.ones(num_items, dtype=torch.bool)) if spec else None
    weights_ = serving_state(model, build_model(described))
    return write_bundle(folder, manifest, Content(weights_, catalogue, titles, views))


def made(name: str, wrapped: bool, num_items: int, dim: int, predict: bool = False) -> SBRModule:
    """Make a model with the default heads and random weights."""
    torch.manual_seed(0)
    backbone = getattr(backbones, name)(num_items, dim)
    predictor = ViewPredictor() if predict else None
    model = (
        LLM4SBRWrapper(backbone, text_dim=TEXT, view_predictor=predictor) if wrapped else SBRModule(backbone)
    )
    if predictor is not None:
        predictor.learned.fill_(True)
    examples = make_examples([[1 + (5 * s + c) % num_items for c in range(4)] for s in range(200)])
    model.read_training_sessions(examples, fitting=True)
    if isinstance(model, LLM4SBRWrapper):
        model.read_titles(normalize(torch.randn(num_items, TEXT), dim=-1), torch.ones(num_items).bool())
    return model.eval()


def latencies(works: dict[str, Callable[[Any], Any]], sessions: Sequence[Any]) -> dict[str, list[float]]:
    """Milliseconds of each request, the works in turn and in a new order for each session."""
    times: dict[str, list[float]] = {name: [] for name in works}
    draw, names = random.Random(1), list(works)
    for place, session in enumerate(sessions):
        draw.shuffle(names)
        for name in names:
            began = time.perf_counter()
            works[name](session)
            if place >= min(20, len(sessions) // 2):  # the first ones warm up
                times[name].append(1000 * (time.perf_counter() - began))
    return times


def seconds(code: str, *words: str) -> float:
    """Seconds of a Python process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *words], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def loading(folder: Path, repeats: int) -> float:
    """Seconds that loading a bundle takes more than importing torch: the median of runs in turn."""
    load = "import sys, torch; from llm4sbr.serving import Recommender; Recommender.load(sys.argv[1])"
    seconds(load, str(folder))  # the first one reads files that are not in the page cache
    return statistics.median(seconds(load, str(folder)) - seconds("import torch") for _ in range(repeats))


def percentile(times: list[float], share: float) -> float:
    """Percentile of times."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def serving(
    names: list[str] | None = None,
    num_items: int = 12_101,
    dim: int = 100,
    requests: int = 200,
    views: int = 20_000,
    repeats: int = 3,
    json: Path | None = None,
) -> None:
    """Measure recommendations for one session at a time from bundles of bare and wrapped models.

    Weights, titles and views are random, of the size of Beauty; the heads are the defaults. Requests of the
    bare and of the wrapped model, with known views, with predicted ones and without, are run in turn in one
    process.

    Example::

        python -m experiments benchmarks serving --json experiments/results/serving.json

    Args:
        names: Backbones; by default SR-GNN, GRU4Rec and SASRec.
        num_items: Size of the catalogue.
        dim: Size of an item's embedding.
        requests: Number of requests of each kind.
        views: Number of sessions with known views.
        repeats: Number of loads.
        json: File for the rows.
    """
    catalogue, sessions = shop(num_items, views + 2 * requests)
    known, absent, more = sessions[:requests], sessions[requests : 2 * requests], sessions[2 * requests :]
    raw = [[catalogue.item_ids[item - 1] for item in session] for session in known]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for name in names or ["SRGNN", "GRU4Rec", "SASRec"]:
            bare_model, model = (made(name, wrapped, num_items, dim) for wrapped in (False, True))
            folders = {
                "bare": write(Path(place) / f"{name}-bare", bare_model, catalogue, (), torch.float32),
                "wrapped, view known": write(
                    Path(place) / name, model, catalogue, [*known, *more], torch.float32
                ),
                "wrapped, view absent": write(
                    Path(place) / f"{name}-absent", model, catalogue, [*absent, *more], torch.float32
                ),
                "wrapped, view predicted": write(
                    Path(place) / f"{name}-predicted",
                    made(name, True, num_items, dim, predict=True),
                    catalogue,
                    [*absent, *more],
                    torch.float32,
                ),
            }
            served = {what: Recommender.load(folder) for what, folder in folders.items()}
            states = {what: one.recommend([raw[0]])[0].view for what, one in served.items()}
            assert [*states.values()] == ["absent", "known", "absent", "predicted"]
            times = latencies(
                {what: (lambda session, one=one: one.recommend([session])) for what, one in served.items()},
                raw,
            )
            rows += [
                row(f"{name}, {what}: p{100 * share:.0f}", percentile(found, share), "ms")
                for what, found in times.items()
                for share in (0.5, 0.9)
            ]
            for what in list(times)[1:]:
                for share in (0.5, 0.9):
                    ratio = percentile(times[what], share) / percentile(times["bare"], share)
                    goal = 1.05 if share == 0.9 else None
                    rows.append(
                        row(f"{name}, {what} over bare: p{100 * share:.0f}", ratio, "×", goal, "lower")
                    )
            together = {what: (lambda many, one=one: one.recommend(many)) for what, one in served.items()}
            times = latencies(together, [raw[at : at + BATCH] for at in range(0, len(raw), 2)])
            for what in list(times)[1:]:
                ratio = percentile(times[what], 0.5) / percentile(times["bare"], 0.5)
                rows.append(row(f"{name}, {what} over bare: p50 of {BATCH} sessions together", ratio, "×"))
            for what in ("bare", "wrapped, view known"):
                rows += _size_and_load(f"{name}, {what}", folders[what], repeats)
        half = Recommender.load(write(Path(place) / "half", model, catalogue, [*known, *more], torch.float16))
        whole = served["wrapped, view known"].recommend(raw)
        equal = [a.item_ids == b.item_ids for a, b in zip(half.recommend(raw), whole, strict=True)]
        said = "sessions with the same top 20, in the same order, with titles in float16"
        rows.append(row(said, sum(equal) / len(equal), "share", 1.0))
    keep("serving", rows, json)


def _size_and_load(what: str, folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Rows of a bundle's size over what the model needs, and of the time to load it."""
    manifest = Manifest.read(folder)
    model = Recommender.load(folder)
    tensors = [
        one
        for name in manifest.files
        if name.endswith("safetensors")
        for one in _tensors(folder / name).values()
    ]
    texts = sum(len(text.encode()) for text in (*model.catalogue.item_ids, *model.catalogue.titles))
    needed = texts + sum(one.numel() * one.element_size() for one in tensors)
    size = sum(path.stat().st_size for path in folder.iterdir())
    manifest_size = (folder / MANIFEST).stat().st_size
    parts = ", ".join(f"{name} {sums['bytes'] / 2**20:.2f}" for name, sums in manifest.files.items())
    return [
        row(f"{what}: size", size / 2**20, "MiB", note=f"{parts}, manifest {manifest_size / 2**20:.2f} MiB"),
        row(f"{what}: size over tensors, ids and titles", size / needed, "×", 1.1, "lower"),
        row(f"{what}: loading, beyond importing torch", loading(folder, repeats), "s", 2.0, "lower"),
    ]


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(path)
    return found
