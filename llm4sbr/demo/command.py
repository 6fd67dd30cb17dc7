"""The whole road on MovieLens 100K: sessions, intents from a real LLM, two models, and a page about them."""

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
from llm4sbr.demo.intents import ask, pick_sample, pick_stories
from llm4sbr.demo.training import Steps, cpu_threads, train
from llm4sbr.report.page import duration, to_json, write_page
from llm4sbr.report.records import DataFacts, DemoReport, SplitFacts
from llm4sbr.report.sessions import tell_stories
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
        "batches. LLM views where known, else title views.",
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
    """Go the whole road on MovieLens 100K and write OUT/report.html.

    Run it again to reuse every answer of the LLM. The same options and seed on the same machine give the same
    numbers, as long as the LLM is done within its time.

    Args:
        out: Folder of everything that is written: report.html, results.json, views/, runs/, recommendations/.
        data_dir: Folder of the data; by default an installed recbole's copy, else it is downloaded.
        sessions: Distinct sessions that the LLM is asked about; all others get views from their titles. Its
            answers are titles of the catalogue.
        llm_seconds: No further batch is asked after this much time of asking.
        epochs: Training epochs of each model.
        stories: Test sessions shown in full.
        seed: Of the sample of sessions, of weights and of batches.
        max_length: Latest clicks of a session that the models read.
        max_items: Latest clicks of a session that the LLM reads.
        threads: CPU threads. One gives the same numbers on any number of cores and is not slowed by other
            work; more are faster on an idle machine.
        model: Language model: a folder, a .gguf file, an installed weights package, or a hub name.
        encoder: Text encoder: a folder, an installed weights package, or a hub name.

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
            steps.tell(f"{split.name}: {split.sessions:,} sessions, {split.examples:,} examples")

    outputs = replacing(root / "results.json", root / "report.html")
    with outputs, cpu_threads(threads), ViewStore(root / "views") as store:
        with steps(f"Stage 1: {model} infers intents of {sessions} sessions"):
            shown = pick_stories(data, stories, seed, _STORY_CLICKS)
            prompts = PromptOptions(max_items=max_items)
            choices = prompts.titles(data.catalogue)  # a free answer of a small model echoes the prompt
            spec, intents = ask(
                data,
                store,
                [*shown, *pick_sample(data, sessions, seed, _EVALUATED)],
                limit=sessions,
                first=len(shown),
                engine=TransformersEngine(model, batch_size=32, choices=choices),
                encoder=SentenceEncoder(encoder),
                seconds=llm_seconds,
                prompts=prompts,
                tell=steps.tell,
            )
        store.close()  # training only reads

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
            told = tell_stories(data, shown, trained, store, spec)
            report = DemoReport(
                title="LLM4SBR on MovieLens 100K",
                data=facts,
                intents=intents,
                runs=tuple(runs),
                stories=told,
                story_choice=(
                    f"The sessions were drawn with seed {seed} among test examples of {_STORY_CLICKS[0]} to "
                    f"{_STORY_CLICKS[1]} clicks, before any model was trained."
                ),
                timings=tuple(steps.timings),
                versions={package: version(package) for package in _VERSIONS},
                command=_command(options),
                date=datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
            )
            results = json.dumps(to_json(report), indent=1, ensure_ascii=False)
            write_text(root / "results.json", results + "\n")
            page = write_page(report, root / "report.html")
    steps.tell(f"Done in {duration(sum(seconds for _, seconds in steps.timings))}. Open {page}")
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
        "Ten minutes without a rating end a session. Every prefix of a session is an example; its next click "
        f"is the target. Sessions are split by time, and the models read the latest {max_length} clicks."
    )
    return DataFacts("MovieLens 100K", source.catalogue.num_items, tuple(splits), note)


def _command(options: dict[str, Any]) -> str:
    """The command that makes this page again: every option that is not the default."""
    import inspect

    defaults = {name: parameter.default for name, parameter in inspect.signature(demo).parameters.items()}
    words = [
        word
        for name, value in options.items()
        if value is not None and value != defaults.get(name)
        for word in (f"--{name}", str(value))
    ]
    return shlex.join(["llm4sbr", "demo", *words])
