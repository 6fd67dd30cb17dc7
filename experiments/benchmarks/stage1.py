"""Stage 1 against one prompt at a time: time, computed tokens, equal answers, cost of catalogue answers."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.results import keep, row
from llm4sbr.datamodules import AmazonBeauty
from llm4sbr.views.engines import Answer
from llm4sbr.views.engines.transformers_engine import TransformersEngine
from llm4sbr.views.inference.summary import normal_title
from llm4sbr.views.prompts import PromptOptions, build_prompt


def one_by_one(engine: TransformersEngine, prompts: list[str]) -> list[list[int]]:
    """Return the token ids of each greedy answer by `generate`, including the stop token if there is one."""
    found = []
    for prompt in prompts:
        ids = torch.tensor(engine.lm.encode([prompt]), device=engine.lm.model.device)
        output = engine.lm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=engine.max_new_tokens,
            do_sample=False,
            pad_token_id=engine.lm.tokenizer.eos_token_id,
        )
        found.append(output[0, ids.size(1) :].tolist())
    return found


def together(engine: TransformersEngine, prompts: list[str]) -> list[Answer]:
    """Return the answers of the engine in the order of the prompts."""
    found = {place: answer for replies in engine.generate(prompts) for place, answer in replies}
    return [found[place] for place in range(len(prompts))]


@torch.inference_mode()
def gap(engine: TransformersEngine, prompt: str, alone: list[int], other: str) -> float:
    """Return the gap of the two best logits where the one-by-one answer first differs from another."""
    (theirs,) = engine.lm.plain([other])
    same = next((at for at, (a, b) in enumerate(zip(alone, theirs, strict=False)) if a != b), len(theirs))
    ids = torch.tensor([engine.lm.encode([prompt])[0] + alone[:same]], device=engine.lm.model.device)
    best = engine.lm.model(ids, logits_to_keep=1).logits[0, -1].float().topk(2).values
    return float(best[0] - best[1])


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


def stage1(
    data_dir: str,
    sessions: int = 8,
    prefixes: int | None = None,
    repeats: int = 3,
    model: str = "SmolLM2-135M",
    dtype: str = "float32",
    templates: str = "default",
    max_new_tokens: int = 24,
    max_title_chars: int = 100,
    tie: float = 1e-3,
    json: Path | None = None,
) -> None:
    """Measure stage 1 against one prompt at a time, and the cost of restricting answers to the catalogue.

    The prompts are those of every prefix of whole validation sessions, for both views. All variants run in
    turn, in one process; times are medians. If an answer differs from the one-by-one answer, the two best
    logits at the first difference are compared.

    Example::

        python -m experiments benchmarks stage1 --data_dir ../shared/data/beauty
            --json experiments/results/stage1.json

    Args:
        data_dir: Folder of the Beauty data.
        sessions: Number of whole validation sessions.
        prefixes: Largest number of prefixes per session.
        repeats: Number of timed runs.
        model: Language model: a local path, an installed weights package, or a hub name.
        dtype: Data type of the weights.
        templates: Name of the prompt templates.
        max_new_tokens: Largest number of tokens of an answer.
        max_title_chars: Largest number of characters of a title in a prompt.
        tie: Largest gap of two logits that counts as a tie within rounding.
        json: File for the results.
    """
    data = AmazonBeauty(data_dir)
    data.prepare_data()
    examples, catalogue = data.examples("validate"), data.catalogue
    step = max(1, int(examples.session.max()) // sessions)
    chosen = sorted(set(examples.session.tolist()))[::step][:sessions]
    chosen_prefixes = []
    for session in chosen:
        rows = [at for at in range(len(examples)) if examples.session[at] == session][:prefixes]
        chosen_prefixes += [examples.prefix(at) for at in rows]
    shown = PromptOptions(templates, max_title_chars=max_title_chars)
    prompts = [
        build_prompt(view, prefix, catalogue, shown) for prefix in chosen_prefixes for view in shown.views
    ]
    titles = shown.titles(catalogue)
    options = {"model": model, "dtype": dtype, "max_new_tokens": max_new_tokens}
    free = TransformersEngine(**options)
    constrained = TransformersEngine(**options, choices=titles)
    beams = TransformersEngine(**options, choices=titles, num_answers=5)
    for engine in (constrained, beams):
        engine.lm = free.lm  # one copy of the weights
    together(free, prompts[:2])
    together(constrained, prompts[:2])  # warm-up: loading and building the trie are not measured
    together(beams, prompts[:2])

    seconds: dict[str, list[float]] = {"alone": [], "free": [], "constrained": [], "beams": []}
    for _ in range(repeats):
        spent, alone = timed(one_by_one, free, prompts)
        seconds["alone"].append(spent)
        for name, engine in (("free", free), ("constrained", constrained), ("beams", beams)):
            spent, answers = timed(together, engine, prompts)
            seconds[name].append(spent)
            if name == "free":
                shared = answers
            if name == "constrained":
                grounded = answers
    stop = free.lm.stop_ids
    texts = [
        free.lm.tokenizer.decode([token for token in ids if token not in stop], skip_special_tokens=True)
        for ids in alone
    ]
    different = [at for at, text in enumerate(texts) if text.strip() != shared[at].text]
    ties = [at for at in different if gap(free, prompts[at], alone[at], shared[at].text) <= tie]
    total = sum(answer.prompt_tokens for answer in shared)
    computed = sum(answer.computed_tokens for answer in shared)
    known = {normal_title(title) for title in titles}
    off = sum(normal_title(answer.text) not in known for answer in grounded)
    speed = [a / b for a, b in zip(seconds["alone"], seconds["free"], strict=True)]
    cost = [a / b for a, b in zip(seconds["constrained"], seconds["free"], strict=True)]
    wide = [a / b for a, b in zip(seconds["beams"], seconds["free"], strict=True)]
    note = f"{len(prompts)} prompts of {len(chosen)} sessions, {repeats} repeats, {dtype}"
    keep(
        "stage1",
        [
            row("sessions/s over one prompt at a time", statistics.median(speed), "ratio", 5, "higher", note),
            row("prompt tokens computed", computed / total, "share", 1 / 3, "lower", f"of {total}"),
            row("answers that differ from one by one", len(different), "answers", None, "lower", note),
            row(
                "of those, not a tie within rounding",
                len(different) - len(ties),
                "answers",
                0,
                "lower",
                f"two best logits closer than {tie}",
            ),
            row("off-catalogue answers, constrained to the catalogue", off, "answers", 0, "lower", note),
            row(
                "time constrained to the catalogue over free",
                statistics.median(cost),
                "ratio",
                1.2,
                "lower",
                note,
            ),
            row(
                "time of 5 beams in the catalogue over free", statistics.median(wide), "ratio", None, "lower"
            ),
            row(
                "prompts/s, one at a time",
                len(prompts) / statistics.median(seconds["alone"]),
                "1/s",
                note="this machine only; only ratios compare",
            ),
        ],
        json,
        str(free.lm.model.device),
    )
