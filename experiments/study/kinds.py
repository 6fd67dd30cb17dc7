"""Groups of test examples, by the next item in training and by the session: pure functions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.examples import Examples

CLICKS = (0, 5, 20, 100)  # upper ends of all bins but the last
LENGTHS = (1, 3, 9)
NEARNESS = (20, 100, 1000)
Groups = dict[str, npt.NDArray[np.bool_]]  # masks (E,) by name


def kinds(
    train: Examples, test: Examples, catalogue: Catalogue, titles: torch.Tensor | None
) -> dict[str, Groups]:
    """Divide the test examples into groups, in several ways.

    Args:
        train: Examples of the training split.
        test: Examples of the test split.
        catalogue: Catalogue of both splits.
        titles: Title embeddings ``(V + 1, d_t)``, with row 0 for padding; None leaves out the nearness of
            titles.
    """
    clicked, known = steps(train, catalogue.num_items)
    times = np.bincount(clicked, minlength=catalogue.num_items + 1)
    own = test.clicks[test.end - 1].astype(np.int64) * (catalogue.num_items + 1) + test.target
    seen = np.isin(own, known)
    found = {
        "clicks of the next item in training": binned(times[test.target], CLICKS),
        "the step to it, in training": {"seen": seen, "not seen": ~seen},
        "clicks of the session": binned(test.end - test.start, LENGTHS, low=1),
    }
    if titles is not None:
        found["its title, nth nearest of the last click's"] = binned(
            title_rank(test, titles), NEARNESS, low=1
        )
    return found


def binned(values: npt.NDArray[np.int64], ends: tuple[int, ...], low: int = 0) -> Groups:
    """Group examples by an integer of at least `low`, in bins up to each of `ends` and one bin beyond.

    >>> {name: found.tolist() for name, found in binned(np.array([0, 7, 2]), (0, 5)).items()}
    {'0': [True, False, False], '1–5': [False, False, True], 'more than 5': [False, True, False]}
    """
    found: Groups = {}
    for end in ends:
        found[f"{low}–{end}" if low < end else f"{end}"] = (values >= low) & (values <= end)
        low = end + 1
    return found | {f"more than {ends[-1]}": values >= low}


def steps(examples: Examples, num_items: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return every click and every distinct step between clicks of sessions, given by all their prefixes."""
    last = examples.clicks[examples.end - 1].astype(np.int64)
    first = last[examples.end - examples.start == 1]
    clicked = np.concatenate((first, examples.target))
    return clicked, np.unique(last * (num_items + 1) + examples.target)


def title_rank(examples: Examples, titles: torch.Tensor) -> npt.NDArray[np.int64]:
    """Rank the title of the next item by its cosine with that of the last click, which itself ranks first.

    Args:
        examples: ``E`` examples.
        titles: Title embeddings ``(V + 1, d_t)``, with row 0 for padding.
    """
    unit = normalize(titles.float(), dim=-1)
    last = torch.from_numpy(examples.clicks[examples.end - 1].astype(np.int64))
    target = torch.from_numpy(examples.target.astype(np.int64))
    found = []
    for own, wanted in zip(torch.split(last, 512), torch.split(target, 512), strict=True):
        scores = unit[own] @ unit[1:].T
        found.append((scores > scores.gather(1, wanted.unsqueeze(1) - 1)).sum(1) + 1)
    return np.asarray(torch.cat(found).numpy())
