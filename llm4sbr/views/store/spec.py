"""What made an answer and what made a view, as frozen records with a fingerprint each.

A fingerprint covers everything that can change the result and nothing else: labels (a model's name) and
speed (batch size, device) are left out. The store files every row under one of these fingerprints.
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
LOCALISATION_VERSION = 2  # raise it when `localize` would give other ids or weights for the same input


@dataclass(frozen=True)
class AnswerSpec:
    """Everything besides the session that decides the LLM's answer for one view (Eq. 1, arXiv:2402.13840).

    One view, not all of them: adding a third view leaves the answers of the first two valid.

    Args:
        view: Name of the view.
        template: Text of its prompt template.
        engine: The LLM and its decoding.
        max_items: The latest this many clicks are shown.
        max_title_chars: Longer titles are cut.
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
        """What an engine's answer to one of some prompts' views follows from."""
        return cls(
            view=template.name,
            template=template.template,
            engine=engine,
            max_items=template.max_items or prompts.max_items,
            max_title_chars=prompts.max_title_chars,
            prompt_version=PROMPT_VERSION,
        )

    def prompt(self, prefix: Sequence[int], catalogue: Catalogue) -> str:
        """What is asked of one session prefix.

        Args:
            prefix: Clicked items 1..V, oldest first.
            catalogue: Where the titles are.
        """
        template = ViewTemplate(self.view, self.template, self.max_items)
        return build_prompt(
            template, prefix, catalogue, PromptOptions((template,), self.max_items, self.max_title_chars)
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest; changing any one field (labels aside) changes it."""
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
        """The record as JSON, labels included."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> AnswerSpec:
        """Read back what `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> AnswerSpec:
        """Build from plain dictionaries."""
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
        source: ``llm``, or ``titles`` for the baseline that asks no LLM.
        views: Names of the ``K`` views, in the order of ``SessionBatch.views``.
        answers: One `AnswerSpec` per view; empty for ``titles``.
        encoder: The text encoder.
        catalogue: Fingerprint of the catalogue whose titles are localised to.
        r: Titles per view; 0 keeps the answer's own embedding.
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
        """Hex digest; changing any one field (labels aside) changes it."""
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
        """Fingerprint of the table of title embeddings: encoder and catalogue, nothing else."""
        return digest({"encoder": self.encoder.key(), "catalogue": self.catalogue})

    def describe(self) -> str:
        """One line for people."""
        made: list[str] = [self.source]
        if self.answers:
            engine = self.answers[0].engine
            made = [f"llm {engine.model.name}{f' + {engine.adapter.name}' if engine.adapter else ''}"]
            if "choices" in engine.decoding:
                made.append("held to the catalogue")
            if "num_answers" in engine.decoding:
                made.append(f"{engine.decoding['num_answers']} answers")
        return f"{self.fingerprint[:12]} ({', '.join(made)}, encoder {self.encoder.name}, r={self.r})"

    def to_json(self) -> str:
        """The record as JSON, labels included."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ViewSpec:
        """Read back what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        raw["views"] = tuple(raw["views"])
        raw["answers"] = tuple(AnswerSpec.from_dict(answer) for answer in raw["answers"])
        raw["encoder"] = ModelIdentity(**raw["encoder"])
        return cls(**raw)
