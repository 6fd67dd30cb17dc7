"""The order of asking: prefixes of one session stand together, and the data's order has no say."""

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from llm4sbr.views.inference.lightning import Chunks
from llm4sbr.views.inference.progress import StopRequest
from llm4sbr.views.inference.sessions import batched, in_chains, session_keys

PREFIXES = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple), max_size=25, unique=True)


def key(prefix):
    return bytes(prefix)


@given(PREFIXES, st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_every_session_once_in_chains_that_grow(prefixes, seed):
    """Seen to fail with the chains' order taken from the data."""
    order = in_chains({key(prefix): prefix for prefix in prefixes}, seed)
    assert sorted(order) == sorted(map(key, prefixes))
    shuffled = random.Random(seed).sample(prefixes, len(prefixes))
    assert in_chains({key(prefix): prefix for prefix in shuffled}, seed) == order
    # Where a session's first prefixes stand, all that grow from the latest one follow at once.
    extends = [b[: len(a)] == a for a, b in pairwise(order)]
    ranked = sorted(prefixes)
    chained = sum(b[: len(a)] == a for a, b in pairwise(ranked))
    assert sum(extends) >= chained


def test_the_prefixes_that_a_data_module_has_cut_follow_one_another():
    """Seen to fail with growing prefixes alone: sliding ones then stand anywhere."""
    clicks = (1, 2, 3, 1, 2, 5, 3, 4, 1, 5, 2)
    session = [clicks[max(0, end - 4) : end] for end in range(1, len(clicks) + 1)]
    others = [(9, number) for number in range(10, 40)]
    order = in_chains({key(prefix): prefix for prefix in [*others, *session]}, 0)
    begin = order.index(key(session[0]))
    assert order[begin : begin + len(session)] == [key(prefix) for prefix in session]


def test_a_slide_that_bites_its_own_tail_is_asked_about_once():
    prefixes = [(1, 2), (2, 1), (3, 3)]
    assert sorted(in_chains({key(prefix): prefix for prefix in prefixes}, 0)) == sorted(map(key, prefixes))


def test_another_seed_is_another_order(stubs):
    source = stubs.FakeSource()
    sessions = dict(session_keys(source, "train"))
    assert in_chains(sessions, 0) != in_chains(sessions, 1)
    assert in_chains(sessions, 0) == in_chains(sessions, 0)
    assert in_chains({}, 0) == []


def test_a_limit_is_spread_over_the_data_and_a_larger_one_extends_it(stubs):
    """Chains are shuffled by content: the first hundred sessions are not the catalogue's first items'."""
    source = stubs.FakeSource(num_sessions=400)
    sessions = dict(session_keys(source, "train"))
    order = in_chains(sessions, 0)
    first = [sessions[key][0] for key in order[:200]]
    assert len(set(first)) > 20
    assert set(order[:50]) <= set(order[:100])


def test_keys_stand_in_example_order(stubs):
    source = stubs.FakeSource()
    pairs = session_keys(source, "train")
    assert [prefix for _, prefix in pairs] == source.examples("train").prefixes()
    assert [key for key, _ in pairs] == source.keys("train")


def test_processes_share_the_chunks_until_a_stop():
    """Seen to fail with every chunk given to every process."""
    keys, stop = [bytes([number]) for number in range(11)], StopRequest()
    shares = [list(Chunks(keys, 2, stop, rank, 3)) for rank in range(3)]
    assert shares[1] == [keys[2:4], keys[8:10]]
    assert sorted(key for share in shares for chunk in share for key in chunk) == keys
    stopped = iter(Chunks(keys, 2, stop))
    next(stopped)
    stop._requested = True
    assert list(stopped) == []


def test_batched():
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []
