"""The bundle that answers: loaded beside the present one, and exchanged for it in one step."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import NamedTuple

from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.retrieval import Retrieval
from llm4sbr.nn.scoring import WrappedScoring
from llm4sbr.serving.known_views import SessionViews, ViewState
from llm4sbr.serving.manifest import MANIFEST
from llm4sbr.serving.recommendation import RowScores
from llm4sbr.serving.recommender import Recommender
from llm4sbr.serving.server.json_log import JsonLog
from llm4sbr.serving.server.metrics import Metrics
from llm4sbr.serving.server.title_search import TitleSearch

_AGAIN_AFTER = 0.5  # seconds; a folder that is exchanged while it is read fails its checksums once


class Listed(NamedTuple):
    """Ids of a filter: those that the catalogue has, in a fixed order, and the others."""

    known: tuple[str, ...]
    unknown: list[str]


class Loaded:
    """A bundle in memory, with what the API says of it.

    Args:
        recommender: Recommender of the bundle.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender, self.catalogue = recommender, recommender.catalogue
        manifest = recommender.manifest
        self.fingerprint = (manifest.sha256 if manifest is not None else self.catalogue.fingerprint)[:16]
        self.search = TitleSearch(self.catalogue)
        model = recommender.model
        kind = "wrapped" if isinstance(model, WrappedScoring) else "bare"
        self.model = f"{kind} {type(model.backbone).__name__}"
        self.views = None if recommender.views is None else recommender.views.spec.source
        self.further = 0  # number of the latest view that was added to the bundle's own

    def with_views(self, views: SessionViews, further: int) -> Loaded:
        """The same bundle with other views; everything else is shared.

        Args:
            views: Views of the bundle, and further ones.
            further: Number of the latest further view.
        """
        made = copy(self)
        made.recommender, made.further = self.recommender.with_views(views), further
        return made

    def listed(self, ids: list[str] | None) -> Listed:
        """Sort the ids of a filter by whether the catalogue has them."""
        index, distinct = self.catalogue.index, sorted(set(ids or ()))  # equal lists make one batch
        known = tuple(item for item in distinct if item in index)
        return Listed(known, [item for item in distinct if item not in index])


class LiveBundle:
    """Keeps a loaded bundle, and reloads it from the same path.

    A request that has begun ends with the bundle that it began with.

    Args:
        path: Folder of the bundle, or a link to it.
        device: Device of the model.
        metrics: Where reloads are counted.
        log: Where reloads are logged.
        role: What the bundle is for, in the metrics.
        retrieval: How items are found; None computes all scores.

    Raises:
        InputError: If the bundle is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        device: str,
        metrics: Metrics,
        log: JsonLog,
        role: str = "answers",
        retrieval: Retrieval | None = None,
    ) -> None:
        self.path, self.device, self.metrics, self.log, self.role = Path(path), device, metrics, log, role
        self.retrieval = retrieval
        self._one_at_a_time, self._exchange = threading.Lock(), threading.Lock()
        # Called with the bundle, clicks, scores and views of each batch; see `Asking`.
        self.observe: Callable[[Loaded, Sequence[list[int]], RowScores, Sequence[ViewState]], None] | None = (
            None
        )
        self._mark = self._identity()
        self.now = self._load()
        metrics.loaded(role, self.now.fingerprint, self.now.catalogue.num_items)

    def changed(self) -> bool:
        """Whether the path leads to another bundle than at the last load."""
        return self._identity() not in (self._mark, None)

    def reload(self) -> bool:
        """Load the bundle of the path, and answer from it; the present one stays if the new one is damaged.

        It blocks: call it from a thread.

        Returns:
            Whether the new bundle answers.
        """
        with self._one_at_a_time:
            self._mark = self._identity()
            began = time.perf_counter()
            try:
                try:
                    found = self._load()
                except InputError:
                    time.sleep(_AGAIN_AFTER)
                    self._mark = self._identity()
                    found = self._load()
            except Exception as error:  # a plug-in's class may raise anything; the server goes on
                self.metrics.reloads("kept").inc()
                self.log.error("reload", kept=self.now.fingerprint, problem=str(error))
                return False
            with self._exchange:
                before, self.now = self.now, found
            self.metrics.loaded(self.role, found.fingerprint, found.catalogue.num_items)
            self.metrics.reloads("swapped").inc()
            took = round(time.perf_counter() - began, 3)
            self.log.info("reload", bundle=found.fingerprint, before=before.fingerprint, seconds=took)
            return True

    def exchange(self, before: Loaded, found: Loaded) -> bool:
        """Answer from a variant of the present bundle, unless a reload has exchanged that meanwhile."""
        with self._exchange:
            if self.now is not before:
                return False
            self.now = found
            return True

    def _load(self) -> Loaded:
        # A link is followed once, so that all files come from one folder.
        return Loaded(Recommender.load(self.path.resolve(), self.device, retrieval=self.retrieval))

    def _identity(self) -> tuple[str, int, int, int] | None:
        try:
            found = os.stat(self.path / MANIFEST)
        except OSError:
            return None
        return str(self.path.resolve()), found.st_ino, found.st_mtime_ns, found.st_size
