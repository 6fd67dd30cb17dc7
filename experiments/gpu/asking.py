"""Views held to the catalogue without the sentence encoder: each answer is a title with a known embedding.

The encoder's weights have 91 MB; the table of title embeddings, of which these views are made, has 19 MB.
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

SESSIONS = "sessions.txt"  # in a share's folder: whose views it makes
MAX_TITLE_CHARS = 60  # of prompts and answers, in tuning and in asking alike
PROMPTS = PromptOptions(max_title_chars=MAX_TITLE_CHARS)
ALL_SESSIONS = Selection()


class Setting(NamedTuple):
    """What asks."""

    model: str
    adapter: str | None = None
    num_answers: int = 5
    batch: int = 512  # prompts of one call
    batch_tokens: int | None = None
    device: str = "cuda"

    def engine(self, catalogue: Catalogue) -> TransformersEngine:
        """The language model, held to the catalogue."""
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
    """Stands for the encoder that made a store's title views; it can embed the catalogue's titles alone.

    Args:
        store: Folder with the title views.
        catalogue: Whose titles they are.
    """

    def __init__(self, store: Path, catalogue: Catalogue) -> None:
        reader = StoreReader(store)
        spec = next(one for one in reader.view_specs(catalogue.fingerprint) if one.source == "titles")
        self.titles, _ = reader.titles(spec)
        self.identity: ModelIdentity = spec.encoder
        self._row = {title: row for row, title in enumerate(catalogue.titles)}
        reader.close()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Look the titles up; any other text is an error."""
        return self.titles[torch.tensor([self._row[text] for text in texts], dtype=torch.long)]


def prepare(
    store: Path, titles: Path, answers: Path | None = None, catalogue: Catalogue | None = None
) -> None:
    """Begin a store with title views, and with the answers of another machine where there are any.

    Args:
        store: Its folder; one that is there stays as it is.
        titles: View store with the title views.
        answers: What `write_answers` wrote there.
        catalogue: Whose titles answered.
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


def ask(
    data: LightningDataModule,
    store: Path,
    titles: Path,
    setting: Setting,
    sessions: Selection = ALL_SESSIONS,
) -> tuple[ViewSummary, ViewSpec]:
    """Ask about sessions of a data module until all are answered, or SIGTERM comes.

    Args:
        data: The data module, prepared.
        store: Where answers and views go; it is begun with the title views.
        titles: Folder with the title views.
        setting: What asks.
        sessions: Which sessions.
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


def ask_share(data: str, data_dir: str, share: Path, titles: Path, setting: Setting) -> None:
    """What one of several processes asks: about the sessions of its folder, into a store there."""
    mine = Selection(only=read_keys(share / SESSIONS))
    ask(data_module(data, data_dir), share / "store", titles, setting, mine)
