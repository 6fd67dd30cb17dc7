"""One run of stage 1: ask, write, localise, a chunk of sessions at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llm4sbr.catalogue import Catalogue
from llm4sbr.errors import InputError
from llm4sbr.views.database import StoreError
from llm4sbr.views.encoder import TextEncoder
from llm4sbr.views.engines import Answer, Engine
from llm4sbr.views.localization import localize
from llm4sbr.views.progress import Meter, StopRequest
from llm4sbr.views.prompts import ViewTemplate, build_prompt
from llm4sbr.views.sessions import Prefix, batched
from llm4sbr.views.spec import AnswerSpec, ViewSpec
from llm4sbr.views.store import LocalisedRows, ViewStore
from llm4sbr.views.summary import ViewSummary

_SESSIONS_PER_ENCODING = 1024


class Run:
    """What the steps of a run share.

    Args:
        store: Where answers and views go; its writer's lock is taken here.
        spec: The views to make.
        encoder: Embeds answers and titles.
        engine: Answers prompts.
        catalogue: The items' titles.
        sessions: Every session key that may come up, with its prefix.
    """

    def __init__(
        self,
        store: ViewStore,
        spec: ViewSpec,
        encoder: TextEncoder,
        engine: Engine,
        catalogue: Catalogue,
        sessions: dict[bytes, Prefix],
    ) -> None:
        store.lock()  # before any work, so that a second writer learns at once
        self.store, self.spec, self.encoder, self.engine = store, spec, encoder, engine
        self.catalogue, self.sessions = catalogue, sessions
        for answer_spec in spec.answers:
            store.add_spec(answer_spec)
        store.add_spec(spec)
        self.answered = [{key for key, _ in store.answers(one)} for one in spec.answers]
        self.localised = store.localised_keys(spec)
        self.titles, self.title_mask = title_embeddings(store, spec, encoder, catalogue)
        self._known: dict[bytes, Answer] = {}  # by hash of the prompt: equal prompts are asked once

    def answers_in_store(self, key: bytes) -> int:
        """How many of a session's ``K`` answers are there."""
        return sum(key in part for part in self.answered)

    def ask(self, chunk: Sequence[bytes], meter: Meter, stop: StopRequest, summary: ViewSummary) -> None:
        """Ask for the answers that a chunk of sessions lacks; each batch is on disk before the next."""
        jobs: dict[str, list[tuple[AnswerSpec, bytes]]] = {}  # who waits for the answer to a prompt
        for key in chunk:
            for spec, done in zip(self.spec.answers, self.answered, strict=True):
                if key not in done:
                    jobs.setdefault(self._prompt(spec, key), []).append((spec, key))
        known = [prompt for prompt in jobs if _hash(prompt) in self._known]
        self._write([(prompt, self._known[_hash(prompt)]) for prompt in known], jobs, meter)
        fresh = sorted(jobs.keys() - known, key=lambda prompt: (len(prompt), prompt))
        for batch in batched(fresh, self.engine.batch_size):
            if stop.requested:
                return
            answers = self.engine.generate(batch)
            if len(answers) != len(batch):
                raise InputError(f"the engine gave {len(answers)} answers to {len(batch)} prompts")
            self._write(list(zip(batch, answers, strict=True)), jobs, meter)
            self._known.update(zip(map(_hash, batch), answers, strict=True))
            summary.asked += len(batch)
            summary.prompt_tokens += sum(answer.prompt_tokens for answer in answers)
            summary.answer_tokens += sum(answer.answer_tokens for answer in answers)

    def localise(self, keys: Sequence[bytes]) -> None:
        """Encode the stored answers of some sessions, find their titles, write the views (Eq. 2-5)."""
        for part in batched(keys, _SESSIONS_PER_ENCODING):
            texts = [
                answer.text
                for key in part
                for spec in self.spec.answers
                for _, answer in self.store.answers(spec, key)
            ]
            place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
            vectors = self.encoder.encode(list(place)).to(self.titles.device)  # (distinct, d_t)
            rows = np.array([place[text] for text in texts]).reshape(len(part), -1)  # (n, K)
            self.store.add_localised(self.spec, part, self._views(vectors, rows))
            self.localised.update(part)

    def _views(self, vectors: Tensor, rows: npt.NDArray[np.int64]) -> LocalisedRows:
        if self.spec.r == 0:
            dense = vectors.cpu().numpy()[rows]  # (n, K, d_t)
            ids = np.zeros((*rows.shape, 0), np.int32)
            return LocalisedRows(ids, ids.astype(np.float16), np.any(dense, axis=-1), dense)
        found, weights = localize(vectors, self.titles, self.title_mask, self.spec.r)
        ids = found.cpu().numpy()[rows]  # (n, K, r)
        return LocalisedRows(ids, weights.cpu().numpy().astype(np.float16)[rows], np.any(ids > 0, axis=-1))

    def _prompt(self, spec: AnswerSpec, key: bytes) -> str:
        return build_prompt(
            ViewTemplate(spec.view, spec.template),
            self.sessions[key],
            self.catalogue,
            max_items=spec.max_items,
            max_title_chars=spec.max_title_chars,
        )

    def _write(
        self,
        answers: list[tuple[str, Answer]],
        jobs: dict[str, list[tuple[AnswerSpec, bytes]]],
        meter: Meter,
    ) -> None:
        """Write a batch of answers for every session that waits for them."""
        rows = [(spec, key, answer) for prompt, answer in answers for spec, key in jobs[prompt]]
        if rows:
            self.store.add_answers(rows)
            meter.advance(len(rows))


def title_embeddings(
    store: ViewStore, spec: ViewSpec, encoder: TextEncoder, catalogue: Catalogue
) -> tuple[Tensor, Tensor]:
    """The table of title embeddings, from the store or made now; on the GPU where there is one.

    Shapes:
        - output: titles ``(V, d_t)``, mask ``(V,)`` bool
    """
    store.lock()
    try:
        titles, mask = store.titles(spec)
    except StoreError:  # not there, or damaged: it can always be made again
        titles = encoder.encode(catalogue.titles)
        mask = torch.tensor([bool(title.strip()) for title in catalogue.titles], dtype=torch.bool)
        store.add_titles(spec, titles, mask)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return titles.to(device), mask.to(device)


def _hash(prompt: str) -> bytes:
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
