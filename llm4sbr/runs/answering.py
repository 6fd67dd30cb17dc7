"""``llm4sbr views answer``: the language model beside a server, which asks about uncertain sessions."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.serving.ask_queue import AskQueue, Published
from llm4sbr.serving.bundle import read_catalogue
from llm4sbr.serving.manifest import CATALOGUE, VIEWS, Manifest
from llm4sbr.views.encoder import TextEncoder
from llm4sbr.views.engines import Engine
from llm4sbr.views.inference.plan import ViewPlan, view_spec
from llm4sbr.views.inference.progress import StopRequest, until_stopped
from llm4sbr.views.inference.worker import Run
from llm4sbr.views.prompts import DEFAULT_PROMPTS, PromptOptions
from llm4sbr.views.store import StoreError, ViewStore

_fleet = logging.getLogger("llm4sbr.views.engines.fleet")
_AT_ONCE = 256  # sessions of a round: later ones may be more uncertain
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds before a dead engine is tried again
_NAP = 0.1  # seconds between looks at the stop request


class ServedViews(NamedTuple):
    """What a bundle says of its views."""

    catalogue: Catalogue
    fingerprint: str  # of the specification of the views
    described: str
    r: int | None  # titles of a view; None for the specification's

    @classmethod
    def of(cls, bundle: str | Path) -> ServedViews:
        """Read a bundle, without its model.

        Raises:
            InputError: The bundle is damaged, or has no views of a language model.
        """
        folder = Path(bundle).resolve()
        manifest = Manifest.read(folder)
        if manifest.views is None or manifest.views.source != "llm":
            raise InputError("this bundle has no views of a language model", path=bundle)
        with safe_open(folder / VIEWS, "pt") as file:
            dense = "vectors" in file.keys()  # noqa: SIM118 (this is no dictionary)
            r = None if dense else int(file.get_slice("ids").get_shape()[-1])
        return cls(
            read_catalogue(folder / CATALOGUE), manifest.views.fingerprint, manifest.views.described, r
        )


class Answering:
    """Answers the sessions of a queue, and publishes their views.

    The answers and views are written to the store as stage 1 writes them, before they are published. After a
    kill the same call continues: a session leaves the queue when its views are published, and what the store
    has is not asked again.

    Args:
        queue: Queue of ``llm4sbr serve --ask``.
        store: Store of answers and views; it stays locked.
        served: The bundle's catalogue and views.
        encoder: Encoder of answers and titles.
        engine: Engine that answers prompts.
        prompts: View templates, and how prompts show a session.
        r: Number of titles per view.

    Raises:
        InputError: The answers would give other views than those of the bundle.
        StoreError: Another process writes to the store, or the store is damaged.
    """

    def __init__(
        self,
        queue: AskQueue,
        store: ViewStore,
        served: ServedViews,
        *,
        encoder: TextEncoder,
        engine: Engine,
        prompts: PromptOptions = DEFAULT_PROMPTS,
        r: int = 5,
    ) -> None:
        catalogue = served.catalogue
        spec = view_spec(catalogue, encoder, engine, prompts, r)
        if spec.fingerprint != served.fingerprint:
            raise InputError(
                f"the bundle's views are {served.described}, and these options give other ones",
                value=spec.describe(),
                hint="Give the options with which `llm4sbr views infer` made the bundle's views",
            )
        self.queue, self.store, self.served = queue, store, served
        self.run = Run(store, store, ViewPlan(spec, catalogue, {}, {}, []), encoder, engine)
        self._size = max(1, min(_AT_ONCE, engine.batch_size // len(spec.views)))

    def until(self, stop: StopRequest, *, once: bool = False, seconds: float = 2.0) -> int:
        """Answer until a stop request.

        A dead engine is tried again after growing pauses, and reported once.

        Args:
            stop: Stop request.
            once: Whether to end when the queue is empty.
            seconds: Pause after the queue was empty.

        Returns:
            Number of sessions whose views were published.

        Raises:
            InputError: With `once`, the engine is dead.
            StoreError: The store cannot be written.
        """
        total, pause = 0, 0.0
        try:
            while not stop.requested:
                _fleet.disabled = pause > 0  # it has said once why its servers do not answer
                try:
                    taken, published = self.round(stop)
                except InputError as error:
                    if once or isinstance(error, StoreError):
                        raise
                    if not pause:
                        _say(f"{error}\nThe sessions wait in {self.queue.path.parent} until this is over")
                    pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
                    _sleep(pause, stop)
                    continue
                if pause and published:
                    _say("The engine answers again")
                total, pause = total + published, 0.0
                if not taken:
                    if once:
                        break
                    _sleep(seconds, stop)
        finally:
            _fleet.disabled = False
        return total

    def round(self, stop: StopRequest) -> tuple[int, int]:
        """Answer the most uncertain sessions of the queue.

        Returns:
            Number of sessions that were taken, and of those whose views were published.

        Raises:
            InputError: The engine is dead, or the queue or the store fails.
        """
        asked = self.queue.most_uncertain(self._size)
        catalogue, sessions = self.served.catalogue, self.run.plan.sessions
        for one in asked:
            clicks = tuple(catalogue.index.get(item, 0) for item in one.items)
            # Otherwise the item's title has changed since: no session of this catalogue has the key.
            if clicks and all(clicks) and catalogue.session_key(clicks) == one.key:
                sessions[one.key] = clicks
        keys = list(sessions)
        foreign = [one.key for one in asked if one.key not in sessions]
        published = 0
        try:
            if foreign:
                self.queue.give_up(foreign, at_once=True)
            with closing(until_stopped(self.run.query(keys), stop)) as batches:
                for batch in batches:
                    self.run.save(batch)
                    published += self._publish(keys)
            published += self._publish(keys)  # those whose answers a killed run has left in the store
            failed = [key for key in keys if key not in self.run.localised]
            if failed and not stop.requested:
                self.queue.give_up(failed)
        finally:
            self.run.forget()
        return len(asked), published

    def _publish(self, keys: list[bytes]) -> int:
        """Localise the sessions with all answers, and publish those that are new."""
        sessions = self.run.plan.sessions
        self.run.localise([key for key in keys if key in sessions])
        ready = [key for key in keys if key in sessions and key in self.run.localised]
        if ready:
            self.queue.publish(self.run.spec.fingerprint, list(self._views(ready)))
        for key in ready:
            del sessions[key]
        return len(ready)

    def _views(self, keys: list[bytes]) -> Iterator[Published]:
        spec, dim = self.run.spec, self.run.titles.size(1)
        for key in keys:  # one at a time: the store finds it by its key, and several by reading all
            row = self.store.lookup_localised(spec, [key], dim=dim)
            if row.vectors is not None:
                yield Published(key, b"", np.ascontiguousarray(row.vectors[0], "<f4").tobytes())
            else:
                ids = np.ascontiguousarray(row.ids[0, :, : self.served.r], "<i4")
                weights = np.ascontiguousarray(row.weights[0, :, : self.served.r], "<f2")
                yield Published(key, ids.tobytes(), weights.tobytes())


def _say(text: str) -> None:
    """Write to stderr, which is not buffered where it is a log."""
    print(text, file=sys.stderr)


def _sleep(seconds: float, stop: StopRequest) -> None:
    end = time.monotonic() + seconds
    while not stop.requested and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _NAP))
