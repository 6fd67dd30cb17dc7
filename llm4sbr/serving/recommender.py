"""Recommender: recommendations for sessions that are given by the shop's own ids."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from llm4sbr.contracts.batch import SessionBatch, batch_prefixes
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt, check_arguments
from llm4sbr.nn.candidates import leave_out
from llm4sbr.nn.retrieval import Ranker, Retrieval
from llm4sbr.nn.scoring import Scoring
from llm4sbr.nn.topk import top_columns
from llm4sbr.serving.bundle import Content, Opened, open_content, read_bundle, read_content, write_bundle
from llm4sbr.serving.explain import Explanation, explain, refuse_nan
from llm4sbr.serving.filters import allowed_items
from llm4sbr.serving.known_views import SessionViews, ViewState
from llm4sbr.serving.manifest import Manifest
from llm4sbr.serving.new_items import with_items
from llm4sbr.serving.recommendation import NO_CLICKS, NOTHING_KNOWN, NOTHING_LEFT, Observer, Recommendation
from llm4sbr.serving.wrapped_model import predicts_views

if TYPE_CHECKING:
    import polars as pl

_AT_ONCE = 256  # sessions in a batch: bounds the memory of the scores, (B, V)


class Recommender:
    """Recommends from a trained model. It keeps no state between calls, so threads may share it.

    Args:
        model: Model of `llm4sbr.serving.model.build_model` with its weights, in evaluation mode.
        catalogue: Items of the model.
        max_length: Number of latest clicks that the model reads; None for any number.
        views: Views of a wrapped model; None without views.
        device: Device of the model.
        manifest: Manifest of the bundle, if the model comes from one.
        retrieval: How items are found (`llm4sbr.nn.retrieval`); None computes all scores.

    Raises:
        InputError: If the model's scores are not a product of vectors, and a retrieval is given.
    """

    def __init__(
        self,
        model: Scoring,
        catalogue: Catalogue,
        *,
        max_length: int | None = None,
        views: SessionViews | None = None,
        device: str | torch.device = "cpu",
        manifest: Manifest | None = None,
        retrieval: Retrieval | None = None,
    ) -> None:
        self.model, self.catalogue, self.views = model, catalogue, views
        self.max_length, self.device, self.manifest = max_length, torch.device(device), manifest
        self._unknown: ViewState = "predicted" if predicts_views(model) else "absent"
        self.retrieval, self._ranker = retrieval, None if retrieval is None else Ranker(model, retrieval)
        # Cached properties are computed here once, and not by the first thread that needs them.
        self._folder: Path | None = None  # bundle, and the classes that it may build besides registered ones
        self._classes: tuple[type, ...] = ()
        self._content: tuple[Manifest, Content] | None = None  # a bundle that is not on disk yet
        self._index = catalogue.index
        if views is not None:
            _ = catalogue.digests

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        *,
        check: bool = True,
        classes: Iterable[type] = (),
        retrieval: Retrieval | None = None,
    ) -> Self:
        """Load a bundle of ``llm4sbr export``. It runs no code of the bundle and reads no pickle.

        Args:
            path: Folder of the bundle.
            device: Device of the model, such as ``cpu`` or ``cuda``.
            check: Whether to compare every file with its checksum. Leave it on for files that were copied.
            classes: Classes that may be built besides registered ones, such as your own backbone.
            retrieval: How items are found, such as `Int8Items()` (`llm4sbr.nn.retrieval`); None computes
                all scores.

        Raises:
            InputError: If the bundle is damaged, incomplete, of another version, or names a class that is not
                registered; there is no such device; or the retrieval does not fit the model.
        """
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InputError("there is no such device", value=str(device)) from error
        by_rows = retrieval is not None
        opened = read_bundle(path, device, check=check, classes=classes, by_rows=by_rows)
        made = cls._of(opened, device, retrieval)
        made._folder, made._classes = Path(path), tuple(classes)
        return made

    @classmethod
    def _of(cls, opened: Opened, device: str | torch.device, retrieval: Retrieval | None) -> Self:
        return cls(
            opened.model,
            opened.catalogue,
            max_length=opened.manifest.max_length,
            views=opened.views,
            device=device,
            manifest=opened.manifest,
            retrieval=retrieval,
        )

    def with_items(
        self,
        table: Mapping[str, str] | pl.DataFrame,
        embeddings: Any,
        *,
        known: Any = None,
        encoder: str | None = None,
    ) -> Self:
        """Add items without clicks; they start from their titles (`llm4sbr.nn.cold_items`).

        They can be recommended, and a session may have clicked them. The scores of the other items stay as
        they are; only heads that compare with the whole catalogue, such as `RepeatExplore`, move the
        session's own items. Items that the bundle has already are left out, and those without a title.

        Args:
            table: Titles by item id, or a table with the columns ``item_id`` and ``title``.
            embeddings: Title embeddings of the table's rows, from the bundle's encoder (`Manifest.encoder`).
            known: Title embeddings of the bundle's own items, for a bundle without any (a bare model).
            encoder: Fingerprint of the encoder of the embeddings, to be compared with the bundle's.

        Returns:
            A new recommender, in memory; `save` writes its bundle. This one does not change.

        Shapes:
            - embeddings: ``(n, d_t)``; known: ``(V, d_t)`` in the order of the catalogue

        Raises:
            InputError: If the recommender does not come from a bundle, an item is in the catalogue with
                another title, no item is new, or the embeddings do not fit.

        Warns:
            UserWarning: If items are left out.
        """
        manifest, content = with_items(
            *self._read_content(), table, embeddings, known=known, encoder=encoder, classes=self._classes
        )
        by_rows = self.retrieval is not None
        opened = open_content(manifest, content, self.device, classes=self._classes, by_rows=by_rows)
        made = self._of(opened, self.device, self.retrieval)
        made._classes, made._content = self._classes, (manifest, content)
        return made

    def save(self, out: str | Path) -> Path:
        """Write the bundle, complete or not at all; `llm4sbr.serving.bundle.write_bundle`."""
        return write_bundle(out, *self._read_content())

    def _read_content(self) -> tuple[Manifest, Content]:
        """Manifest and content of the bundle; a loaded one is read again, to keep no second copy of it."""
        if self._content is not None:
            return self._content
        if self._folder is None or self.manifest is None:
            raise InputError("this recommender does not come from a bundle", hint="Use Recommender.load")
        found = read_content(self._folder)
        if found[0].sha256 != self.manifest.sha256:
            raise InputError(
                "the bundle has been replaced since it was loaded", path=self._folder, hint="Load it again"
            )
        return found

    def recommend(
        self,
        sessions: Sequence[Sequence[str]],
        k: PositiveInt = 20,
        *,
        seen: bool = True,
        only: Collection[str] | None = None,
        without: Collection[str] | None = None,
        mask: Any = None,
        observe: Observer | None = None,
    ) -> list[Recommendation]:
        """Recommend the next item of each session.

        A session without a known item gets no recommendations, and a `Recommendation.reason`: it says nothing
        that a model could read, and what a shop shows then (its bestsellers, say) is the shop's choice.

        Args:
            sessions: Ids of the clicked items, oldest first. Ids that the catalogue lacks are left out and
                listed in `Recommendation.ignored`.
            k: Number of items; fewer if fewer are left.
            seen: Whether a session's own items may be recommended.
            only: Ids of the only items to recommend, such as those in stock.
            without: Ids of items to leave out.
            mask: True for each item that may be recommended, in the order of the catalogue, for all sessions
                or for each; together with the other filters.
            observe: Called with the item numbers, scores and views of each batch of sessions.

        Shapes:
            - mask: ``(V,)`` or ``(B, V)`` bool

        Raises:
            InputError: If a session is not a list of ids, `k` is below 1, the mask has another shape, or
                `only` and `without` leave no item at all.

        Warns:
            UserWarning: If `only` or `without` name items that the catalogue lacks.
        """
        check_arguments(Recommender.recommend, {"k": k})
        read = [self._read(session) for session in sessions]
        allowed = allowed_items(self.catalogue, only, without, mask, len(read))
        found: list[Recommendation | None] = [
            None
            if clicks
            else Recommendation((), (), (), ignored, reason=NOTHING_KNOWN if ignored else NO_CLICKS)
            for clicks, ignored in read
        ]
        places = [place for place, (clicks, _) in enumerate(read) if clicks]
        for begin in range(0, len(places), _AT_ONCE):
            part = places[begin : begin + _AT_ONCE]
            rows = allowed[torch.tensor(part)] if allowed is not None and allowed.ndim == 2 else allowed
            clicks = [read[place][0] for place in part]
            best, columns, states = self._rank(clicks, rows, k, seen, observe)
            for place, scores, items, state in zip(part, best, columns, states, strict=True):
                found[place] = self._named(scores, items, read[place][1], state)
        return [one for one in found if one is not None]

    def scores(self, sessions: Sequence[Sequence[str]]) -> Tensor:
        """Scores over the catalogue, without filters.

        Args:
            sessions: Ids of the clicked items; each session has one that the catalogue has.

        Shapes:
            - output: ``(B, V)`` on the CPU; column ``k - 1`` is item ``k`` of the catalogue

        Raises:
            InputError: If a session has no known item.
        """
        read = [self._read(session)[0] for session in sessions]
        for place, clicks in enumerate(read, start=1):
            if not clicks:
                raise InputError(NOTHING_KNOWN, row=f"session {place}")
        with torch.inference_mode():
            return self._score(read)[0].cpu()

    def explain(
        self, session: Sequence[str], item: str, between: Callable[[], None] | None = None
    ) -> Explanation:
        """Explain the place of an item for a session: what each click, view and head does to it.

        Each effect is exact: the session is scored once more without the part.

        Args:
            session: Ids of the clicked items, oldest first.
            item: Id of the item, recommended or not.
            between: Called between the scorings, each of at most 32 sessions. A server waits there while
                recommendations are due; what it raises ends the explanation.

        Raises:
            InputError: If the catalogue lacks the item, or every item of the session.
        """
        return explain(self, session, item, *([] if between is None else [between]))

    def with_views(self, views: SessionViews) -> Self:
        """The same recommender with other views; the model and its tensors are shared."""
        made = copy(self)
        made.views = views
        return made

    def read_session(self, session: Sequence[str]) -> tuple[list[int], list[int], tuple[str, ...]]:
        """Item numbers of the latest known clicks, their places in the session, and the unknown ids."""
        clicks, ignored = self._read(session)
        known = [place for place, item in enumerate(session) if item in self._index]
        return clicks, known[len(known) - len(clicks) :], ignored

    def _read(self, session: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
        """Item numbers of the latest known clicks, and the unknown ids."""
        if isinstance(session, str) or not all(isinstance(item, str) for item in session):
            raise InputError(
                "a session is a list of item ids, which are strings",
                value=session,
                hint='Write [["B001", "B002"]] for one session of two clicks',
            )
        clicks = [self._index[item] for item in session if item in self._index]
        ignored = tuple(item for item in session if item not in self._index)
        return clicks[-self.max_length :] if self.max_length is not None else clicks, ignored

    @torch.inference_mode()
    def _rank(
        self,
        sessions: list[list[int]],
        allowed: Tensor | None,
        k: int,
        seen: bool,
        observe: Observer | None,
    ) -> tuple[list[list[float]], list[list[int]], list[ViewState]]:
        most = min(k, self.catalogue.num_items)
        if self._ranker is not None:
            batch, states = self.batch(sessions)
            best, columns, every = self._ranker.rank(batch, most, allowed, seen=seen)
            if observe is not None:
                observe(sessions, every, states)
        else:
            scores, batch, states = self._score(sessions)
            if observe is not None:
                observe(sessions, scores, states)
            best, columns = top_columns(leave_out(scores, batch, allowed, seen=seen), most)
        refuse_nan(best)  # NaN ranks first
        return best.tolist(), columns.tolist(), states

    def _score(self, sessions: list[list[int]]) -> tuple[Tensor, SessionBatch, list[ViewState]]:
        batch, states = self.batch(sessions)
        scores: Tensor = self.model(batch)
        return scores, batch, states

    def batch(self, sessions: list[list[int]], *, views: bool = True) -> tuple[SessionBatch, list[ViewState]]:
        """Batch of sessions as the model reads it, and where each session's views come from.

        Args:
            sessions: Item numbers of the clicks.
            views: Whether to look up the views.
        """
        batch = batch_prefixes(sessions, graph=False)
        batch = batch._replace(**{
            name: getattr(batch, name).to(self.device)
            for name in ("item_ids", "lengths", "target", "example_index")
        })  # fmt: skip
        if self.views is None or not views:
            return batch, [self._unknown] * len(sessions)
        batch, states = self.views(batch, [self.catalogue.session_key(clicks) for clicks in sessions])
        return batch, [self._unknown if state == "absent" else state for state in states]

    def _named(
        self, scores: list[float], columns: list[int], ignored: tuple[str, ...], state: ViewState
    ) -> Recommendation:
        count = sum(score > -math.inf for score in scores)  # the last ones may be left out by a filter
        ids, titles = self.catalogue.item_ids, self.catalogue.titles
        return Recommendation(
            tuple(ids[column] for column in columns[:count]),
            tuple(titles[column] for column in columns[:count]),
            tuple(scores[:count]),
            ignored,
            state,
            None if count else NOTHING_LEFT,
        )
