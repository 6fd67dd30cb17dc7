"""Token trees against a trie written out by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4sbr.views.engines.prefix_tree import grow_trees, shared_beginning

# Three tokens and short lists: beginnings are shared often, prompts repeat, one is the prefix of another.
PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=14)


def path_of(tree, prompt):
    """Nodes that a prompt's last token sees."""
    return np.flatnonzero(tree.ancestors(tree.leaf[[prompt]])[0])


def ancestors_by_hand(tree):
    """Walk the preorder with a stack: the parent is the latest node that is one less deep."""
    stack, found = [], []
    for node, depth in enumerate(tree.depth):
        del stack[depth:]
        stack.append(node)
        found.append(list(stack))
    return found


def nodes_of_a_trie(prompts):
    """How many tokens a trie over the prompts without their last tokens has."""
    return len({tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt))})


@given(PROMPTS, st.integers(0, 3), st.integers(1, 30), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_every_prompt_is_its_path(prompts, skip, max_tokens, least_shared):
    """Seen to fail with `end` set one too late, and with `shared` counted from the skipped tokens."""
    prompts = [[7] * skip + prompt for prompt in prompts]
    trees = list(grow_trees(prompts, skip, max_tokens, least_shared))
    assert sorted(np.concatenate([tree.place for tree in trees])) == list(range(len(prompts)))
    for tree in trees:
        for at, place in enumerate(tree.place):
            path = path_of(tree, at)
            assert [*tree.tokens[path], tree.last[at]] == prompts[place][skip:]
            assert tree.depth[path].tolist() == list(range(len(path)))
            assert (tree.leaf[at] < 0) == (len(path) == 0)
        every = tree.ancestors(np.arange(len(tree.tokens)))
        assert [np.flatnonzero(row).tolist() for row in every] == ancestors_by_hand(tree)
        assert tree.new.sum() == len(tree.tokens) + len(tree.last)
        assert (tree.new >= 1).all()
        inner = [prompts[place][skip:-1] for place in tree.place]
        assert len(tree.tokens) <= max(max_tokens, len(inner[0]))
        for before, here in pairwise(inner):  # neighbours share what they were asked to
            common = next((n for n, (a, b) in enumerate(zip(before, here, strict=False)) if a != b), None)
            assert (min(len(before), len(here)) if common is None else common) >= least_shared


@given(PROMPTS)
@settings(max_examples=100, deadline=None)
def test_nothing_is_computed_twice(prompts):
    """One tree without limits is the trie itself. Seen to fail with the prompts left unsorted."""
    (tree,) = grow_trees(prompts, max_tokens=10**6, least_shared=0)
    assert len(tree.tokens) == nodes_of_a_trie(prompts)
    paths = [tuple(tree.tokens[nodes]) for nodes in ancestors_by_hand(tree)]
    assert len(set(paths)) == len(paths)


@given(PROMPTS)
@settings(max_examples=100, deadline=None)
def test_shared_beginning_leaves_a_token_of_each(prompts):
    shared = shared_beginning(prompts)
    longest = min(map(len, prompts)) - 1
    assert shared == max(n for n in range(longest + 1) if len({tuple(p[:n]) for p in prompts}) == 1)
    assert list(grow_trees(prompts, skip=shared))


def test_single_tokens_prefixes_and_duplicates():
    (alone,) = grow_trees([[5]])
    assert (len(alone.tokens), alone.leaf.tolist(), alone.last.tolist()) == (0, [-1], [5])
    assert not alone.ancestors(alone.leaf).any()
    (tree,) = grow_trees([[1, 2, 3], [1], [1, 2], [1, 2, 3]], least_shared=0)
    assert tree.tokens.tolist() == [1, 2]
    assert tree.place.tolist() == [1, 2, 0, 3]
    assert tree.leaf.tolist() == [-1, 0, 1, 1]
    assert tree.new.tolist() == [1, 2, 2, 1]
    assert list(grow_trees([])) == []
    assert shared_beginning([]) == 0


@pytest.mark.parametrize(("max_tokens", "trees"), [(100, 1), (10, 2), (1, 4)])
def test_a_tree_stops_growing(max_tokens, trees):
    prompts = [[*range(8), end, end] for end in (10, 11, 12, 13)]
    assert len(list(grow_trees(prompts, max_tokens=max_tokens))) == trees
    assert len(list(grow_trees(prompts, max_tokens=max_tokens, least_shared=9))) == 4
