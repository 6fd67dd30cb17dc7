"""Sessions, prompts, language model and encoder of ``llm4sbr views infer``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from lightning.pytorch import LightningDataModule

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, ExampleSource, Split
from llm4sbr.contracts.ranges import NonNegativeInt, Ranged, Share, check_fields
from llm4sbr.runs.budget import how_many, sessions_within
from llm4sbr.views.encoder import SentenceEncoder
from llm4sbr.views.engines import Engine
from llm4sbr.views.inference.options import Answers, Localisation, LocalModel, Server
from llm4sbr.views.inference.plan import Selection
from llm4sbr.views.prompts import DEFAULT_PROMPTS, PromptOptions
from llm4sbr.views.store import ViewStore


@dataclass(frozen=True)
class SessionOptions:
    """Options that choose the sessions for the LLM.

    Args:
        limit: Largest number of distinct sessions to infer.
        splits: Splits of the sessions: train, validate, test, predict; all by default.
        budget: Number of sessions (5000), or share of each split's distinct sessions (0.1), whose
            intents the LLM infers: those for which a bare model is most uncertain.
            `--views.fallback titles` serves the rest.
        bare_run: Folder of the bare model's run of `llm4sbr fit` on the same data, or one of its checkpoints.
        seed: Seed of the order of the sessions.

    Raises:
        InputError: A budget comes without a run or a run without a budget, or the budget is out of range.
    """

    limit: NonNegativeInt | None = None
    splits: list[Split] | None = None
    budget: NonNegativeInt | Share | None = None
    bare_run: str | None = None
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.budget is None) != (self.bare_run is None):
            raise InputError(
                "sessions.budget and sessions.bare_run go together", value=(self.budget, self.bare_run)
            )
        if self.budget is not None:
            how_many(self.budget, 0)

    def select(self, source: ExampleSource, *, progress: bool) -> Selection:
        """Choose the sessions; with a budget, the bare model ranks them.

        Args:
            source: Data module.
            progress: Whether to show a progress bar and print the number of chosen sessions.
        """
        splits = tuple(dict.fromkeys(self.splits or SPLITS))
        only = None
        if self.budget is not None and self.bare_run is not None:
            only = sessions_within(self.budget, self.bare_run, source, splits, progress=progress)
        return Selection(splits, self.limit, only, self.seed)


_SESSIONS, _LOCALISE, _LOCAL, _SERVER = SessionOptions(), Localisation(), LocalModel(), Server()


class Interpreter(Ranged):
    """Prompts, language model and encoder of stage 1.

    Args:
        model: Language model: a folder, a .gguf file, an installed weights package, a hub name; or its name
            on the server.
        answers: ``catalogue`` constrains the answers to the titles of the catalogue.
        prompts: Options of the prompts.
        localise: Options of the localisation, which turns an answer into a view.
        local: Options of a language model on this machine.
        server: Options of servers that run the language model instead.
    """

    def __init__(
        self,
        model: str = "SmolLM2-135M",
        answers: Answers = "free",
        prompts: PromptOptions = DEFAULT_PROMPTS,
        localise: Localisation = _LOCALISE,
        local: LocalModel = _LOCAL,
        server: Server = _SERVER,
    ) -> None:
        self.model, self.answers = model, answers
        self.prompts, self.localise, self.local, self.server = prompts, localise, local, server

    @property
    def device(self) -> str:
        """Device of the language model; ``cpu`` if a server runs it."""
        return "cpu" if self.server.base_url else self.local.device

    @property
    def max_new_tokens(self) -> int:
        """Largest number of tokens of an answer."""
        return self.server.max_new_tokens if self.server.base_url else self.local.max_new_tokens

    def engine(self, catalogue: Catalogue) -> Engine:
        """Create the engine that answers the prompts about the items of a catalogue."""
        choices = self.prompts.titles(catalogue) if self.answers == "catalogue" else None
        return (self.server if self.server.base_url else self.local).engine(self.model, choices)

    def encoder(self) -> SentenceEncoder:
        """Create the encoder that embeds answers and titles."""
        return self.localise.text_encoder(self.local.device)


class Inference(Interpreter):
    """Sessions and store of a run of stage 1, with its prompts, language model and encoder.

    Args:
        data: Data module with the sessions.
        out: Folder of the view store.
        sessions: Options that choose the sessions.
        **options: Arguments of `Interpreter`.

    Raises:
        InputError: The data module gives no examples.
    """

    def __init__(
        self, data: LightningDataModule, out: str, sessions: SessionOptions = _SESSIONS, **options: Any
    ) -> None:
        if not hasattr(data, "examples"):
            raise InputError("this data module gives no examples", value=type(data).__name__)
        super().__init__(**options)
        data.prepare_data()
        self.source, self.store, self.sessions = cast(ExampleSource, data), ViewStore(out), sessions

    def select(self, *, progress: bool = False) -> Selection:
        """Choose the sessions; see `SessionOptions.select`."""
        return self.sessions.select(self.source, progress=progress)
