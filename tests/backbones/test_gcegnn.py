"""GCE-GNN against the paper's equations in loops, and the graph that it reads from the training sessions."""

import copy
import io
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning import Trainer
from plain import plain_bare

from llm4sbr import InputError
from llm4sbr.backbones.dhcn import DHCN
from llm4sbr.backbones.gcegnn import GCEGNN
from llm4sbr.backbones.position_attention import find_clicks
from llm4sbr.datamodules import SessionDataModule
from llm4sbr.datamodules.rules import SplitBy
from llm4sbr.testing import assert_backbone, make_batch, make_examples

TRAINING = [
    [1, 2, 3, 4, 1, 2],
    [2, 1, 2, 5, 5, 6],
    [3, 8, 1],
    [6, 2, 8, 3, 1, 5, 4, 7],
    [4, 3, 2],
]
SESSIONS = [
    [3],
    [1, 2, 3],
    [4, 5, 4, 6, 5, 4],
    [7, 7, 7],
    [9],
    [2, 9, 9, 10, 2],
    [1, 2, 3, 4, 5, 6, 7, 8] * 3,
]


def built(**options):
    torch.manual_seed(0)
    model = GCEGNN(10, 6, **options).eval()
    model.read_training_sessions(make_examples(TRAINING))
    return model


@pytest.mark.parametrize(
    "options", [{}, {"hops": 2, "num_neighbours": 2}, {"hops": 3, "window": 1}, {"max_length": 8}]
)
def test_contract(options):
    assert_backbone(lambda num_items: GCEGNN(num_items, 16, **options))


def neighbours_by_hand(sessions, window, num_neighbours):
    """``{item: [(neighbour, weight), ...]}``, heaviest first."""
    weights = {}
    for session in sessions:
        for i, item in enumerate(session):
            for j, other in enumerate(session):
                if i != j and abs(i - j) <= window:
                    weights.setdefault(item, Counter())[other] += 1
    return {
        item: sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))[:num_neighbours]
        for item, found in weights.items()
    }


@pytest.mark.parametrize(("window", "num_neighbours"), [(1, 12), (3, 12), (3, 2), (9, 3)])
def test_the_global_graph_is_the_papers(window, num_neighbours):
    graph = built(window=window, num_neighbours=num_neighbours).global_graph
    expected = neighbours_by_hand(TRAINING, window, num_neighbours)
    assert graph.neighbours.shape == graph.weights.shape == (11, num_neighbours)
    for item in range(11):
        real = [
            (int(neighbour), int(weight))
            for neighbour, weight in zip(graph.neighbours[item], graph.weights[item], strict=True)
            if weight > 0
        ]
        assert real == expected.get(item, [])
        assert graph.neighbours[item, len(real) :].eq(0).all()


def test_a_random_graph_is_the_papers():
    sessions = [row.tolist() for row in np.random.default_rng(0).integers(1, 31, (40, 9))]
    model = GCEGNN(30, 4)
    model.read_training_sessions(make_examples(sessions))
    for item, expected in neighbours_by_hand(sessions, 3, 12).items():
        assert model.global_graph.neighbours[item].tolist()[: len(expected)] == [n for n, _ in expected]
        assert model.global_graph.weights[item].tolist()[: len(expected)] == [w for _, w in expected]


