"""A view store in a tenth of its size: of every session the key, ids and weights, and which titles answered.

A store of all of Beauty's prefixes has 250 MB, because it keeps answers as text, with a checksum per row.
Under decoding constrained to the catalogue an answer is a title, so its index in the catalogue is enough.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.views.engines import Answer, Choice
from llm4sbr.views.prompts import shown_titles
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.reading import LocalisedRows, StoreReader
from llm4sbr.views.store.spec import ViewSpec

_BATCH = 10_000  # sessions of one transaction


def write_answers(store: StoreReader, spec: ViewSpec, catalogue: Catalogue, path: Path) -> int:
    """Write the sessions that have all views of a spec; returns how many there are.

    Args:
        store: Where they are.
        spec: Views of answers constrained to the catalogue, several per prompt.
        catalogue: Whose titles answered.
        path: The ``.npz`` file.

    Raises:
        InputError: An answer is not one of the catalogue's titles.
    """
    titles = shown_titles(catalogue.titles, spec.answers[0].max_title_chars)
    place = {title: at for at, title in reversed(list(enumerate(titles)))}
    views = [dict(store.answers(one)) for one in spec.answers]
    keys = sorted(store.localised_keys(spec).intersection(*views))
    width = max((len(answer.choices) for view in views for answer in view.values()), default=0)
    shape = (len(keys), len(views))
    choice, chance = np.full((*shape, width), -1, np.int32), np.zeros((*shape, width), np.float32)
    tokens = np.zeros((*shape, 3), np.int32)
    for row, key in enumerate(keys):
        for column, view in enumerate(views):
            answer = view[key]
            if not answer.choices or any(one.text not in place for one in answer.choices):
                raise InputError(
                    "this answer is not a title of the catalogue", path=store.path, row=key.hex()
                )
            for rank, one in enumerate(answer.choices):
                choice[row, column, rank], chance[row, column, rank] = place[one.text], one.probability
            tokens[row, column] = answer.prompt_tokens, answer.computed_tokens, answer.answer_tokens
    found = store.lookup_localised(spec, keys)
    scratch = path.with_name(f".tmp-{path.name}")
    np.savez(
        scratch,
        spec=np.array(spec.to_json()),
        keys=np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), 16),
        choice=choice,
        probability=chance,
        tokens=tokens,
        ids=found.ids,
        weights=found.weights,
    )
    scratch.replace(path)
    return len(keys)


def read_answers(path: Path, catalogue: Catalogue, store: ViewStore) -> ViewSpec:
    """Take what `write_answers` wrote into a store; returns its spec.

    Probabilities come back in single precision. Prompts are not kept, so the same prompt of another session
    is sent again.

    Raises:
        InputError: The file is of another catalogue, or names what is not there.
    """
    with np.load(path, allow_pickle=False) as part:
        kept = {name: part[name] for name in part.files}
    spec = ViewSpec.from_json(str(kept["spec"]))
    titles = shown_titles(catalogue.titles, spec.answers[0].max_title_chars)
    if spec.catalogue != catalogue.fingerprint:
        raise InputError("these are views of another catalogue", path=path)
    if kept["choice"].max(initial=-1) >= len(titles) or kept["ids"].max(initial=0) > catalogue.num_items:
        raise InputError("a title is named that is not in the catalogue", path=path)
    keys = [row.tobytes() for row in kept["keys"]]
    for begin in range(0, len(keys), _BATCH):
        here = range(begin, min(begin + _BATCH, len(keys)))
        store.add_answers(
            (one, keys[row], _answer(kept, row, column, titles))
            for row in here
            for column, one in enumerate(spec.answers)
        )
        ids, weights = kept["ids"][begin : here.stop], kept["weights"][begin : here.stop]
        rows = LocalisedRows(ids, weights, np.any(ids > 0, axis=-1))
        store.add_localised(spec, keys[begin : here.stop], rows)
    return spec


def _answer(kept: dict[str, np.ndarray], row: int, column: int, titles: list[str]) -> Answer:
    pairs = zip(kept["choice"][row, column].tolist(), kept["probability"][row, column].tolist(), strict=True)
    choices = tuple(Choice(titles[at], chance) for at, chance in pairs if at >= 0)
    prompt, computed, answered = kept["tokens"][row, column].tolist()
    return Answer(choices[0].text, prompt, computed, answered, True, choices)
