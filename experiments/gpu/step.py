"""Job 4: what a training step takes, bare and wrapped, by batch size, with and without torch.compile.

Batches lie on the device before the clock starts, so a step is the model's alone: losses, gradients, Adam.
Models have their default parts; the note of a row names the heads and the scorer that were on. The time of
the data loader is measured beside it. ``step.json`` has a row for each case, which is not measured again, and
for each backbone at the first size the operations that take most of a wrapped step's time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule
from place import Clock, card, parser, say
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks.results import result, row, save
from experiments.study.data import data_module
from llm4sbr import LLM4SBRWrapper, SBRModule, SessionBatch, backbones
from llm4sbr.views import ViewStore, load_view_table

BATCHES = 4  # different batches, in turn
WARM_UP = 3
TOP = 12  # operations of a profile


class Case(NamedTuple):
    """One measurement."""

    backbone: str
    wrapped: bool
    size: int
    compiled: bool

    @property
    def name(self) -> str:
        """What its row is called."""
        parts = [self.backbone, "wrapped" if self.wrapped else "bare", f"batch {self.size}"]
        return " ".join(parts + (["compiled"] if self.compiled else []))


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """All cases; those that compile, which take longest, come last."""
    for compiled in (False, True):
        for size, backbone, wrapped in itertools.product(args.sizes, args.backbones, (False, True)):
            yield Case(backbone, wrapped, size, compiled)


class Bench:
    """Data, views and models.

    Args:
        args: Of `main`.
        data: The data module, prepared.
    """

    def __init__(self, args: argparse.Namespace, data: LightningDataModule) -> None:
        self.args, self.data, self.device = args, data, torch.device(args.device)
        with ViewStore(args.store) as store:
            self.table = load_view_table(store, data, "titles").table.to(self.device)  # type: ignore[arg-type]
        self.loading: dict[int, float] = {}  # milliseconds of a batch
        self.parts: dict[tuple[str, bool], str] = {}  # what a backbone's bare or wrapped model was made of
        self._batches: dict[int, list[SessionBatch]] = {}

    def batches(self, size: int) -> list[SessionBatch]:
        """Some training batches on the device."""
        if size not in self._batches:
            self.data.batch_size = size
            torch.manual_seed(0)
            stream, began = iter(self.data.train_dataloader()), time.perf_counter()
            found = list(itertools.islice(stream, BATCHES))
            self.loading[size] = 1000 * (time.perf_counter() - began) / len(found)
            self._batches = {size: [move_data_to_device(one, self.device) for one in found]}
        return self._batches[size]

    def model(self, case: Case) -> SBRModule:
        """A fresh model with its default parts, titles read, on the device, for training."""
        torch.manual_seed(0)
        backbone = getattr(backbones, case.backbone)(self.data.catalogue.num_items, self.args.dim)
        model = SBRModule(backbone)
        if case.wrapped:
            titles = self.table.table
            model = LLM4SBRWrapper(backbone, text_dim=titles.titles.size(1))
            model.read_titles(titles.titles[1:], titles.mask[1:])
            model.view_table = self.table
        model.read_training_sessions(self.data.examples("train"), fitting=True)
        parts = [type(part).__name__ for part in (*model.score_heads(training=True), model.scorer)]
        self.parts[case.backbone, case.wrapped] = ", ".join(parts)
        return model.to(self.device).train()

    def steps(self, case: Case) -> Iterator[None]:
        """Train; a step each time."""
        model, batches = self.model(case), self.batches(case.size)
        losses: Any = model.losses
        if case.compiled:
            losses = torch.compile(losses, backend=self.args.compiler)  # all sizes dynamic: unit_rows fails
        optimizer = model.make_optimizer(model.parameters())
        for batch in itertools.cycle(batches):
            if case.wrapped:
                views, mask = self.table(batch)
                batch = batch._replace(views=views, view_mask=mask)
            losses(batch)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            yield

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def milliseconds(self, case: Case) -> float:
        """Median of a step; of each round over the batches the mean counts."""
        steps, found = self.steps(case), []
        for _ in range(max(WARM_UP, BATCHES)):  # each batch once, for what is compiled by shape
            next(steps)
        for _ in range(self.args.steps):
            self.wait()
            began = time.perf_counter()
            for _ in range(BATCHES):
                next(steps)
            self.wait()
            found.append(1000 * (time.perf_counter() - began) / BATCHES)
        return statistics.median(found)

    def profiled(self, case: Case) -> list[dict[str, Any]]:
        """The operations that take most of a round over the batches."""
        steps = self.steps(case)
        for _ in range(BATCHES):
            next(steps)
        self.wait()
        on_gpu = self.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as found:
            for _ in range(BATCHES):
                next(steps)
            self.wait()
        time_of = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        ranked = sorted(found.key_averages(), key=lambda one: -getattr(one, time_of))[:TOP]
        return [
            {
                "operation": one.key[:80],
                "calls_a_step": one.count / BATCHES,
                "device_us_a_step": round(getattr(one, time_of) / BATCHES, 1),
                "cpu_us_a_step": round(one.self_cpu_time_total / BATCHES, 1),
            }
            for one in ranked
        ]


def kept(path: Path) -> dict[str, Any]:
    """What was measured before."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {
        "rows": found.get("rows", []),
        "profiles": found.get("profiles", {}),
        "left": found.get("left", []),
    }


def main() -> int:
    """Run it; returns the exit status."""
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="data module YAML")
    options.add_argument("--data_dir", required=True)
    options.add_argument("--store", required=True, help="view store with title views")
    options.add_argument(
        "--backbones", nargs="+", default=["STAMP", "SRGNN", "GRU4Rec", "SASRec", "NISERPlus"]
    )
    options.add_argument("--sizes", nargs="+", type=int, default=[100, 512, 4096], help="sessions in a batch")
    options.add_argument("--steps", type=int, default=15, help="rounds of some batches")
    options.add_argument("--dim", type=int, default=100)
    options.add_argument("--compiler", default="inductor", help="backend of torch.compile")
    args = options.parse_args()
    torch.set_float32_matmul_precision("high")  # as the command line does
    clock, path = Clock(args.minutes), args.work / "step.json"
    bench, found = Bench(args, data_module(args.data, args.data_dir)), kept(path)
    todo = [case for case in cases(args) if case.name not in {one["what"] for one in found["rows"]}]
    for case in todo:
        if clock.left < 30:
            break
        try:
            value = bench.milliseconds(case)
            note = bench.parts[case.backbone, case.wrapped]
        except Exception as error:  # a compiler's refusal is a result, too
            value, note = -1.0, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        if not case.compiled and (size := f"loader, batch {case.size}") not in {
            one["what"] for one in found["rows"]
        }:
            found["rows"].append(row(size, bench.loading[case.size], "ms a batch"))
        found["rows"].append(row(case.name, value, "ms a step", note=note))
        if case.wrapped and case.size == args.sizes[0] and not case.compiled:
            found["profiles"][case.name] = bench.profiled(case)
        found["left"] = [one.name for one in todo[todo.index(case) + 1 :]]
        say(f"{case.name}: {value:.2f} ms {note}")
        save(path, result("step", found["rows"], card(), profiles=found["profiles"], left=found["left"]))
    say(f"{len(found['left'])} of {len(list(cases(args)))} cases are left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
