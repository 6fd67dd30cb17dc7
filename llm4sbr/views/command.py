"""The function behind ``llm4sbr views``."""

from __future__ import annotations

from typing import Literal, cast

from lightning.pytorch import LightningDataModule

from llm4sbr.errors import InputError
from llm4sbr.examples import SPLITS, ExampleSource, Split
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.engines.transformers_engine import Dtype, TransformersEngine
from llm4sbr.views.pipeline import infer_views
from llm4sbr.views.prompts import DEFAULT_TEMPLATES, load_templates
from llm4sbr.views.store import ViewStore
from llm4sbr.views.summary import ViewSummary


def views(
    data: LightningDataModule,
    out: str,
    source: Literal["llm", "titles"] = "llm",
    model: str = "SmolLM2-135M",
    encoder: str = "all-MiniLM-L6-v2",
    r: int = 5,
    limit: int | None = None,
    splits: list[Split] | None = None,
    batch_size: int = 64,
    max_new_tokens: int = 24,
    dtype: Dtype = "auto",
    device: str = "auto",
    templates: str | None = None,
    max_items: int = 20,
    max_title_chars: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> ViewSummary:
    """Infer each session's long- and short-term intent and store the localised views.

    Run it again to go on after a stop, or with a larger limit to cover more.

    Args:
        data: The data module whose sessions are asked about.
        out: Folder of the view store.
        source: ``llm`` asks a language model; ``titles`` is the baseline that asks nobody.
        model: Language model: a folder, a .gguf file, an installed weights package, or a hub name.
        encoder: Text encoder: a folder, an installed weights package, or a hub name.
        r: Titles per view; 0 keeps the answer's own embedding.
        limit: Ask about at most this many distinct sessions.
        splits: Whose sessions: train, validate, test, predict; all by default.
        batch_size: Prompts per forward pass.
        max_new_tokens: An answer is cut there.
        dtype: auto is bfloat16 on a GPU or a CPU with AMX, else float32; it is part of the answers' key.
        device: auto takes a GPU where there is one.
        templates: YAML or JSON file of view templates.
        max_items: The latest this many clicks are shown.
        max_title_chars: Longer titles are cut in prompts.
        seed: Of the order in which sessions are asked about.
        progress: Show a bar.
    """
    if not hasattr(data, "examples"):
        raise InputError("this data module gives no examples", value=type(data).__name__)
    data.prepare_data()
    asked = DEFAULT_TEMPLATES if templates is None else load_templates(templates)
    with ViewStore(out) as store:
        store.lock()
        engine = (
            TransformersEngine(model, max_new_tokens, batch_size, dtype, device) if source == "llm" else None
        )
        summary = infer_views(
            cast(ExampleSource, data),
            store,
            encoder=SentenceEncoder(encoder, device=device),
            engine=engine,
            view_source=source,
            templates=asked,
            r=r,
            limit=limit,
            splits=splits or SPLITS,
            seed=seed,
            max_items=max_items,
            max_title_chars=max_title_chars,
            progress=progress,
        )
    print(summary)
    return summary
