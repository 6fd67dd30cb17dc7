"""The work of one process in a run of stage 1: query the LLM, then save answers and localised views."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.views.distinctness import warn_indistinct
from llm4sbr.views.encoder import TextEncoder
from llm4sbr.views.engines import Answer, Engine, Failure
from llm4sbr.views.inference.plan import ViewPlan
from llm4sbr.views.inference.sessions import batched
from llm4sbr.views.localization import localize, mix
from llm4sbr.views.prompts import sanitize_title
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.database import StoreError
from llm4sbr.views.store.reading import LocalisedRows, RunRecord, StoreReader
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec
from llm4sbr.views.store.store import AnswerRow

_SESSIONS_PER_ENCODING = 1024


class Batch(NamedTuple):
    """A group of outcomes, with one row for every session that waits for one of them."""

    answers: list[AnswerRow]
    failures: list[tuple[AnswerSpec, bytes, str]]
    generated: list[Answer]  # one for each prompt that the engine answered


class Run:
    """State that the steps of a run share.

    Args:
        known: Store with the results of earlier runs.
        store: Store that this process writes to: ``known`` itself, or a shard of it.
        plan: Views to infer, and their sessions.
        encoder: Encoder of answers and titles.
        engine: Engine that answers prompts.
    """

    def __init__(
        self, known: StoreReader, store: ViewStore, plan: ViewPlan, encoder: TextEncoder, engine: Engine
    ) -> None:
        store.lock()  # before any work, so that a second writer fails at once
        self.known, self.store, self.plan, self.spec = known, store, plan, plan.spec
        self.encoder, self.engine = encoder, engine
        spec, catalogue = plan.spec, plan.catalogue
        for answer_spec in spec.answers:
            store.add_spec(answer_spec)
        store.add_spec(spec)
        places = [known] if known is store else [known, store]  # a killed run may have left a shard
        self.answered = [{key for place in places for key, _ in place.answers(one)} for one in spec.answers]
        self.localised = {key for place in places for key in place.localised_keys(spec)}
        self.titles, self.title_mask = title_embeddings(known, spec, encoder, catalogue)
        engine_key = spec.answers[0].engine.key()
        self._same_engine = {
            one.fingerprint for one in known.answer_specs() if one.engine.key() == engine_key
        }
        self._by_prompt: dict[bytes, Answer] = {}  # answers of this run: equal prompts are sent once
        self._by_title = {
            sanitize_title(title, spec.answers[0].max_title_chars): row
            for row, title in reversed(list(enumerate(catalogue.titles)))
            if title.strip()
        }

    def answers_in_store(self, key: bytes) -> int:
        """Number of a session's ``K`` answers that are stored."""
        return sum(key in part for part in self.answered)

    def query(self, chunk: Sequence[bytes]) -> Generator[Batch, None, None]:
        """Query the engine for the missing answers of a chunk of sessions, lazily as batches are pulled."""
        waiting: dict[str, list[tuple[AnswerSpec, bytes]]] = {}  # sessions that wait for a prompt's answer
        for key in chunk:
            for spec, done in zip(self.spec.answers, self.answered, strict=True):
                if key not in done:
                    waiting.setdefault(self.plan.prompt(spec, key), []).append((spec, key))
        reused, fresh = [], []
        for prompt in waiting:
            answer = self._answered_before(prompt)
            if answer is None:
                fresh.append(prompt)
            else:
                reused += self._rows(prompt, answer._replace(computed_tokens=0), waiting)
        if reused:
            yield Batch(reused, [], [])
        missing = set(range(len(fresh)))
        for replies in self.engine.generate(fresh) if fresh else ():
            batch = Batch([], [], [])
            for place, outcome in replies:
                if place not in missing:
                    raise InputError(
                        f"the engine answered prompt {place} of {len(fresh)}, twice or out of range"
                    )
                missing.discard(place)
                prompt = fresh[place]
                if isinstance(outcome, Failure):
                    batch.failures.extend((*one, outcome.reason) for one in waiting[prompt])
                    continue
                batch.answers.extend(self._rows(prompt, outcome, waiting))
                batch.generated.append(outcome)
                self._by_prompt[_hash(prompt)] = outcome
            yield batch
        if missing:
            raise InputError(f"the engine left {len(missing)} of {len(fresh)} prompts without a reply")

    def save(self, batch: Batch) -> None:
        """Write a batch; it is on disk when this returns."""
        if batch.answers:
            self.store.add_answers(batch.answers)
        if batch.failures:
            self.store.add_failures(batch.failures)
        for spec, done in zip(self.spec.answers, self.answered, strict=True):
            done.update(row.key for row in batch.answers if row.spec is spec)

    def localise(self, keys: Sequence[bytes]) -> None:
        """Encode the stored answers of the given sessions, localise them and write the views (Eq. 2-5)."""
        ready = [
            key
            for key in keys
            if key not in self.localised and self.answers_in_store(key) == len(self.spec.views)
        ]
        for part in batched(ready, _SESSIONS_PER_ENCODING):
            answers = [self._stored(spec, key) for key in part for spec in self.spec.answers]  # n * K
            self.store.add_localised(self.spec, part, self._views(answers, len(part)))
            self.localised.update(part)

    def forget(self) -> None:
        """Forget the sessions and prompts of a run without an end; the store has the answers."""
        self.plan.sessions.clear()
        self._by_prompt.clear()

    def record(self, started: float, rank: int, seconds: float, counts: Sequence[int]) -> None:
        """Save the record of this run; ``counts`` has prompts and tokens in the order of `RunRecord`."""
        prompts, prompt_tokens, computed_tokens, answer_tokens = counts
        machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
        self.store.add_run(
            self.spec,
            RunRecord(
                started, rank, seconds, prompts, prompt_tokens, computed_tokens, answer_tokens, machine
            ),
        )

    def _stored(self, spec: AnswerSpec, key: bytes) -> Answer:
        for place in (self.store, self.known):
            for _, answer in place.answers(spec, key):
                return answer
        raise StoreError("a stored answer is gone", path=self.store.path, row=key.hex())

    def _views(self, answers: list[Answer], sessions: int) -> LocalisedRows:
        texts = [[choice.text for choice in answer.choices] or [answer.text] for answer in answers]
        weights = [[choice.probability for choice in answer.choices] or [1.0] for answer in answers]
        distinct = {text: row for row, text in enumerate(dict.fromkeys(t for part in texts for t in part))}
        vectors = self._embed(list(distinct))  # (distinct, d_t)
        width = max(map(len, texts))
        rows = torch.tensor([[distinct[t] for t in part] + [0] * (width - len(part)) for part in texts])
        share = torch.tensor([part + [0.0] * (width - len(part)) for part in weights])  # (n * K, width)
        shape = (sessions, len(self.spec.views))
        if self.spec.r == 0:
            unit = share / share.sum(-1, keepdim=True).clamp(min=1e-12)
            dense = (vectors.cpu()[rows] * unit.unsqueeze(-1)).sum(1).view(*shape, -1).numpy()
            ids = np.zeros((*shape, 0), np.int32)
            return LocalisedRows(ids, ids.astype(np.float16), np.any(dense, axis=-1), dense)
        nearest, near = localize(vectors, self.titles, self.title_mask, self.spec.r)  # (distinct, r)
        found, weight = mix(nearest.cpu()[rows], near.cpu()[rows], share, self.spec.r)
        placed: npt.NDArray[np.int32] = found.view(*shape, -1).numpy()
        return LocalisedRows(
            placed, weight.view(*shape, -1).numpy().astype(np.float16), np.any(placed > 0, axis=-1)
        )

    def _embed(self, texts: list[str]) -> Tensor:
        """Embed answers; an answer equal to a title as prompts show it gets that item's embedding."""
        row = [self._by_title.get(text) for text in texts]
        free = [at for at, item in enumerate(row) if item is None]
        vectors = self.titles.new_zeros(len(texts), self.titles.size(1))
        exact = [at for at, item in enumerate(row) if item is not None]
        vectors[exact] = self.titles[[item for item in row if item is not None]]
        if free:
            vectors[free] = self.encoder.encode([texts[at] for at in free]).to(vectors)
        return vectors

    def _answered_before(self, prompt: str) -> Answer | None:
        """Find the answer to an equal prompt, from this or an earlier run of the same engine."""
        key = _hash(prompt)
        return self._by_prompt.get(key) or self.known.answer_to(key, self._same_engine)

    def _rows(
        self, prompt: str, answer: Answer, waiting: dict[str, list[tuple[AnswerSpec, bytes]]]
    ) -> list[AnswerRow]:
        """Rows for all sessions that wait for the prompt; only the first one counts computed tokens."""
        (spec, key), *others = waiting[prompt]
        free = answer._replace(computed_tokens=0)
        return [
            AnswerRow(spec, key, answer, _hash(prompt)),
            *(AnswerRow(spec, key, free, _hash(prompt)) for spec, key in others),
        ]


def title_embeddings(
    store: StoreReader, spec: ViewSpec, encoder: TextEncoder, catalogue: Catalogue
) -> tuple[Tensor, Tensor]:
    """Read the table of title embeddings from the store or compute it; on the GPU if there is one.

    Shapes:
        - output: titles ``(V, d_t)``, mask ``(V,)`` bool
    """
    try:
        titles, mask = store.titles(spec)
    except StoreError:  # missing or damaged: it can always be computed again
        titles = encoder.encode(catalogue.titles)
        mask = torch.tensor([bool(title.strip()) for title in catalogue.titles], dtype=torch.bool)
        if isinstance(store, ViewStore):
            store.add_titles(spec, titles, mask)
    warn_indistinct(catalogue.titles, titles, encoder.identity.name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return titles.to(device), mask.to(device)


def _hash(prompt: str) -> bytes:
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
