"""Every golden run, in this process; `golden_runs.py` starts it with the settings that it needs."""

from __future__ import annotations

import json
import math
import platform
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import torch
from command_line_of_runs import command_line
from crashes import Crash, StopAt
from data_of_runs import hashed_numbers, hex_of, make_data, sha256, write_data
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from models_of_runs import Description, build_model, canonical_name
from torch import nn
from views_of_runs import infer

from llm4sbr.callbacks import RecommendationWriter, ViewCache

Options = dict[str, Any]
TITLES: Options = {"spec": "titles"}
LLM: Options = {"spec": "llm", "fallback": "mask"}
LLM_ELSE_TITLES: Options = {"spec": "llm", "fallback": "titles"}
COSINE: Description = {"lr_schedule": "cosine"}
HEADS: Description = {"item_titles": 8, "text_scores": 6, "repeat_explore": True, "rules": 0.7}
# Of each run the model, options of the data module, and options of the view cache (None for no views).
RUNS: dict[str, tuple[Description, Options, Options | None]] = {
    "SRGNN bare": ({"backbone": "SRGNN", "wrapped": False}, {}, None),
    "SRGNN bare, all options": (
        {
            "backbone": "SRGNN", "wrapped": False, "repeat_explore": True, "rules": 0.7, "score_scale": 12.0,
            "label_smoothing": 0.1, "session_dropout": 0.3, **COSINE,
        },
        {"bucket": 2},
        None,
    ),
    "SRGNN wrapped": ({"backbone": "SRGNN", "wrapped": True}, {}, TITLES),
    "SRGNN wrapped, all heads": (
        {
            "backbone": "SRGNN", "wrapped": True, **HEADS, "label_smoothing": 0.1, "session_dropout": 0.3,
            "view_dropout": 0.3, **COSINE,
        },
        {"bucket": 2},
        LLM_ELSE_TITLES,
    ),
    "SRGNN wrapped, no views": (
        {"backbone": "SRGNN", "wrapped": True, "item_titles": 8, "tau": 0.3},
        {"session_graph": False},
        None,
    ),
    "GRU4Rec bare": (
        {"backbone": "GRU4Rec", "wrapped": False, "rules": 1.0, "label_smoothing": 0.2, "lr_step": 0},
        {"session_graph": False, "bucket": 2},
        None,
    ),
    "GRU4Rec wrapped, average": (
        {
            "backbone": "GRU4Rec", "wrapped": True, "fusion": "average", "separate_projections": True,
            "item_titles": 8, "score_scale": 16.0, "view_dropout": 0.3,
        },
        {},
        LLM,
    ),
    "GRU4Rec wrapped, residual": (
        {
            "backbone": "GRU4Rec", "wrapped": True, "fusion": "residual", "align": False, "text_scores": 6,
            "rules": 0.7, "session_dropout": 0.3, **COSINE,
        },
        {"session_graph": False},
        LLM,
    ),
    "GCEGNN bare": (
        {"backbone": "GCEGNN", "wrapped": False, "repeat_explore": True, "session_dropout": 0.3, **COSINE},
        {},
        None,
    ),
    "GCEGNN wrapped, concat": (
        {
            "backbone": "GCEGNN", "wrapped": True, "fusion": "concat", "uniform": False, "item_titles": 8,
            "repeat_explore": True,
        },
        {"bucket": 2},
        TITLES,
    ),
    "GCEGNN wrapped, one view": (
        {"backbone": "GCEGNN", "wrapped": True, "text_scores": 6, "label_smoothing": 0.1, "rules": 0.7},
        {},
        {**LLM, "use": ["long_term"], "r": 2},
    ),
    "DHCN wrapped": (
        {"backbone": "DHCN", "wrapped": True, "fusion": "residual", "repeat_explore": True, **COSINE},
        {},
        LLM_ELSE_TITLES,
    ),
}  # fmt: skip
AGAIN = ("SRGNN wrapped, all heads", "GRU4Rec wrapped, average", "GCEGNN bare")
EPOCHS, STOP_AT = 3, 11  # training has 7 steps an epoch: the interruption is in the second one


class Kept(DummyLogger):
    """Keeps what is logged, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, list[str]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep the numbers of one moment."""
        for name, value in metrics.items():
            if name != "epoch":
                self.numbers.setdefault(name, []).append(hex_of(value))


def weights(model: nn.Module) -> str:
    """Digest of all parameters, whatever their names and order."""
    return sha256(*sorted(sha256(str(tuple(one.shape)), one) for one in model.parameters()))


