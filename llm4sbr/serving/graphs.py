"""Graphs of a bundle's model for other runtimes: `torch.export` and ONNX, checked against the eager model."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.scoring import Scoring, WrappedScoring
from llm4sbr.serving.recommender import Recommender

_TOLERANCE = 1e-4  # of a score, and relative, as for a bundle against its run
_SESSIONS = 5  # in the widest batch of the check
_LENGTH = 20  # clicks of its longest session where the model takes any number

Run = Callable[..., Tensor]


class ScoreGraph(nn.Module):
    """Scores of item numbers and views: the function that is exported.

    Args:
        model: Model of a bundle, in evaluation mode.

    Shapes:
        - item_ids: ``(B, L)`` long, right-padded with 0; items are 1..V
        - views: ``(B, K, d_t)``, view_mask: ``(B, K)`` bool, for a wrapped model; False where one is unknown
        - output: ``(B, V)``; column ``k - 1`` is item ``k``
    """

    def __init__(self, model: Scoring) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, item_ids: Tensor, views: Tensor | None = None, view_mask: Tensor | None = None
    ) -> Tensor:
        """Score the catalogue."""
        lengths = (item_ids > 0).sum(1)
        none = torch.zeros_like(lengths)
        scores: Tensor = self.model(SessionBatch(item_ids, lengths, none, none, views, view_mask))
        return scores

    def inputs(self) -> list[str]:
        """Names of the inputs."""
        wrapped = isinstance(self.model, WrappedScoring)
        return ["item_ids", "views", "view_mask"] if wrapped else ["item_ids"]


class Exported(NamedTuple):
    """A model as a graph."""

    program: ExportedProgram
    graph: ScoreGraph  # the eager function
    length: int | None  # the number of columns of `item_ids`; None for any number


def export_program(recommender: Recommender) -> Exported:
    """Export the model of a bundle with `torch.export`; the number of sessions is free.

    The number of clicks is free, too, unless a recurrent layer is unrolled; then it is the bundle's
    `max_length`, and shorter sessions are padded with 0.

    Args:
        recommender: Opened bundle, on the CPU.

    Raises:
        InputError: If the graph of the model depends on the data, which `torch.export` cannot follow.
    """
    try:
        return _first_that_works(recommender)
    finally:
        # torch makes a subclass of the same name of every module's class. Until it is collected, a parser
        # that finds classes by name finds two.
        gc.collect()


def _first_that_works(recommender: Recommender) -> Exported:
    """A graph of any number of clicks, or else of the bundle's `max_length`."""
    graph = ScoreGraph(recommender.model).eval()
    given = _examples(recommender, graph, None)[-1]
    try:
        return Exported(_exported(graph, given, free_length=True), graph, None)
    except Exception as error:  # torch raises many kinds, and backbones their own
        reason = _reason(error)  # the error itself would keep torch's classes alive
    longest = recommender.max_length
    if longest is not None:
        with contextlib.suppress(Exception):
            given = _examples(recommender, graph, longest)[-1]
            return Exported(_exported(graph, given, free_length=False), graph, longest)
    name = type(recommender.model.backbone).__name__
    raise InputError(
        f"{name} cannot be exported as a graph: {reason}",
        hint="`llm4sbr serve` and `Recommender` run every backbone",
    )


def check_graph(exported: Exported, recommender: Recommender, run: Run) -> float:
    """Compare a graph with the eager model on batches of one click, of the longest session and of both.

    Args:
        exported: Output of `export_program`.
        recommender: The same bundle.
        run: Runs the graph in its own runtime, with the inputs of `ScoreGraph.forward`.

    Returns:
        The largest difference of a score.

    Raises:
        InputError: If a score differs by more than float rounding.
    """
    largest = 0.0
    for given in _examples(recommender, exported.graph, exported.length):
        with torch.inference_mode():
            expected = exported.graph(*given)
        found = run(*given)
        if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise InputError("the graph would score differently than the model, so it is not written")
        same = found == expected  # masked scores are -inf in both
        largest = max(largest, float((found - expected).masked_fill(same, 0).abs().max()))
    return largest


def save_program(exported: Exported, recommender: Recommender, path: Path) -> float:
    """Write the program of `torch.export`, read it back and check it; returns the largest difference."""
    with _quiet():
        torch.export.save(exported.program, path)
        loaded = torch.export.load(path).module()
    return check_graph(exported, recommender, loaded)


def save_onnx(exported: Exported, recommender: Recommender, path: Path) -> float:
    """Write an ONNX model and check it in ONNX Runtime; returns the largest difference.

    Raises:
        InputError: If a package of the extra ``onnx`` is missing, ONNX lacks an operator of the model, or a
            score differs.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed", hint='Install it with `pip install "llm4sbr[onnx]"`'
        ) from error
    names = exported.graph.inputs()
    try:
        with _quiet():
            made = torch.onnx.export(
                exported.program, dynamo=True, input_names=names, output_names=["scores"], verbose=False
            )
            assert made is not None
            made.save(path)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxscript and onnxruntime have many kinds
        name = type(recommender.model.backbone).__name__
        raise InputError(f"{name} cannot be exported to ONNX: {_reason(error)}") from error

    def run(*given: Tensor) -> Tensor:
        arrays = {name: one.numpy() for name, one in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, arrays)[0])

    return check_graph(exported, recommender, run)


def _exported(graph: ScoreGraph, given: tuple[Tensor, ...], *, free_length: bool) -> ExportedProgram:
    sessions = Dim.DYNAMIC
    clicks = {0: sessions, 1: Dim.DYNAMIC} if free_length else {0: sessions}
    shapes = (clicks, *({0: sessions} for _ in given[1:]))
    with _quiet():
        return torch.export.export(graph, given, dynamic_shapes=shapes)


def _examples(recommender: Recommender, graph: ScoreGraph, length: int | None) -> list[tuple[Tensor, ...]]:
    """Inputs of ever larger batches: one click, one longest session, sessions of mixed lengths."""
    draw = torch.Generator().manual_seed(0)
    longest = recommender.max_length or _LENGTH
    counts = [1, longest, 2, max(1, longest // 2), longest][:_SESSIONS]
    sessions = [
        torch.randint(1, recommender.catalogue.num_items + 1, (count,), generator=draw).tolist()
        for count in counts
    ]
    made = []
    for part in ([sessions[0]], [sessions[1]], sessions):
        item_ids = recommender.batch(part, views=False)[0].item_ids
        if length is not None:
            item_ids = nn.functional.pad(item_ids, (0, length - item_ids.size(1)))
        views: tuple[Tensor, ...] = ()
        if isinstance(graph.model, WrappedScoring):
            kinds = len(graph.model.interest_of_view)
            drawn = torch.randn(len(part), kinds, graph.model.text_dim, generator=draw)
            known = torch.rand(len(part), kinds, generator=draw) < 0.5
            views = (nn.functional.normalize(drawn, dim=-1) * known.unsqueeze(-1), known)
        made.append((item_ids, *views))
    return made


def _reason(error: BaseException) -> str:
    """Say in one line why a graph could not be made."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    if "DataDependent" in kind:
        place = re.search(r"Caused by: \(\S*?(\w+\.py):\d+ in", text)
        where = f" in {place[1]}" if place else ""
        return f"sizes are computed from the clicks{where}, which torch.export cannot follow"
    if "specialized it to be a constant" in text:
        return "it computes with a fixed number of sessions or clicks"
    cause = error.__cause__
    if cause is not None and kind == "ConversionError":
        return _reason(cause)
    return f"{kind}: {text[:160]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporters print and warn; an error says what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
