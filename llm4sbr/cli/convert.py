"""``llm4sbr convert``: the model of a bundle as a graph for other runtimes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_folder, write_text
from llm4sbr.runs.record import versions
from llm4sbr.runs.trainer_cli import say
from llm4sbr.serving.graphs import export_program, save_onnx, save_program
from llm4sbr.serving.manifest import CATALOGUE
from llm4sbr.serving.recommender import Recommender

INTERFACE = "interface.json"
_WRITERS = {"onnx": ("model.onnx", save_onnx), "torch": ("model.pt2", save_program)}


def convert(bundle: str, out: str = "graph", to: Literal["onnx", "torch"] = "onnx") -> None:
    """Write the model of a bundle as a graph, and check its scores in the graph's own runtime.

    The folder holds the graph, the catalogue, and ``interface.json`` with the inputs and the largest
    difference from the bundle's scores that the check found.

    Args:
        bundle: Bundle of `export`.
        out: New folder.
        to: ``onnx`` for ONNX Runtime and others, ``torch`` for `torch.export.load`.

    Raises:
        InputError: The bundle cannot be read, its backbone has no graph, or the folder is in use.
    """
    recommender = Recommender.load(bundle)
    if Path(out).is_dir() and any(Path(out).iterdir()):
        raise InputError(
            "this folder is not empty, so nothing is written", path=out, hint="Name another folder"
        )
    exported = export_program(recommender)
    name, save = _WRITERS[to]
    with atomic_folder(out, replace=True) as folder:
        difference = save(exported, recommender, folder / name)
        shutil.copyfile(Path(bundle) / CATALOGUE, folder / CATALOGUE)
        manifest = recommender.manifest
        about = {
            "model": type(recommender.model.backbone).__name__,
            "inputs": exported.graph.inputs(),
            "output": "scores (sessions, items); column k - 1 is row k of the catalogue",
            "item_ids": "numbers of the clicks, oldest first, 1 for the catalogue's first row; 0 pads",
            "length": exported.length,
            "max_length": recommender.max_length,
            "bundle": None if manifest is None else manifest.sha256,
            "largest_difference": difference,
            "versions": versions(("llm4sbr", "torch", *(("onnx", "onnxruntime") if to == "onnx" else ()))),
        }
        write_text(folder / INTERFACE, json.dumps(about, indent=2) + "\n")
    clicks = "any number of clicks" if exported.length is None else f"{exported.length} clicks, padded with 0"
    say(f"{out}/{name}: any number of sessions of {clicks}; scores differ by at most {difference:.1e}")
