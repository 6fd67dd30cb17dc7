"""The function behind ``llm4sbr demo``: both stages on MovieLens 100K, and a page about them."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback

from llm4sbr.callbacks import ViewCache
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import ExampleSource, Split
from llm4sbr.contracts.files import write_text
from llm4sbr.contracts.outputs import replacing
from llm4sbr.contracts.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, check_arguments
from llm4sbr.contracts.registry import BACKBONES, DATAMODULES, load_plugins
from llm4sbr.demo.intents import infer_within, pick_sample, pick_stories
from llm4sbr.demo.training import Steps, cpu_threads, train
from llm4sbr.report.page import duration, to_json, write_page
from llm4sbr.report.records import DataFacts, DemoReport, SplitFacts
from llm4sbr.report.sessions import session_stories
from llm4sbr.training.sbr_module import SBRModule
from llm4sbr.training.wrapper import LLM4SBRWrapper
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.engines.transformers_engine import TransformersEngine
from llm4sbr.views.prompts import PromptOptions
from llm4sbr.views.store import ViewStore

MODELS = (
    ("SR-GNN", "bare", "SBRModule(SRGNN(num_items)), with the package's defaults."),
    (
        "SR-GNN + LLM4SBR",
        "wrapped",
        "LLM4SBRWrapper(SRGNN(num_items)), with the package's defaults: the same recipe, seed, epochs and "
        "batches. It reads LLM views where they exist, and title views elsewhere.",
    ),
)
_STORY_CLICKS = (4, 10)
_EVALUATED: tuple[Split, ...] = ("train", "validate", "test")
_VERSIONS = ("llm4sbr", "torch", "lightning", "torch-geometric", "transformers", "sentence-transformers")


def demo(
    out: str = "demo",
    data_dir: str | None = None,
    sessions: PositiveInt = 200,
    llm_seconds: NonNegativeFloat = 90.0,
    epochs: PositiveInt = 6,
    stories: NonNegativeInt = 5,
    seed: NonNegativeInt = 0,
    max_length: PositiveInt = 20,
    max_items: PositiveInt = 10,
    threads: PositiveInt = 1,
    model: str = "SmolLM2-135M",
    encoder: str = "all-MiniLM-L6-v2",
) -> Path:
    """Run both stages on MovieLens 100K, compare a bare and a wrapped model, and write OUT/report.html.

    A second run reuses every answer of the LLM. The same options and seed on the same machine give the same
    numbers, provided that the LLM finishes within its time limit.

    Args:
        out: Folder of all output: report.html, results.json, views/, runs/, recommendations/.
        data_dir: Folder of the data; by default the copy of an installed recbole, otherwise a download.
        sessions: Number of distinct sessions for which the LLM infers intents, constrained to titles of the
            catalogue; all other sessions get views of their own titles.
        llm_seconds: Time limit of the LLM, in seconds; no batch of prompts starts after it.
        epochs: Number of training epochs of each model.
        stories: Number of test sessions that the page shows in full.
        seed: Seed of the sample of sessions, of the weights and of the batches.
        max_length: Number of latest clicks of a session that the models read.
        max_items: Number of latest clicks of a session that the LLM reads.
        threads: Number of CPU threads. One thread gives the same numbers on any number of cores and is not
            slowed by other work; more threads are faster on an idle machine.
        model: Language model: a folder, a .gguf file, an installed weights package or a hub name.
        encoder: Text encoder: a folder, an installed weights package or a hub name.

    Returns:
        Path of the page.
    """
    options = dict(locals())
    check_arguments(demo, options)
    root = Path(out)
    if root.exists() and not root.is_dir():
        raise InputError("out is a file, not a folder", path=root)
    steps = Steps(5)

    with steps("Data: sessions of MovieLens 100K"):
        data = _plugin(DATAMODULES, "MovieLens100K")(data_dir=data_dir, max_length=max_length, bucket=50)
        facts = _data_facts(data, max_length)
        for split in facts.splits:
            steps.print(f"{split.name}: {split.sessions:,} sessions, {split.examples:,} examples")

    outputs = replacing(root / "results.json", root / "report.html")
    with outputs, cpu_threads(threads), ViewStore(root / "views") as store:
        with steps(f"Stage 1: {model} infers the intents of {sessions} sessions"):
            shown = pick_stories(data, stories, seed, _STORY_CLICKS)
            prompts = PromptOptions(max_items=max_items)
            choices = prompts.titles(data.catalogue)  # unconstrained, a small model echoes its prompt
            spec, intents = infer_within(
                data,
                store,
                [*shown, *pick_sample(data, sessions, seed, _EVALUATED)],
                limit=sessions,
                first=len(shown),
                engine=TransformersEngine(model, batch_size=32, choices=choices),
                encoder=SentenceEncoder(encoder),
                seconds=llm_seconds,
                prompts=prompts,
                log=steps.print,
            )
        store.close()  # training only reads the views

        trained: dict[str, SBRModule] = {}
        runs = []
        for name, folder, note in MODELS:
            with steps(f"Stage 2: {name}, {epochs} epochs"):
                seed_everything(seed, verbose=False)
                backbone = _plugin(BACKBONES, "SRGNN")(data.num_items)
                cache: list[Callback] = []
                if folder == "wrapped":
                    trained[name] = LLM4SBRWrapper(backbone)
                    cache = [ViewCache(str(store.path), spec=spec.fingerprint, fallback="titles")]
                else:
                    trained[name] = SBRModule(backbone)
                runs.append(train(trained[name], data, root, folder, name, note, epochs, cache, steps))

        with steps("Report"):
            report = DemoReport(
                title="LLM4SBR on MovieLens 100K",
                data=facts,
                intents=intents,
                runs=tuple(runs),
                stories=session_stories(data, shown, trained, store, spec),
                story_choice=(
                    f"The sessions were drawn at random (seed {seed}), before training, from test examples "
                    f"of {_STORY_CLICKS[0]} to {_STORY_CLICKS[1]} clicks."
                ),
                timings=tuple(steps.timings),
                versions={package: version(package) for package in _VERSIONS},
                command=_command(options),
                date=datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
            )
            results = json.dumps(to_json(report), indent=1, ensure_ascii=False)
            write_text(root / "results.json", results + "\n")
            page = write_page(report, root / "report.html")
    steps.print(
        f"Done in {duration(sum(seconds for _, seconds in steps.timings))}. Open {page} in a browser."
    )
    return page


def _plugin(group: str, name: str) -> Any:
    try:
        return load_plugins(group)[name]
    except KeyError:
        raise InputError(f"the plug-in {name!r} is not installed", hint="Reinstall llm4sbr") from None


def _data_facts(data: Any, max_length: int) -> DataFacts:
    source: ExampleSource = data
    splits = []
    for split in _EVALUATED:
        examples = source.examples(split)
        splits.append(SplitFacts(split, len(examples.session_ids), len(examples.clicks), len(examples)))
    note = (
        "A session ends after ten minutes without a rating. Every prefix of a session is an example, and the "
        f"click after it is the target. Sessions are split by time. The models read the latest {max_length} "
        "clicks of a session."
    )
    return DataFacts("MovieLens 100K", source.catalogue.num_items, tuple(splits), note)


def _command(options: dict[str, Any]) -> str:
    """Return the command that makes this page again, with the options that differ from the defaults."""
    import inspect

    defaults = {name: parameter.default for name, parameter in inspect.signature(demo).parameters.items()}
    words = [
        word
        for name, value in options.items()
        if value is not None and value != defaults.get(name)
        for word in (f"--{name}", str(value))
    ]
    return shlex.join(["llm4sbr", "demo", *words])
