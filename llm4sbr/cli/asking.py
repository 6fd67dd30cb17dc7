"""What `infer` and `estimate` of ``llm4sbr views`` share: sessions, prompts, language model, encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from lightning.pytorch import LightningDataModule

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, ExampleSource, Split
from llm4sbr.runs.budget import how_many, sessions_within
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.engines import Engine
from llm4sbr.views.inference.options import Answers, Localisation, LocalModel, Server
from llm4sbr.views.inference.plan import Selection
from llm4sbr.views.prompts import DEFAULT_PROMPTS, PromptOptions
from llm4sbr.views.store import ViewStore


@dataclass(frozen=True)
class SessionOptions:
    """Which sessions the LLM is asked about, besides the limit.

    Args:
        splits: Whose sessions: train, validate, test, predict; all by default.
        budget: Ask only about the sessions of which a bare model is least certain: a count (5000), or a share
            of each split's distinct sessions (0.1). The rest are for `--views.fallback titles`.
        bare_run: Folder of that bare model's `llm4sbr fit` on the same data, or one of its checkpoints.
        seed: Seed of the order in which sessions are asked about.

    Raises:
        InputError: A budget without a run or a run without a budget, or the budget is out of range.
    """

    splits: list[Split] | None = None
    budget: int | float | None = None
    bare_run: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.budget is None) != (self.bare_run is None):
            raise InputError(
                "sessions.budget and sessions.bare_run go together", value=(self.budget, self.bare_run)
            )
        if self.budget is not None:
            how_many(self.budget, 0)

    def select(self, source: ExampleSource, limit: int | None, *, progress: bool) -> Selection:
        """Choose the sessions; with a budget the bare model ranks them.

        Args:
            source: The data module.
            limit: At most this many distinct sessions.
            progress: Show a bar, and say what was chosen.
        """
        splits = tuple(dict.fromkeys(self.splits or SPLITS))
        only = None
        if self.budget is not None and self.bare_run is not None:
            only = sessions_within(self.budget, self.bare_run, source, splits, progress=progress)
        return Selection(splits, limit, only, self.seed)


_SESSIONS, _LOCALISE, _LOCAL, _SERVER = SessionOptions(), Localisation(), LocalModel(), Server()


class Asking:
    """Sessions, prompts, a language model and an encoder: everything but the work itself.

    Args:
        data: The data module whose sessions are asked about.
        out: Folder of the view store.
        model: Language model: a folder, a .gguf file, an installed weights package, a hub name; or what the
            server calls it.
        answers: ``catalogue`` allows no answer but the catalogue's titles.
        limit: Ask about at most this many distinct sessions.
        sessions: Which sessions to ask about.
        prompts: What a prompt shows and asks.
        localise: How an answer becomes a view.
        local: How the model runs here.
        server: Servers to ask instead.

    Raises:
        InputError: The data module gives no examples, or the limit is negative.
    """

    def __init__(
        self,
        data: LightningDataModule,
        out: str,
        model: str = "SmolLM2-135M",
        answers: Answers = "free",
        limit: int | None = None,
        sessions: SessionOptions = _SESSIONS,
        prompts: PromptOptions = DEFAULT_PROMPTS,
        localise: Localisation = _LOCALISE,
        local: LocalModel = _LOCAL,
        server: Server = _SERVER,
    ) -> None:
        if not hasattr(data, "examples"):
            raise InputError("this data module gives no examples", value=type(data).__name__)
        if limit is not None and limit < 0:
            raise InputError("limit must not be negative", value=limit)
        data.prepare_data()
        self.source, self.store, self.model = cast(ExampleSource, data), ViewStore(out), model
        self.answers, self.limit, self.sessions = answers, limit, sessions
        self.prompts, self.localise, self.local, self.server = prompts, localise, local, server

    @property
    def device(self) -> str:
        """Where the language model runs, as seen from here."""
        return "cpu" if self.server.base_url else self.local.device

    @property
    def max_new_tokens(self) -> int:
        """Length of the longest answer."""
        return self.server.max_new_tokens if self.server.base_url else self.local.max_new_tokens

    def engine(self) -> Engine:
        """The engine that answers the prompts."""
        choices = self.prompts.titles(self.source.catalogue) if self.answers == "catalogue" else None
        return (self.server if self.server.base_url else self.local).engine(self.model, choices)

    def encoder(self) -> SentenceEncoder:
        """The encoder that embeds answers and titles."""
        return self.localise.text_encoder(self.local.device)

    def select(self, *, progress: bool = False) -> Selection:
        """Choose the sessions."""
        return self.sessions.select(self.source, self.limit, progress=progress)
