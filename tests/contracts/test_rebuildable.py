"""Objects are described in plain values and made again from them, and nothing else is built."""

import copy
import pickle

import pytest
import torch

from llm4sbr import InputError, ModuleBackbone
from llm4sbr.backbones import SRGNN, GRU4Rec
from llm4sbr.contracts.rebuildable import Rebuildable, arguments, describe
from llm4sbr.nn.heads import ItemTitles, SequentialRules


class Whole(Rebuildable):
    def __init__(self, part, *, sizes=(), **more):
        self.part, self.sizes, self.more = part, sizes, more


class Items(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.items = torch.nn.Embedding(6, 4, padding_idx=0)


def again(made, *classes):
    description = describe(made)
    return type(made)(**arguments(description, classes))


def test_what_is_made_again_is_what_was_made():
    whole = Whole(
        SRGNN(10, embedding_dim=8), sizes=(1, 2), heads=[ItemTitles(3)], settings={"a": [None, "b"]}
    )
    found = again(whole, SRGNN, ItemTitles)
    assert (found.part.num_items, found.part.embedding_dim, found.part.steps) == (10, 8, 1)
    assert (found.sizes, found.more["settings"]) == ([1, 2], {"a": [None, "b"]})
    assert found.more["heads"][0].axes == 3


def test_a_description_is_plain():
    """`torch.load(weights_only=True)` reads it."""
    described = describe(Whole(SRGNN(10, 8), heads=[SequentialRules(2.0)]))
    assert described["init_args"]["part"] == {
        "class_path": "llm4sbr.backbones.srgnn.SRGNN",
        "init_args": {"num_items": 10, "embedding_dim": 8, "steps": 1, "readout_bias": False},
    }
    assert pickle.loads(pickle.dumps(described)) == described


def test_a_class_that_is_not_given_is_not_built():
    with pytest.raises(InputError, match="not registered"):
        again(Whole(SRGNN(10, 8)), GRU4Rec)
    evil = {"class_path": "x.Whole", "init_args": {"part": {"class_path": "os.system", "init_args": {}}}}
    with pytest.raises(InputError, match=r"os\.system"):
        arguments(evil, [SRGNN])


def test_what_has_no_plain_form_is_left_out():
    core = ModuleBackbone(5, Items(), lambda module, batch: None, "items")
    assert arguments(describe(Whole(core, sizes=[1])), [ModuleBackbone]) == {"sizes": [1]}


@pytest.mark.parametrize("junk", [None, [], "x", {"init_args": 3}, {}])
def test_what_is_no_description_is_refused(junk):
    with pytest.raises(InputError, match="no description"):
        arguments(junk, [])


def test_copies_know_what_they_were_made_with():
    """Copying calls no constructor."""
    for twin in (copy.deepcopy(SRGNN(10, 8)), pickle.loads(pickle.dumps(SRGNN(10, 8)))):
        assert describe(twin) == describe(SRGNN(10, 8))


def test_a_wrong_argument_is_the_constructors_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'stepz'"):
        SRGNN(10, stepz=1)
