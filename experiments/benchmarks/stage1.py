r"""Stage 1 against one prompt at a time: time, tokens computed, equal answers; and what the catalogue costs.

    python experiments/benchmarks/stage1.py --data_dir ../shared/data/beauty \
        --json experiments/results/stage1.json

Prompts are those of every prefix of whole validation sessions, both views. Everything is run in turn, in one
process, as often as --repeats says; a figure is the median. Where an answer differs from the one-by-one
answer, the two best logits are looked at where the answers part: closer than --tie is a tie within rounding.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from results import keep, row

from llm4sbr.datamodules import AmazonBeauty
from llm4sbr.views.engines import Answer
from llm4sbr.views.engines.transformers_engine import TransformersEngine
from llm4sbr.views.inference.summary import normal_title
from llm4sbr.views.prompts import PromptOptions, build_prompt


def one_by_one(engine: TransformersEngine, prompts: list[str]) -> list[list[int]]:
    """Token ids of each greedy answer through `generate`, with its stop token if it has one."""
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
    """The engine's answers in order."""
    found = {place: answer for replies in engine.generate(prompts) for place, answer in replies}
    return [found[place] for place in range(len(prompts))]


@torch.inference_mode()
def gap(engine: TransformersEngine, prompt: str, alone: list[int], other: str) -> float:
    """How far apart the two best logits are where the one-by-one answer parts from another."""
    (theirs,) = engine.lm.plain([other])
    same = next((at for at, (a, b) in enumerate(zip(alone, theirs, strict=False)) if a != b), len(theirs))
    ids = torch.tensor([engine.lm.encode([prompt])[0] + alone[:same]], device=engine.lm.model.device)
    best = engine.lm.model(ids, logits_to_keep=1).logits[0, -1].float().topk(2).values
    return float(best[0] - best[1])


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="folder of the Beauty data")
    parser.add_argument("--sessions", type=int, default=8, help="whole validation sessions")
    parser.add_argument("--prefixes", type=int, help="at most so many prefixes of each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="SmolLM2-135M")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--templates", default="default")
    parser.add_argument("--max_new_tokens", type=int, default=24)
    parser.add_argument("--max_title_chars", type=int, default=100)
    parser.add_argument("--tie", type=float, default=1e-3, help="in logits")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    data = AmazonBeauty(args.data_dir)
    data.prepare_data()
    examples, catalogue = data.examples("validate"), data.catalogue
    step = max(1, int(examples.session.max()) // args.sessions)
    chosen = sorted(set(examples.session.tolist()))[::step][: args.sessions]
    prefixes = []
    for session in chosen:
        rows = [at for at in range(len(examples)) if examples.session[at] == session][: args.prefixes]
        prefixes += [examples.prefix(at) for at in rows]
    asked = PromptOptions(args.templates, max_title_chars=args.max_title_chars)
    prompts = [build_prompt(view, prefix, catalogue, asked) for prefix in prefixes for view in asked.views]
    titles = asked.titles(catalogue)
    options = {"model": args.model, "dtype": args.dtype, "max_new_tokens": args.max_new_tokens}
    free = TransformersEngine(**options)
    held = TransformersEngine(**options, choices=titles)
    beams = TransformersEngine(**options, choices=titles, num_answers=5)
    for engine in (held, beams):
        engine.lm = free.lm  # one copy of the weights
    together(free, prompts[:2])
    together(held, prompts[:2])  # loading and the trie are not what is measured
    together(beams, prompts[:2])

    seconds: dict[str, list[float]] = {"alone": [], "free": [], "held": [], "beams": []}
    for _ in range(args.repeats):
        spent, alone = timed(one_by_one, free, prompts)
        seconds["alone"].append(spent)
        for name, engine in (("free", free), ("held", held), ("beams", beams)):
            spent, answers = timed(together, engine, prompts)
            seconds[name].append(spent)
            if name == "free":
                shared = answers
            if name == "held":
                grounded = answers
    stop = free.lm.stop_ids
    texts = [
        free.lm.tokenizer.decode([token for token in ids if token not in stop], skip_special_tokens=True)
        for ids in alone
    ]
    different = [at for at, text in enumerate(texts) if text.strip() != shared[at].text]
    ties = [at for at in different if gap(free, prompts[at], alone[at], shared[at].text) <= args.tie]
    total = sum(answer.prompt_tokens for answer in shared)
    computed = sum(answer.computed_tokens for answer in shared)
    known = {normal_title(title) for title in titles}
    off = sum(normal_title(answer.text) not in known for answer in grounded)
    speed = [a / b for a, b in zip(seconds["alone"], seconds["free"], strict=True)]
    cost = [a / b for a, b in zip(seconds["held"], seconds["free"], strict=True)]
    wide = [a / b for a, b in zip(seconds["beams"], seconds["free"], strict=True)]
    note = f"{len(prompts)} prompts of {len(chosen)} sessions, {args.repeats} repeats, {args.dtype}"
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
                f"two best logits closer than {args.tie}",
            ),
            row("off-catalogue answers, held to the catalogue", off, "answers", 0, "lower", note),
            row("time held to the catalogue over free", statistics.median(cost), "ratio", 1.2, "lower", note),
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
        args.json,
        str(free.lm.model.device),
    )


if __name__ == "__main__":
    main()
