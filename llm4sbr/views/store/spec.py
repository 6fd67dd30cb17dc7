"""Specifications of answers and views: frozen records, each with a fingerprint.

A fingerprint covers everything that can change the result and nothing else: it leaves out labels (a model's
name) and settings of speed (batch size, device). Every row of the store belongs to one of these fingerprints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.views.identity import EngineIdentity, ModelIdentity, digest
from llm4sbr.views.prompts import PROMPT_VERSION, PromptOptions, build_prompt
from llm4sbr.views.templates import ViewTemplate

ViewSource = Literal["llm", "titles"]
LOCALISATION_VERSION = 2  # increment it when a change to `localize` alters its ids or weights


@dataclass(frozen=True)
class AnswerSpec:
    """Everything besides the session that decides the LLM's answer for one view (Eq. 1, arXiv:2402.13840).

    A specification covers one view only, so adding a third view keeps the answers of the first two valid.

    Args:
        view: Name of the view.
        template: Text of the view's prompt template.
        engine: Identity of the LLM and its decoding.
        max_items: Maximum number of latest clicks in a prompt.
        max_title_chars: Maximum length of a title in characters; longer titles are cut.
        prompt_version: Version of the code that turns a session into a prompt.
    """

    view: str
    template: str
    engine: EngineIdentity
    max_items: int
    max_title_chars: int
    prompt_version: int

    @classmethod
    def of(cls, template: ViewTemplate, prompts: PromptOptions, engine: EngineIdentity) -> AnswerSpec:
        """Create the specification of an engine's answers for one view template."""
        return cls(
            view=template.name,
            template=template.template,
            engine=engine,
            max_items=template.max_items or prompts.max_items,
            max_title_chars=prompts.max_title_chars,
            prompt_version=PROMPT_VERSION,
        )

    def prompt(self, prefix: Sequence[int], catalogue: Catalogue) -> str:
        """Return the prompt for one session prefix.

        Args:
            prefix: Clicked items 1..V, oldest first.
            catalogue: Catalogue with the titles.
        """
        template = ViewTemplate(self.view, self.template, self.max_items)
        return build_prompt(
            template, prefix, catalogue, PromptOptions((template,), self.max_items, self.max_title_chars)
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest that changes with every field except labels."""
        return digest(
            {
                "view": self.view,
                "template": self.template,
                **self.engine.key(),
                "max_items": self.max_items,
                "max_title_chars": self.max_title_chars,
                "prompt_version": self.prompt_version,
            }
        )

    def to_json(self) -> str:
        """Convert to JSON, including labels."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> AnswerSpec:
        """Parse the output of `to_json`."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> AnswerSpec:
        """Create from nested dictionaries."""
        engine = raw["engine"]
        adapter = engine["adapter"]
        identity = EngineIdentity(
            model=ModelIdentity(**engine["model"]),
            decoding=engine["decoding"],
            chat_template=engine["chat_template"],
            adapter=ModelIdentity(**adapter) if adapter else None,
        )
        return cls(**{**raw, "engine": identity})


@dataclass(frozen=True)
class ViewSpec:
    """Everything besides the session that decides its localised views (Eq. 2-5, arXiv:2402.13840).

    Args:
        source: Source of the views: ``llm``, or ``titles`` for the baseline without an LLM.
        views: Names of the ``K`` views, in the order of ``SessionBatch.views``.
        answers: One `AnswerSpec` per view; empty for ``titles``.
        encoder: Identity of the text encoder.
        catalogue: Fingerprint of the catalogue that provides the titles for localisation.
        r: Number of titles per view; 0 keeps the embedding of the answer itself.
        version: Version of the localisation code.
    """

    source: ViewSource
    views: tuple[str, ...]
    answers: tuple[AnswerSpec, ...]
    encoder: ModelIdentity
    catalogue: str
    r: int
    version: int = LOCALISATION_VERSION

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest that changes with every field except labels."""
        return digest(
            {
                "source": self.source,
                "views": list(self.views),
                "answers": [answer.fingerprint for answer in self.answers],
                "encoder": self.encoder.key(),
                "catalogue": self.catalogue,
                "r": self.r,
                "version": self.version,
            }
        )

    @property
    def title_table(self) -> str:
        """Fingerprint of the table of title embeddings, which depends on encoder and catalogue only."""
        return digest({"encoder": self.encoder.key(), "catalogue": self.catalogue})

    def describe(self) -> str:
        """Describe the views in one line for the user."""
        made: list[str] = [self.source]
        if self.answers:
            engine = self.answers[0].engine
            made = [f"llm {engine.model.name}{f' + {engine.adapter.name}' if engine.adapter else ''}"]
            if "choices" in engine.decoding:
                made.append("constrained to the catalogue")
            if "num_answers" in engine.decoding:
                made.append(f"{engine.decoding['num_answers']} answers")
        return f"{self.fingerprint[:12]} ({', '.join(made)}, encoder {self.encoder.name}, r={self.r})"

    def to_json(self) -> str:
        """Convert to JSON, including labels."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ViewSpec:
        """Parse the output of `to_json`."""
        raw: dict[str, Any] = json.loads(text)
        raw["views"] = tuple(raw["views"])
        raw["answers"] = tuple(AnswerSpec.from_dict(answer) for answer in raw["answers"])
        raw["encoder"] = ModelIdentity(**raw["encoder"])
        return cls(**raw)