def gcegnn_by_hand(model, session, hops, num_neighbours):
    """The paper's equations for one session: read-out, last click's state and scores."""
    h = {item: model.embedding.weight[item] for item in range(1, 11)}
    around = neighbours_by_hand(TRAINING, 3, num_neighbours)
    leaky = torch.nn.LeakyReLU(0.2)

    # The global level: session-aware attention, hop by hop.
    s = sum(h[item] for item in session) / len(session)

    def globally(item, hop):
        if hop == 0:
            return h[item]
        layer = model.hops[hop - 1]
        mixed = torch.zeros(6)
        if item in around:
            states = [globally(other, hop - 1) for other, _ in around[item]]
            logits = []
            for state, (_, weight) in zip(states, around[item], strict=True):
                seen = torch.cat((s * state, torch.tensor([float(weight)])))
                logits.append(layer.score.weight[0] @ leaky(layer.relate.weight @ seen))
            shares = torch.stack(logits).exp() / torch.stack(logits).exp().sum()
            mixed = sum(share * state for share, state in zip(shares, states, strict=True))
        return torch.relu(layer.combine.weight @ torch.cat((globally(item, hop - 1), mixed)))

    # The session level: attention by type of edge.
    moves = set(pairwise(session))
    a_out, a_in, a_both, a_self = model.session_attention.types.weight

    def locally(item):
        logits, states = [], []
        for other in sorted(set(session)):
            goes, comes = (item, other) in moves, (other, item) in moves
            if other == item:
                a = a_self
            elif goes and comes:
                a = a_both
            elif goes:
                a = a_out
            elif comes:
                a = a_in
            else:
                continue
            logits.append(leaky(a @ (h[item] * h[other])))
            states.append(h[other])
        shares = torch.stack(logits).exp() / torch.stack(logits).exp().sum()
        return sum(share * state for share, state in zip(shares, states, strict=True))

    clicks = [globally(item, hops) + locally(item) for item in session]

    # The read-out, with positions counted from the end.
    out = model.readout
    mean = sum(clicks) / len(clicks)
    total = torch.zeros(6)
    for i, click in enumerate(clicks):
        position = out.position.weight[len(clicks) - 1 - i]
        z = torch.tanh(out.locate.weight @ torch.cat((click, position)) + out.locate.bias)
        inner = out.attend_click.weight @ z + out.attend_session.weight @ mean + out.attend_click.bias
        total = total + (out.attend_score.weight[0] @ torch.sigmoid(inner)) * click
    return total, clicks[-1], total @ torch.stack([h[item] for item in range(1, 11)]).T


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize(("hops", "num_neighbours"), [(1, 12), (2, 3)])
def test_gcegnn_is_the_papers(session, hops, num_neighbours):
    model = built(hops=hops, num_neighbours=num_neighbours)
    batch = make_batch([[8, 9, 1], session, [2]], padding=2)
    long_term, short_term, scores = gcegnn_by_hand(model, session, hops, num_neighbours)
    interests = model.encode(batch)
    assert torch.allclose(interests.long_term[1], long_term, atol=1e-5)
    assert torch.allclose(interests.short_term[1], short_term, atol=1e-5)
    assert torch.allclose(model(batch)[1], scores, atol=1e-5)
    assert torch.equal(model.merge(interests), interests.long_term)


def test_dropout_takes_from_the_global_states_alone():
    batch = make_batch(SESSIONS)
    model = built(dropout=0.0).train()
    assert torch.equal(model(batch), model.eval()(batch))
    model = built(dropout=0.9).train()
    assert not torch.equal(model(batch), model(batch))
    seen = []
    model.dropout.register_forward_hook(lambda _module, args, _output: seen.append(args[0]))
    model(batch)
    assert len(seen) == 1
    items, contexts = [], []
    for row, session in enumerate(SESSIONS):
        items += [(row, item) for item in sorted(set(session))]
        contexts.append(model.embedding.weight[session].mean(0))
    rows, nodes = torch.tensor(items).T
    assert torch.allclose(seen[0], model.aggregate(nodes, rows, torch.stack(contexts)), atol=1e-6)


# What it learns of the training sessions.


def test_only_training_sessions_enter_the_graph(tmp_path):
    (tmp_path / "events.csv").write_text(
        "session_id,item_id,timestamp,split\n"
        "a,w,1,train\na,x,2,train\nb,x,1,valid\nb,y,2,valid\nc,x,1,test\nc,z,2,test\nd,w,1,train\nd,y,2,train\n"
    )
    (tmp_path / "items.csv").write_text("item_id,title\nw,W\nx,X\ny,Y\nz,Z\n")
    data = SessionDataModule(str(tmp_path), split=SplitBy(by="column"), cache_dir=str(tmp_path / "cache"))
    model = plain_bare(GCEGNN(data.num_items, 4))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    catalogue = data.catalogue
    w, x, y, z = (catalogue.titles.index(title) + 1 for title in "WXYZ")
    graph = model.backbone.global_graph
    found = {item: set(graph.neighbours[item].tolist()) - {0} for item in (w, x, y, z)}
    assert found == {w: {x, y}, x: {w}, y: {w}, z: set()}


