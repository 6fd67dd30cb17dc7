"""Views constrained to the catalogue, without the encoder: each answer is a title with a known embedding.

The weights of the encoder have 91 MB; the table of title embeddings that these views need has 19 MB.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import place  # noqa: F401  # finds `experiments`
import torch
from answers import read_answers
from lightning.pytorch import LightningDataModule
from torch import Tensor

from experiments.study.data import data_module
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.views import PromptOptions, Selection, TransformersEngine, ViewSummary, infer_views
from llm4sbr.views.identity import ModelIdentity
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.key_file import read_keys
from llm4sbr.views.store.reading import StoreReader
from llm4sbr.views.store.spec import ViewSpec

SESSIONS = "sessions.txt"  # in the folder of a share: the keys of its sessions
MAX_TITLE_CHARS = 60  # of prompts and answers, in tuning and in inference
PROMPTS = PromptOptions(max_title_chars=MAX_TITLE_CHARS)
ALL_SESSIONS = Selection()


class Setting(NamedTuple):
    """Model and options of the inference."""

    model: str
    adapter: str | None = None
    num_answers: int = 5
    batch: int = 512  # prompts of one call
    batch_tokens: int | None = None
    device: str = "cuda"

    def engine(self, catalogue: Catalogue) -> TransformersEngine:
        """Return the language model, constrained to the catalogue."""
        return TransformersEngine(
            self.model,
            self.adapter,
            choices=PROMPTS.titles(catalogue),
            num_answers=self.num_answers,
            batch_size=self.batch,
            batch_tokens=self.batch_tokens,
            device=self.device,
        )


class KnownTitles:
    """Replacement of the encoder of a store's title views; it embeds titles of the catalogue only.

    Args:
        store: Folder with the title views.
        catalogue: Catalogue with the titles.
    """

    def __init__(self, store: Path, catalogue: Catalogue) -> None:
        reader = StoreReader(store)
        spec = next(one for one in reader.view_specs(catalogue.fingerprint) if one.source == "titles")
        self.titles, _ = reader.titles(spec)
        self.identity: ModelIdentity = spec.encoder
        self._row = {title: row for row, title in enumerate(catalogue.titles)}
        reader.close()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Look up the embeddings of titles; any other text is an error."""
        return self.titles[torch.tensor([self._row[text] for text in texts], dtype=torch.long)]


def prepare(
    store: Path, titles: Path, answers: Path | None = None, catalogue: Catalogue | None = None
) -> None:
    """Create a store with title views, and with the answers of another machine if there are any.

    Args:
        store: Folder of the store; an existing one stays as it is.
        titles: View store with the title views.
        answers: File that `write_answers` wrote there.
        catalogue: Catalogue of the answers.
    """
    if store.exists():
        return
    scratch = store.with_name(f".tmp-{store.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(titles, scratch)
    if answers is not None and catalogue is not None and answers.exists():
        with ViewStore(scratch) as opened:
            read_answers(answers, catalogue, opened)
    scratch.rename(store)


def infer(
    data: LightningDataModule,
    store: Path,
    titles: Path,
    setting: Setting,
    sessions: Selection = ALL_SESSIONS,
) -> tuple[ViewSummary, ViewSpec]:
    """Infer the views of sessions of a data module until all have them or SIGTERM arrives.

    Args:
        data: Prepared data module.
        store: Folder of the store; a new store starts with the title views.
        titles: Folder with the title views.
        setting: Model and options of the inference.
        sessions: Selection of the sessions.
    """
    prepare(store, titles)
    catalogue = data.catalogue
    engine = setting.engine(catalogue)
    with ViewStore(store) as opened:
        summary = infer_views(
            data,  # type: ignore[arg-type]
            opened,
            encoder=KnownTitles(titles, catalogue),
            engine=engine,
            prompts=PROMPTS,
            sessions=sessions,
            progress=False,
        )
        spec = next(one for one in opened.view_specs() if one.fingerprint == summary.spec)
    return summary, spec


def infer_share(data: str, data_dir: str, share: Path, titles: Path, setting: Setting) -> None:
    """Infer the views of one process: the sessions of its folder, into a store there."""
    mine = Selection(only=read_keys(share / SESSIONS))
    infer(data_module(data, data_dir), share / "store", titles, setting, mine)
