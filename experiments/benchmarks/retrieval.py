"""Time of the best items of a large catalogue, for each retrieval, against all scores; and what is missed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from experiments.benchmarks.load import made_bundle, power_law
from experiments.benchmarks.results import keep, row
from experiments.benchmarks.serving import percentile
from llm4sbr.nn.retrieval import RETRIEVALS, Own
from llm4sbr.serving import Recommender
from llm4sbr.serving.server.process import keep_memory

K, SCALE = 20, 16.0
EXACT = ("float32", "bfloat16", "int8")


def retrieval(
    num_items: int = 1_000_000,
    dim: int = 128,
    batch_size: int = 64,
    requests: int = 60,
    threads: int = 2,
    index: bool = True,
    served: int = 100_000,
    json: Path | None = None,
) -> None:
    """Measure the best 20 items of one session and of a batch, beside a full float32 product and `topk`.

    All searches leave out an item and compute the log-sum-exp that `RepeatExplore` needs, which the full
    product does not; the index does not either. Vectors are random, or like trained ones: in
    bunches, with few large axes. Works are run in turn, in one process. At the end a served bundle answers
    batches of 32 sessions with each retrieval, with one thread, as the server does.

    Example::

        python -m experiments benchmarks retrieval --json experiments/results/retrieval.json

    Args:
        num_items: Size of the catalogue.
        dim: Size of an item's vector.
        batch_size: Sessions of a batch.
        requests: Number of single sessions; a sixth of it of batches.
        threads: Threads of torch, and of the index.
        index: Whether to make the approximate index, for vectors like trained ones: minutes.
        served: Items of the served bundle.
        json: File for the rows.
    """
    torch.set_num_threads(threads)
    keep_memory()
    rows = []
    with torch.inference_mode():
        for kind, draw in (("like trained ones", trained_like), ("random", random_vectors)):
            items, queries = draw(num_items, dim, requests + batch_size)
            rows += _searches(f"{kind}, ", items, queries, batch_size, requests, index and kind != "random")
            del items
    rows += _served(served, dim, requests)
    keep("retrieval", rows, json)


def trained_like(num_items: int, dim: int, sessions: int) -> tuple[Tensor, Tensor]:
    """Items in bunches of about 500 whose axes are of falling size, and sessions between two items."""
    draw = torch.Generator().manual_seed(0)
    axes = torch.linspace(1, 0.05, dim)
    middle = torch.randn(max(num_items // 500, 2), dim, generator=draw)
    items = middle[torch.randint(len(middle), (num_items,), generator=draw)]
    items += 0.8 * torch.randn(num_items, dim, generator=draw)
    items = normalize(items.mul_(axes))
    return items, _sessions(items, sessions, draw)


def random_vectors(num_items: int, dim: int, sessions: int) -> tuple[Tensor, Tensor]:
    """Items without any structure, and sessions between two of them."""
    draw = torch.Generator().manual_seed(0)
    items = normalize(torch.randn(num_items, dim, generator=draw))
    return items, _sessions(items, sessions, draw)


def _sessions(items: Tensor, count: int, draw: torch.Generator) -> Tensor:
    first, second = torch.randint(len(items), (2, count), generator=draw)
    noise = normalize(torch.randn(count, items.size(1), generator=draw))
    return SCALE * normalize(items[first] + 0.5 * items[second] + 0.3 * noise)


def _searches(
    kind: str, items: Tensor, queries: Tensor, batch_size: int, requests: int, index: bool
) -> list[dict[str, Any]]:
    rows, searches = [], {}
    for name in (*EXACT, *(("index",) if index else ())):
        began = time.perf_counter()
        searches[name] = RETRIEVALS[name]().over(items)
        rows.append(row(f"{kind}{name}: made in", time.perf_counter() - began, "s"))
        rows.append(row(f"{kind}{name}: memory beside the items", searches[name].memory / 2**20, "MiB"))
        if name == "index":
            rows.append(row(f"{kind}{name}: recall that it states", searches[name].recall, "share"))

    def full(query: Tensor) -> Tensor:
        scores = query @ items.T
        scores[:, 0] = float("-inf")
        return scores.topk(K, dim=1).indices

    def work(name: str) -> Callable[[Tensor], Tensor]:
        def found(query: Tensor) -> Tensor:
            # The first item stands for a session's own ones.
            own = Own(query.new_zeros(len(query), 1).long(), query.new_ones(len(query), 1).bool())
            return searches[name].search(query, K, own=own, log_sum=name != "index").columns

        return found

    works = {"full product": full, **{name: work(name) for name in searches}}
    said = f"recall of the exact top {K}"
    rows += [
        row(f"{kind}{name}: {said}", _recall(works[name], full, queries), "share", 0.99) for name in searches
    ]
    times = _in_turn(works, [queries[at : at + 1] for at in range(requests)])
    for name, taken in times.items():
        best = name in ("int8", "index")
        rows += [
            row(f"{kind}{name}: one session, p50", percentile(taken.wall, 0.5), "ms"),
            row(f"{kind}{name}: one session, p90", percentile(taken.wall, 0.9), "ms", 10.0 if best else None,
                "lower"),
            row(f"{kind}{name}: one session, CPU", percentile(taken.cpu, 0.5), "ms"),
            row(f"{kind}full product over {name}: one session, CPU",
                percentile(times["full product"].cpu, 0.5) / percentile(taken.cpu, 0.5), "×"),
        ]  # fmt: skip
    several = [queries[at : at + batch_size] for at in range(max(requests // 6, 3))]
    times = _in_turn({name: one for name, one in works.items() if name != "index"}, several)
    for name, taken in times.items():
        rate, of_cpu = (1000 * batch_size / percentile(one, 0.5) for one in taken)
        target = 500.0 if name == "bfloat16" else None
        rows += [
            row(f"{kind}{name}: batch of {batch_size}", rate, "sessions/s", target),
            row(f"{kind}{name}: batch of {batch_size}, by CPU", of_cpu, "sessions/s of a core"),
        ]
    return rows


class Times(NamedTuple):
    """Milliseconds of each call: by the clock, and of CPU, which other programs change less."""

    wall: list[float]
    cpu: list[float]


def _in_turn(works: dict[str, Callable[[Any], Any]], given: Sequence[Any]) -> dict[str, Times]:
    """Times of each call, the works in turn; the first calls warm up."""
    times = {name: Times([], []) for name in works}
    for place, one in enumerate(given):
        for name, work in works.items():
            began, used = time.perf_counter(), time.process_time()
            work(one)
            wall, cpu = time.perf_counter() - began, time.process_time() - used
            if place >= min(5, len(given) // 2):
                times[name].wall.append(1000 * wall)
                times[name].cpu.append(1000 * cpu)
    return times


def _recall(found: Callable[[Tensor], Tensor], full: Callable[[Tensor], Tensor], queries: Tensor) -> float:
    """Share of the exact best items that are found."""
    hits = [
        (full(one).unsqueeze(2) == found(one).unsqueeze(1)).any(2).float().mean() for one in queries.split(16)
    ]
    return float(torch.stack(hits).mean())


def _served(items: int, dim: int, requests: int) -> list[dict[str, Any]]:
    """Rows of a bundle's batches of 32 sessions: by all scores, and with each exact retrieval."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = made_bundle(Path(scratch) / "bundle", items, dim, wrapped=False)
        plain = Recommender.load(folder)
        ones = {"all scores": plain} | {
            name: Recommender.load(folder, retrieval=RETRIEVALS[name]()) for name in EXACT
        }
    rows, sessions = [], power_law(plain.catalogue.item_ids, 32 * 8)
    for size in (1, 8, 32):
        parts = [sessions[at * size % 224 :][:size] for at in range(requests)]
        times = _in_turn({name: one.recommend for name, one in ones.items()}, parts)
        for name, taken in times.items():
            ratio = percentile(times["all scores"].cpu, 0.5) / percentile(taken.cpu, 0.5)
            rows += [
                row(f"served, {name}: batch of {size}", percentile(taken.wall, 0.5), "ms"),
                row(f"served, {name}: batch of {size}, CPU", percentile(taken.cpu, 0.5), "ms"),
                row(f"served, all scores over {name}: batch of {size}, CPU", ratio, "×"),
            ]
    lists = {name: [found.item_ids for found in one.recommend(sessions)] for name, one in ones.items()}
    for name in EXACT:
        equal = [one == other for one, other in zip(lists[name], lists["all scores"], strict=True)]
        said = f"served, {name}: sessions with the same {K} items in the same order"
        rows.append(row(said, sum(equal) / len(equal), "share"))
    return rows