def test_clicks_that_no_training_example_has_do_not_enter():
    """The clicks of an `Examples` may be those of all splits; its examples say which are its own."""
    examples = make_examples([[1, 2, 3], [4, 5], [6, 7, 8]])
    own = examples.session != 1
    cut = replace(
        examples,
        start=examples.start[own],
        end=examples.end[own],
        target=examples.target[own],
        session=examples.session[own],
    )
    model = GCEGNN(10, 4)
    model.read_training_sessions(cut)
    assert model.global_graph.weights[[4, 5]].sum() == 0
    assert model.global_graph.weights[[1, 2, 3, 6, 7, 8]].sum(1).tolist() == [2] * 6


def test_reading_again_replaces_the_graph():
    model = built()
    model.read_training_sessions(make_examples([[1, 2]]))
    assert model.global_graph.weights.sum() == 2


def test_without_training_sessions_it_says_so():
    model = GCEGNN(10, 4)
    with pytest.raises(InputError, match=r"has not read.*read_training_sessions"):
        model.encode(make_batch([[1, 2]]))
    with pytest.raises(InputError, match="no training sessions"):
        model.read_training_sessions(make_examples([[1]]))
    with pytest.raises(InputError, match="built for 10 items"):
        model.read_training_sessions(make_examples([[1, 11]]))


def test_sessions_of_one_item_alone_are_a_graph_too():
    model = GCEGNN(10, 4).eval()
    model.read_training_sessions(make_examples([[3, 3]]))
    assert model.global_graph.neighbours[3].tolist() == [3] + [0] * 11
    assert model(make_batch([[1, 2], [3]])).isfinite().all()


@pytest.mark.parametrize("kind", [GCEGNN, DHCN])
def test_a_session_begins_as_the_sum_of_its_clicks_and_not_as_its_opposite(kind):
    """The read-out's weights are of either sign in the paper. Seen to fail without `begin_positive`."""
    for seed in range(12):
        torch.manual_seed(seed)
        model = kind(8, 100)
        model.read_training_sessions(make_examples(TRAINING))
        clicks = torch.rand(3, 100, generator=torch.manual_seed(seed))  # all positive
        read = model.readout(clicks, find_clicks(make_batch([[1, 2, 3]])))
        assert (read > 0).all()
        weight = model.readout.attend_score.weight
        assert weight.max() <= 0.1  # within the authors' bound
        assert weight.sum() > 5 * 0.006 * 100  # five steps of Adam at a rate of 6e-3 do not turn it


def test_a_checkpoint_brings_its_graph():
    model, batch = built(num_neighbours=3), make_batch(SESSIONS)
    stream = io.BytesIO()
    torch.save(plain_bare(model).state_dict(), stream)
    stream.seek(0)
    for other in (GCEGNN(10, 6, num_neighbours=3), copy.deepcopy(built(num_neighbours=2)), built()):
        stream.seek(0)
        module = plain_bare(other).eval()
        module.load_state_dict(torch.load(stream, weights_only=True))
        assert torch.equal(module(batch), model(batch))
    unread = GCEGNN(10, 6).state_dict()
    model.load_state_dict(unread)
    with pytest.raises(InputError, match="has not read"):
        model(batch)
    del unread["global_graph.weights"]
    with pytest.raises(RuntimeError, match=r"Missing key.*global_graph.weights"):
        model.load_state_dict(unread)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"hops": 0}, "hops"),
        ({"window": 0}, "window"),
        ({"num_neighbours": 0}, "num_neighbours"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"max_length": 0}, "max_length"),
    ],
)
def test_settings_are_checked(options, name):
    with pytest.raises(InputError, match=name):
        GCEGNN(10, 4, **options)


def test_a_batch_that_is_too_long_is_refused():
    with pytest.raises(InputError, match="at most 2 clicks"):
        built(max_length=2)(make_batch([[1, 2, 3]]))
