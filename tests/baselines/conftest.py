"""The baselines' equations once more, with loops over sets and dictionaries: slow, and easy to read."""

import math
import random
from types import SimpleNamespace

import pytest


def decay(kind, age, length, horizon):
    return {
        "last": 1.0 if age == 0 else 0.0,
        "uniform": 1.0,
        "linear": (length - age) / length,
        "quadratic": ((length - age) / length) ** 2,
        "harmonic": 1 / (age + 1),
        "log": 1 / math.log10(age + 1.7),
        "exponential": math.exp(-age / horizon),
    }[kind]


def position(session, item):
    """From 1, of the latest click."""
    return max(place for place, clicked in enumerate(session, start=1) if clicked == item)


def random_sessions(seed, count=25, num_items=12, longest=8):
    dice = random.Random(seed)
    return [[dice.randint(1, num_items) for _ in range(dice.randint(2, longest))] for _ in range(count)]


def item_knn(
    training, session, num_items, neighbors=100, regularization=20.0, alpha=0.5, order="any",
    pair_decay="uniform", weighting="last", horizon=2.0, remind=True,
):  # fmt: skip
    support = {item: sum(item in one for one in training) for item in range(1, num_items + 1)}
    scores = dict.fromkeys(range(1, num_items + 1), 0.0)
    for asking in set(session):
        weight = decay(weighting, len(session) - position(session, asking), len(session), horizon)
        similarity = {}
        for other in scores:
            count = 0.0
            for one in training:
                if order == "later":  # every click with every later one
                    count += sum(
                        decay(pair_decay, there - here - 1, len(one), horizon)
                        for here, first in enumerate(one)
                        for there, second in enumerate(one)
                        if here < there and (first, second) == (asking, other)
                    )
                    continue
                if asking == other or asking not in one or other not in one:
                    continue
                gap = position(one, other) - position(one, asking)
                count += decay(pair_decay, abs(gap) - 1, len(one), horizon)
            if count > 0:
                norm = (support[asking] + regularization) ** alpha
                similarity[other] = count / (norm * (support[other] + regularization) ** (1 - alpha))
        best = sorted(similarity, key=lambda item: (-round(similarity[item], 7), -item))[:neighbors]
        for other in best:
            scores[other] += weight * similarity[other]
    return [0.0 if item in session and not remind else score for item, score in scores.items()]


def session_knn(
    training, session, num_items, k=500, sample_size=1000, similarity="cosine", weighting="uniform",
    score_weighting="uniform", idf=0.0, horizon=2.0, item_horizon=None, remind=True, own=None,
):  # fmt: skip
    length = len(session)
    weights = {
        item: decay(weighting, length - position(session, item), length, horizon) for item in set(session)
    }
    norm = math.sqrt(sum(weight**2 for weight in weights.values()))
    candidates = []  # latest first
    for number in reversed(range(len(training))):
        dot = sum(weights[item] for item in set(training[number]) & set(session))
        if number != own and dot > 0:
            cosine = dot / (norm * math.sqrt(len(set(training[number]))))
            candidates.append((number, cosine if similarity == "cosine" else dot))
    candidates = candidates[: sample_size or len(candidates)]
    # Sorting is stable: of equally similar sessions the latest stay in front.
    candidates = sorted(candidates, key=lambda one: -round(one[1], 7))[:k]
    scores = dict.fromkeys(range(1, num_items + 1), 0.0)
    for number, value in candidates:
        neighbor = training[number]
        shared = set(neighbor) & set(session)
        age = min(length - position(session, item) for item in shared)
        anchor = max(position(neighbor, item) for item in shared)
        for item in set(neighbor):
            vote = value * decay(score_weighting, age, length, horizon)
            if item_horizon is not None:
                vote *= math.exp(-abs(position(neighbor, item) - anchor) / item_horizon)
            scores[item] += vote * (1 + idf * math.log(len(training) / sum(item in one for one in training)))
    return [0.0 if item in session and not remind else score for item, score in scores.items()]


@pytest.fixture
def by_hand():
    """The equations with loops."""
    return SimpleNamespace(item_knn=item_knn, session_knn=session_knn, random_sessions=random_sessions)
