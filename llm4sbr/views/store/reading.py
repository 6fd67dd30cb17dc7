"""Reading a view store: every row is verified by its checksum before it is returned."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.views.engines import Answer, Choice
from llm4sbr.views.store.database import DAMAGED, StoreError, checksum, named_errors, open_reader
from llm4sbr.views.store.spec import AnswerSpec, ViewSpec
from llm4sbr.views.store.title_table import read_table


class LocalisedRows(NamedTuple):
    """Localised views of ``n`` sessions. With ``r = 0`` there are no ids, and ``vectors`` is dense."""

    ids: npt.NDArray[np.int32]  # (n, K, r) items 1..V; an empty slot has id 0 and weight 0
    weights: npt.NDArray[np.float16]  # (n, K, r)
    mask: npt.NDArray[np.bool_]  # (n, K): False if the view is unknown
    vectors: npt.NDArray[np.float32] | None = None  # (n, K, d_t), only if r = 0


class RunRecord(NamedTuple):
    """Prompts, tokens and time of one process in one run of stage 1."""

    started: float  # seconds since 1970
    rank: int
    seconds: float  # wall-clock time of querying and localising
    prompts: int
    prompt_tokens: int
    computed_tokens: int
    answer_tokens: int
    machine: str


class Intent(NamedTuple):
    """One view of one session, for display."""

    view: str
    text: str
    ids: tuple[int, ...]
    weights: tuple[float, ...]


class StoreReader:
    """Read access to a view store; any number of processes can read while one writes.

    Args:
        path: Folder of the store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.database = self.path / "views.sqlite"
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the database. Closing twice is allowed, and a later call reopens the store."""
        if self._connection is not None:
            with named_errors(self.database):
                self._connection.close()
            self._connection = None

    def view_specs(self, catalogue_fingerprint: str | None = None) -> list[ViewSpec]:
        """Return the view specs in the store, oldest first; only those of one catalogue if it is given."""
        rows = self._read("SELECT json FROM specs WHERE kind = ? ORDER BY id", "view")
        specs = [ViewSpec.from_json(text) for (text,) in rows]
        return [spec for spec in specs if catalogue_fingerprint in (None, spec.catalogue)]

    def answer_specs(self) -> list[AnswerSpec]:
        """Return the answer specs in the store, oldest first."""
        rows = self._read("SELECT json FROM specs WHERE kind = ? ORDER BY id", "answer")
        return [AnswerSpec.from_json(text) for (text,) in rows]

    def answers(self, spec: AnswerSpec, key: bytes | None = None) -> Iterator[tuple[bytes, Answer]]:
        """Yield the answers of a spec with their session keys; only one session's if ``key`` is given."""
        where = f"s.fingerprint = ?{_one(key)}"
        found = self._answers(where, *((spec.fingerprint,) if key is None else (spec.fingerprint, key)))
        yield from ((session, answer) for _, session, answer in found)

    def answer_to(self, prompt: bytes, specs: Collection[str]) -> Answer | None:
        """Find a stored answer to a prompt, of any session; None if there is none.

        Args:
            prompt: Hash of the prompt, as stored with the answer.
            specs: Fingerprints of the answer specs to search: those of the same engine.
        """
        for fingerprint, _, answer in self._answers("a.prompt = ?", prompt):
            if fingerprint in specs:
                return answer
        return None

    def failures(self, spec: AnswerSpec) -> Iterator[tuple[bytes, str]]:
        """Yield the sessions without an answer after all retries, each with the reason."""
        rows = self._read(
            "SELECT f.session_key, f.reason, f.checksum FROM failures f "
            "JOIN specs s ON s.id = f.spec WHERE s.fingerprint = ?",
            spec.fingerprint,
        )
        for key, reason, stored in rows:
            self._compare(checksum(spec.fingerprint, key, reason), stored, f"failure of session {key.hex()}")
            yield key, reason

    def runs(self, spec: ViewSpec) -> list[RunRecord]:
        """Return the records of the runs for a spec, oldest first; a killed run leaves no record."""
        rows = self._read(
            "SELECT r.started, r.rank, r.seconds, r.prompts, r.prompt_tokens, r.computed_tokens, "
            "r.answer_tokens, r.machine, r.checksum FROM runs r JOIN specs s ON s.id = r.spec "
            "WHERE s.fingerprint = ? ORDER BY r.started, r.rank",
            spec.fingerprint,
        )
        found = []
        for *fields, stored in rows:
            self._compare(checksum(spec.fingerprint, *fields), stored, "record of a run")
            found.append(RunRecord(*fields))
        return found

    def _answers(self, where: str, *values: object) -> Iterator[tuple[str, bytes, Answer]]:
        rows = self._read(
            "SELECT s.fingerprint, a.session_key, a.text, a.prompt_tokens, a.computed_tokens, "
            "a.answer_tokens, a.finished, a.choices, a.prompt, a.checksum "
            f"FROM answers a JOIN specs s ON s.id = a.spec WHERE {where}",
            *values,
        )
        for fingerprint, key, *fields, stored in rows:
            self._compare(checksum(fingerprint, key, *fields), stored, f"answer of session {key.hex()}")
            text, prompt_tokens, computed_tokens, answer_tokens, finished, choices, _ = fields
            ranked = tuple(Choice(*choice) for choice in json.loads(choices)) if choices else ()
            yield (
                fingerprint,
                key,
                Answer(text, prompt_tokens, computed_tokens, answer_tokens, bool(finished), ranked),
            )

    def localised_keys(self, spec: ViewSpec) -> set[bytes]:
        """Return the keys of the sessions with localised views of a spec."""
        return {key for key, _, _ in self._localised(spec)}

    def lookup_localised(self, spec: ViewSpec, session_keys: Sequence[bytes], dim: int = 0) -> LocalisedRows:
        """Look up the views of many sessions, in the order of ``session_keys``; unknown views are masked.

        Args:
            spec: Specification of the views.
            session_keys: ``n`` content keys; duplicates are allowed.
            dim: Dimension ``d_t`` of the vectors, needed if ``spec.r`` is 0.

        Raises:
            StoreError: A row fails its checksum, has the wrong size, or holds a number that is not finite.
        """
        wanted = set(session_keys)
        # Row 0 serves unknown sessions: ids 0, weights 0, masked.
        views, width = len(spec.views), spec.r or dim
        ids, values, place = (
            [bytes(views * spec.r * 4)],
            [bytes(views * width * (2 if spec.r else 4))],
            {b"": 0},
        )
        # One session is selected by key; for more, a full scan also detects a row with a damaged key.
        found = self._localised(spec, *(wanted if len(wanted) == 1 else ()))
        for key, raw_ids, raw_values in found:
            if key in wanted:
                if len(raw_ids) != len(ids[0]) or len(raw_values) != len(values[0]):
                    raise StoreError("a view has the wrong size", path=self.database, row=key.hex())
                if not np.isfinite(np.frombuffer(raw_values, "<f2" if spec.r else "<f4")).all():
                    raise StoreError(
                        "a view is not finite",
                        path=self.database,
                        row=f"session {key.hex()}",
                        hint="Its text encoder was broken: infer the views again, into a new store",
                    )
                place[key] = len(ids)
                ids.append(raw_ids)
                values.append(raw_values)
        rows = np.fromiter((place.get(key, 0) for key in session_keys), np.int64, len(session_keys))
        all_ids = np.frombuffer(b"".join(ids), "<i4").reshape(len(ids), views, spec.r)[rows]
        if spec.r:
            weights = np.frombuffer(b"".join(values), "<f2").reshape(len(ids), views, width)[rows]
            return LocalisedRows(all_ids, weights, np.any(all_ids > 0, axis=-1))
        vectors = np.frombuffer(b"".join(values), "<f4").reshape(len(ids), views, width)[rows]
        return LocalisedRows(all_ids, np.zeros(all_ids.shape, np.float16), np.any(vectors, axis=-1), vectors)

    def titles(self, spec: ViewSpec) -> tuple[Tensor, Tensor]:
        """Return the title embeddings ``(V, d_t)`` and their mask ``(V,)``.

        Raises:
            StoreError: The table is missing or damaged.
        """
        rows = list(
            self._read(
                "SELECT fingerprint, sha256, num_items, checksum FROM titles WHERE fingerprint = ?",
                spec.title_table,
            )
        )
        if not rows:
            raise StoreError(
                "no title embeddings for this encoder and catalogue", path=self.path, value=spec.describe()
            )
        *fields, stored = rows[0]
        self._compare(checksum(*fields), stored, "title table")
        return read_table(self._title_path(spec), str(fields[1]))

    def intents(self, spec: ViewSpec, catalogue: Catalogue, prefix: Sequence[int]) -> list[Intent]:
        """Return the LLM's answers for one session and their localised titles; empty if none are known."""
        key = catalogue.session_key(prefix)
        found = self.lookup_localised(spec, [key], dim=0 if spec.r else self.titles(spec)[0].shape[1])
        intents = []
        for place, answer_spec in enumerate(spec.answers):
            for _, answer in self.answers(answer_spec, key):
                ids, weights = found.ids[0, place], found.weights[0, place]
                intents.append(
                    Intent(
                        answer_spec.view,
                        answer.text,
                        tuple(ids[ids > 0].tolist()),
                        tuple(weights[ids > 0].tolist()),
                    )
                )
        return intents

    def _localised(self, spec: ViewSpec, key: bytes | None = None) -> Iterator[tuple[bytes, bytes, bytes]]:
        rows = self._read(
            "SELECT l.session_key, l.ids, l.weights, l.checksum FROM localised l "
            f"JOIN specs s ON s.id = l.spec WHERE s.fingerprint = ?{_one(key)}",
            *((spec.fingerprint,) if key is None else (spec.fingerprint, key)),
        )
        for key, ids, values, stored in rows:
            self._compare(
                checksum(spec.fingerprint, key, ids, values), stored, f"view of session {key.hex()}"
            )
            yield key, ids, values

    def _read(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with named_errors(self.database):
            if self._connection is None:
                self._connection = open_reader(self.database)
            # Not `yield from`: closing the generator would close a cursor whose database may be gone.
            for row in self._connection.execute(query, values):  # noqa: UP028
                yield row

    def _title_path(self, spec: ViewSpec) -> Path:
        return self.path / f"titles-{spec.title_table}.safetensors"

    def _compare(self, found: bytes, stored: object, what: str) -> None:
        if found != stored:
            raise StoreError(
                "a row fails its checksum",
                path=self.database,
                row=what,
                hint=DAMAGED,
            )


def _one(key: bytes | None) -> str:
    return "" if key is None else " AND session_key = ?"