def fill(model: nn.Module) -> None:
    """Replace random initial weights by numbers hashed from a parameter's name.

    The order in which a model's parts are made decides which random numbers each of them gets. Filling takes
    that order out of a run's numbers; "initial weights" keeps it apart. Constants and zeros stay.
    """
    with torch.no_grad():
        for name, one in model.named_parameters():
            if one.unique().numel() > 2:
                bound = 1 / math.sqrt(one.size(-1))
                numbers = hashed_numbers(canonical_name(name), one.numel())
                one.copy_(torch.tensor(numbers).view_as(one) * bound * (one != 0))


class GoldenRun:
    """One run: a model, its data and its views.

    Args:
        name: A key of `RUNS`.
        folder: Of the shop.
        store: Of the views.
        root: Where the run may write.
    """

    def __init__(self, name: str, folder: Path, store: Path, root: Path) -> None:
        self.description, self.of_data, self.of_views = RUNS[name]
        self.folder, self.store, self.root = folder, store, root

    def trainer(self, *more: Callback) -> Trainer:
        """A Trainer with the run's view cache."""
        views = [] if self.of_views is None else [ViewCache(str(self.store), **self.of_views)]
        return Trainer(
            max_epochs=EPOCHS, accelerator="cpu", devices=1, logger=Kept(), default_root_dir=self.root,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, log_every_n_steps=1, callbacks=[*views, *more],
        )  # fmt: skip

    def fit(self, *more: Callback, seed: int = 5, ckpt: Path | None = None) -> tuple[Any, Any, Trainer, str]:
        """Fit a model whose weights begin as hashes, or go on from a checkpoint."""
        data = make_data(self.folder, **self.of_data)
        seed_everything(seed, verbose=False)
        model = build_model(self.description, data.num_items)
        initial = weights(model)
        if ckpt is None:
            fill(model)
        seed_everything(seed, verbose=False)  # training draws the same, however many draws building took
        trainer = self.trainer(*more)
        with suppress(Crash):
            trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
        return model, data, trainer, initial

    def whole(self) -> dict[str, Any]:
        """Fit, test and predict."""
        model, data, trainer, initial = self.fit()
        trainer.save_checkpoint(self.root / "whole.ckpt")
        trainer.test(model, data, verbose=False)
        self.trainer(RecommendationWriter(str(self.root / "next.parquet"))).predict(
            model, data, return_predictions=False
        )
        squares = [one.detach().double().square().sum().item() for one in model.parameters()]
        return {
            "initial weights sha256": initial,
            "logged": trainer.logger.numbers,
            "steps": trainer.global_step,
            "weights sha256": weights(model),
            "weights norm": hex_of(math.sqrt(math.fsum(squares))),
            "predictions": predictions(self.root / "next.parquet"),
        }

    def resumed(self) -> dict[str, Any]:
        """Fit with an interruption in an epoch's middle; the second model begins with other weights."""
        path = self.root / "crash.ckpt"
        crashed = self.fit(StopAt(STOP_AT, path))[2]
        assert crashed.global_step == STOP_AT
        assert STOP_AT % crashed.num_training_batches
        model, data, trainer, _ = self.fit(seed=77, ckpt=path)
        trainer.test(model, data, verbose=False)
        return {"weights sha256": weights(model), "logged": trainer.logger.numbers}


def predictions(path: Path) -> dict[str, Any]:
    """What a file of recommendations says."""
    table = pl.read_parquet(path)
    return {
        "session_id": table["session_id"].to_list(),
        "item_ids": [" ".join(row) for row in table["item_ids"].to_list()],
        "scores": [[hex_of(score) for score in row] for row in table["scores"].to_list()],
        "titles sha256": sha256(str(table["titles"].to_list())),
    }


def machine() -> dict[str, str]:
    """What bits may depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "model\t"))]
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "processor": ", ".join(sorted(set(models))) or platform.processor(),
    }


def main(out: Path) -> None:
    """Run everything and write it to `out`, one line for each thing that is kept."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        folder, store = write_data(root / "shop"), root / "views"
        found: dict[str, Any] = {"machine": machine(), "views": infer(folder, store)}
        found["runs"], found["resumed"], found["again"] = {}, {}, {}
        for number, name in enumerate(RUNS):
            run = GoldenRun(name, folder, store, root / str(number))
            run.root.mkdir()
            found["runs"][name] = run.whole()
            found["resumed"][name] = run.resumed()
            if name in AGAIN:
                found["again"][name] = run.whole()
        found["command line"] = command_line(folder, store, root, RUNS, predictions)
    out.write_text(dump(found), encoding="utf-8")


def dump(found: dict[str, Any]) -> str:
    """JSON with the third level on one line each."""

    def level(value: Any, depth: int) -> str:
        if depth == 0 or not isinstance(value, dict):
            return json.dumps(value, sort_keys=True)
        pad = " " * (4 - depth)
        inner = ",\n".join(f"{pad}{json.dumps(key)}: {level(value[key], depth - 1)}" for key in sorted(value))
        return "{\n" + inner + "\n" + pad[1:] + "}"

    return level(found, 3) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
