"""Small models as bundles, with the views of some sessions, without a run on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from every_backbone import ITEMS, TEXT, TRAINING, make
from torch import Tensor

from llm4sbr import SBRModule
from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.nn.heads import RepeatExplore, SequentialRules
from llm4sbr.serving import manifest as manifests
from llm4sbr.serving.bundle import Content, write_bundle
from llm4sbr.serving.known_views import pack_views
from llm4sbr.serving.manifest import Manifest, ServedViewsSpec
from llm4sbr.serving.model import build_model, serving_state
from llm4sbr.testing import make_batch, make_examples
from llm4sbr.views.localization import view_from_titles

CATALOGUE = Catalogue(
    tuple(f"B{item:03d}" for item in range(1, ITEMS + 1)), tuple(f"Soap {n}" for n in range(ITEMS))
)
SESSIONS = [[1, 2, 3, 2], [ITEMS], [5, 5, 5], [9, 8, 7, 6, 1], [4, 2]]
KNOWN = SESSIONS[::2]  # those with views
SPEC = ServedViewsSpec(("long_term", "short_term"), "llm", ("long_term", "short_term"), sessions=len(KNOWN))


def raw(sessions: list[list[int]]) -> list[list[str]]:
    """The shop's ids of sessions of item numbers."""
    return [[CATALOGUE.item_ids[item - 1] for item in session] for session in sessions]


def trained(name: str = "SRGNN", wrapped: bool = True, **options: object) -> SBRModule:
    """A model with every head, which has read its training sessions; its weights are random."""
    torch.manual_seed(1)
    model = make(name, wrapped, heads=[RepeatExplore(), SequentialRules(0.5, 4)], **options)
    model.read_training_sessions(make_examples(TRAINING), fitting=True)
    return model.eval()


def titles() -> tuple[Tensor, Tensor]:
    """Title embeddings and their mask; one item has no title."""
    drawn = torch.nn.functional.normalize(
        torch.randn(ITEMS, TEXT, generator=torch.Generator().manual_seed(2))
    )
    mask = torch.ones(ITEMS, dtype=torch.bool)
    mask[6] = False
    return drawn * mask.unsqueeze(1), mask


def known_rows() -> tuple[Tensor, Tensor]:
    """Ids and weights of the views of `KNOWN`; of one session one view is unknown."""
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(1, ITEMS + 1, (len(KNOWN), 2, 3), generator=draw, dtype=torch.int32)
    weights = torch.rand(ids.shape, generator=draw).half()
    ids[1, 0], weights[1, 0] = 0, 0
    return ids, weights


def with_known_views(sessions: list[list[int]]):
    """A batch with the views of those of `KNOWN` among the sessions, by hand."""
    ids, weights = known_rows()
    table = torch.cat((torch.zeros(1, TEXT), titles()[0]))
    views, mask = torch.zeros(len(sessions), 2, TEXT), torch.zeros(len(sessions), 2, dtype=torch.bool)
    for row, session in enumerate(sessions):
        if session in KNOWN:
            place = KNOWN.index(session)
            views[row] = view_from_titles(ids[place], weights[place], table)
            mask[row] = (ids[place] > 0).any(-1)
    return make_batch(sessions)._replace(views=views, view_mask=mask)


def bundle(
    folder: Path,
    model: SBRModule,
    *,
    spec: ServedViewsSpec | None = None,
    max_length: int | None = 5,
    catalogue: Catalogue = CATALOGUE,
    further: tuple[list[bytes], Tensor, Tensor] = (
        [],
        torch.zeros(0, 2, 3).int(),
        torch.zeros(0, 2, 3).half(),
    ),
) -> Path:
    """Write the bundle of a model, with the known views of a wrapped one if `spec` says so.

    `further` has keys, ids and weights of known views beside those of `KNOWN`.
    """
    ids, weights = known_rows()
    keys = [catalogue.session_key(session) for session in KNOWN]
    if further is not None:
        keys += further[0]
        ids, weights = torch.cat((ids, further[1])), torch.cat((weights, further[2]))
    described = Manifest(
        model=model.described(),
        num_items=ITEMS,
        catalogue=catalogue.fingerprint,
        max_length=max_length,
        views=spec,
    )
    content = Content(
        serving_state(model, build_model(model.described())),
        catalogue,
        titles() if spec else None,
        pack_views(keys, {"ids": ids, "weights": weights}) if spec and spec.source == "llm" else None,
    )
    return write_bundle(folder, described, content)


def edited(folder: Path, **fields: object) -> None:
    """Change fields of a manifest, and sign it and its files again, as somebody who means harm would."""
    path = folder / manifests.MANIFEST
    content = json.loads(path.read_text()) | fields
    content["files"] = {name: manifests._sums(folder / name) for name in content["files"]}
    del content["sha256"]
    content["sha256"] = manifests._checksum(content)
    path.write_text(json.dumps(content))


def only_long_term() -> ServedViewsSpec:
    """The same views, of which the model reads one."""
    return replace(SPEC, used=("long_term",))
