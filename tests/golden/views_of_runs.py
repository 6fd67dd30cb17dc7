"""Stage 1 of the golden runs: views of the stub LLM and of the titles, and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from data_of_runs import HashedWords, engine, hex_of, make_data, sha256

from llm4sbr.views import PromptOptions, Selection, ViewStore, infer_views, load_view_table

SPLITS = ("train", "validate", "test", "predict")
SHOWN = 12  # sessions whose localised views are kept number by number


def infer(folder: Path, store_folder: Path) -> dict[str, Any]:
    """Make both kinds of views of the shop in `folder`, and describe data and views.

    The LLM is asked about 90 sessions of about 130, in two calls, so that some have no views.
    """
    data, asked = make_data(folder), engine()
    with ViewStore(store_folder) as store:
        common = {"encoder": HashedWords(), "progress": False}
        for limit in (40, 90):
            which, shown = Selection(limit=limit, seed=3), PromptOptions(max_items=4)
            llm = infer_views(data, store, engine=asked, r=4, sessions=which, prompts=shown, **common)
        titles = infer_views(data, store, view_source="titles", **common)
        return {
            "data": _data(data),
            "llm": {
                "spec": llm.spec,
                "answer specs": sorted(spec.fingerprint for spec in store.answer_specs()),
                "prompts": len(asked.asked),
                "prompts in order sha256": sha256(*(f"{prompt}\0" for prompt in asked.asked)),
                "first prompt": asked.asked[0],
                "sessions": [llm.sessions, llm.selected, llm.reused],
                "coverage": {split: hex_of(share) for split, share in llm.coverage.items()},
                **_localised(store, data, llm.spec),
            },
            "titles": {"spec": titles.spec},
            "tables": {
                "llm": _table(store, data, "llm"),
                "llm, else titles": _table(store, data, "llm", "titles"),
                "llm, r = 2": _table(store, data, "llm", r=2),
                "titles": _table(store, data, "titles"),
            },
        }


def _data(data: Any) -> dict[str, Any]:
    parts = {split: data.examples(split) for split in SPLITS}
    return {
        "catalogue": data.catalogue.fingerprint,
        "items": data.num_items,
        "examples": {split: len(part) for split, part in parts.items()},
        "examples sha256": {
            split: sha256(
                str([list(map(int, prefix)) for prefix in part.prefixes()]), str(part.target.tolist())
            )
            for split, part in parts.items()
        },
    }


def _localised(store: ViewStore, data: Any, fingerprint: str) -> dict[str, Any]:
    (spec,) = [spec for spec in store.view_specs() if spec.fingerprint == fingerprint]
    prefixes = [prefix for split in SPLITS for prefix in data.examples(split).prefixes()]
    keys = sorted({data.catalogue.session_key(prefix) for prefix in prefixes})
    rows = store.lookup_localised(spec, keys)
    titles, mask = store.titles(spec)
    known = [place for place in range(len(keys)) if rows.mask[place].all()]
    return {
        "keys sha256": sha256(*keys),
        "localised": len(known),
        "titles sha256": sha256(titles, mask),
        "ids": [rows.ids[place].tolist() for place in known[:SHOWN]],
        "weights": [
            [[hex_of(weight) for weight in view] for view in rows.weights[place].tolist()]
            for place in known[:SHOWN]
        ],
        "ids and weights sha256": sha256(str(rows.ids.tolist()), str(rows.weights.tolist())),
    }


def _table(store: ViewStore, data: Any, spec: str, fallback: str = "mask", r: int | None = None) -> Any:
    """Digest of the dense views that training would see, and a few of their numbers."""
    table = load_view_table(store, data, spec, fallback, r=r).table
    made = [table(batch) for loader in (data.val_dataloader(), data.test_dataloader()) for batch in loader]
    views, mask = (torch.cat(part) for part in zip(*made, strict=True))
    return {
        "known": mask.sum(0).tolist(),
        "length of each": [[hex_of(one) for one in row] for row in views.double().norm(dim=-1)[:4].tolist()],
        "views sha256": sha256(views, mask),
    }
