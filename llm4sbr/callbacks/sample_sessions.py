"""SampleSessions: stores sample sessions with their intents and the chosen epoch's recommendations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from llm4sbr.callbacks.chosen_epoch import ChosenEpoch
from llm4sbr.callbacks.run_folder import run_folder
from llm4sbr.callbacks.view_cache import ViewCache
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.examples import Examples
from llm4sbr.contracts.files import write_text
from llm4sbr.contracts.ranges import NonNegativeInt, PositiveInt, Ranged
from llm4sbr.report.evaluation_hooks import Seen
from llm4sbr.report.figures.snapshot import evenly
from llm4sbr.report.records import SessionStory
from llm4sbr.report.sessions import ranked_list, view_facts, view_stories
from llm4sbr.training.distributed import from_all_processes
from llm4sbr.training.ranking_module import RankingModule
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.reading import Intent

NAME = "samples.json"
_MODEL = "model"


class SampleSessions(Ranged, ChosenEpoch):
    """Shows validation sessions: clicks, intents, where they were localised, recommendations, rank.

    Of each view it has the gate and the share in the score of the first recommendation. The sessions are
    spread evenly over the split, and the same in every run on the same data. Written are those of the epoch
    that `ModelCheckpoint` chooses: to ``samples.json`` in the run's folder, and to Weights & Biases as the
    table ``samples``.

    Args:
        count: Number of sessions, with one example each.
        top_k: Number of recommendations per session.
    """

    def __init__(self, count: NonNegativeInt = 20, top_k: PositiveInt = 10) -> None:
        super().__init__()
        self.count, self.top_k = count, top_k
        self.stories: dict[int, dict[str, Any]] = {}  # keyed by row of the split
        self._shown: tuple[Examples, Catalogue] | None = None  # source of the sessions
        self._views: tuple[str, ...] = ()
        self._intents: dict[int, dict[str, Intent]] = {}
        self._found: dict[int, dict[str, Any]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the sessions and read their intents, once."""
        source = getattr(trainer, "datamodule", None)
        if source is None or not hasattr(source, "examples"):
            return
        examples = source.examples("validate")
        self._shown = examples, source.catalogue
        rows = evenly(self.count, len(examples))
        self._intents = {row: {} for row in rows}
        cache = ViewCache.of(trainer)
        if cache is None or cache.spec_used is None or cache.store is None:
            return
        self._views = cache.spec_used.views
        with ViewStore(cache.store) as store:
            for row in rows:
                found = store.intents(cache.spec_used, source.catalogue, examples.prefix(row))
                self._intents[row] = {intent.view: _nearest(intent, cache.r) for intent in found}

    def start(self, trainer: Trainer, pl_module: RankingModule) -> None:
        """Reset the records at the start of a validation."""
        self._found = {}

    def add_batch(self, seen: Seen) -> None:
        """Record the chosen sessions of a batch."""
        if self._shown is None:
            return
        examples, catalogue = self._shown
        for place, index in enumerate(seen.batch.example_index.tolist()):
            row = index - examples.first_index
            if row not in self._intents or not seen.batch.target[place]:
                continue
            target = int(examples.target[row])
            facts = view_facts(seen if self._views else None, place, len(self._views))
            known = dict(zip(self._views, facts.seen, strict=True))
            intents = {view: intent for view, intent in self._intents[row].items() if known[view]}
            story = SessionStory(
                session_id=examples.session_id(row),
                clicks=tuple(catalogue.title(item) for item in examples.prefix(row)),
                target=catalogue.title(target),
                views=view_stories(self._views, intents, facts, {}, catalogue),
                recommendations={
                    _MODEL: ranked_list(seen.scores[place].float().cpu(), target, catalogue, self.top_k)
                },
            )
            self._found[row] = _plain(story)

    def keep_epoch(self, trainer: Trainer, pl_module: RankingModule) -> None:
        """Gather the records of all processes. Called on every rank."""
        gathered = from_all_processes(self._found)
        together = {row: story for part in gathered for row, story in part.items()}
        self.stories = dict(sorted(together.items()))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and log the samples."""
        folder = run_folder(trainer)  # collective: call it on every rank
        if not trainer.is_global_zero or not self.stories:
            return
        stories = list(self.stories.values())
        write_text(folder / NAME, json.dumps(stories, indent=1, ensure_ascii=False) + "\n")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                rows = [_row(story) for story in stories]
                logger.log_table("samples", columns=list(rows[0]), data=[list(row.values()) for row in rows])

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run."""
        return {**super().state_dict(), "stories": self.stories}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of an interrupted run."""
        super().load_state_dict(state_dict)
        self.stories = state_dict["stories"]


def _nearest(intent: Intent, r: int | None) -> Intent:
    return intent if r is None else intent._replace(ids=intent.ids[:r], weights=intent.weights[:r])


def _plain(story: SessionStory) -> dict[str, Any]:
    """Convert a session's story with one model to plain values, for JSON and for a checkpoint."""
    ranked = story.recommendations[_MODEL]
    return {
        "session_id": story.session_id,
        "clicks": list(story.clicks),
        "next": story.target,
        "rank": ranked.target_rank,
        "views": {
            view.view: {
                "intent": view.intent,
                "source": view.source,
                "gate": view.gate,
                "share": view.share,
                "titles": [found._asdict() for found in view.localised],
            }
            for view in story.views
        },
        "recommendations": [item._asdict() for item in ranked.items],
    }


def _row(story: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a story to a row of a human-readable table."""
    row: dict[str, Any] = {"session_id": story["session_id"], "clicks": " → ".join(story["clicks"])}
    for name, view in story["views"].items():
        found = "; ".join(f"{title['title']} ({title['weight']:.2f})" for title in view["titles"])
        row |= {
            f"{name} intent": view["intent"],
            f"{name} localised": found,
            f"{name} source": view["source"],
            f"{name} share of the score": view["share"],
        }
    return row | {
        "recommendations": "\n".join(item["title"] for item in story["recommendations"]),
        "next": story["next"],
        "rank": story["rank"],
    }
