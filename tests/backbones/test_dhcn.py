"""S²-DHCN against the paper's matrices, and the hypergraph that it reads from the training sessions."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from lightning import Trainer
from plain import plain_bare, plain_wrapped

from llm4sbr import InputError
from llm4sbr.backbones.dhcn import DHCN
from llm4sbr.datamodules import SessionDataModule
from llm4sbr.datamodules.rules import SplitBy
from llm4sbr.nn.scorers import CosineScores
from llm4sbr.testing import assert_backbone, make_batch, make_examples

TRAINING = [
    [1, 2, 3, 4, 1, 2],
    [2, 1, 2, 5, 5, 6],
    [3, 8, 1],
    [7, 7],
    [6, 2, 8, 3, 1, 5, 4, 7],
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
    model = DHCN(10, 6, **options).eval()
    model.read_training_sessions(make_examples(TRAINING))
    return model


@pytest.mark.parametrize("options", [{}, {"num_layers": 1, "max_length": 8}, {"beta": 0.0}])
def test_contract(options):
    assert_backbone(lambda num_items: DHCN(num_items, 16, **options))


def operator_by_hand():
    """``D^-1 H W B^-1 H^T`` of the training sessions; the row of an item without sessions is zero."""
    incidence = torch.zeros(10, len(TRAINING))
    for column, session in enumerate(TRAINING):
        for item in session:
            incidence[item - 1, column] = 1
    degree, size = incidence.sum(1), incidence.sum(0)
    inverse = torch.tensor([0.0 if d == 0 else 1 / d for d in degree.tolist()])
    return torch.diag(inverse) @ incidence @ torch.eye(len(TRAINING)) @ torch.diag(1 / size) @ incidence.T


def convolved_by_hand(items, num_layers):
    layers = [items]
    for _ in range(num_layers):
        layers.append(operator_by_hand() @ layers[-1])
    return sum(layers) / (num_layers + 1)


def session_by_hand(model, items, session):
    """Read-out of a session over items ``(V, d)``."""
    out, clicks = model.readout, [items[item - 1] for item in session]
    mean = sum(clicks) / len(clicks)
    total = torch.zeros(6)
    for t, click in enumerate(clicks):
        position = out.position.weight[len(clicks) - 1 - t]
        located = torch.tanh(out.locate.weight @ torch.cat((click, position)) + out.locate.bias)
        inner = out.attend_session.weight @ mean + out.attend_click.weight @ located + out.attend_click.bias
        total = total + (out.attend_score.weight[0] @ torch.sigmoid(inner)) * click
    return total


def line_graph_by_hand(items, sessions, num_layers):
    """Session vectors of the line graph channel, from unconvolved items."""
    vectors = [sum(items[item - 1] for item in session) / len(session) for session in sessions]
    overlap = torch.eye(len(sessions))
    for p, one in enumerate(sessions):
        for q, other in enumerate(sessions):
            if p != q:
                overlap[p, q] = len(set(one) & set(other)) / len(set(one) | set(other))
    layers = [torch.stack(vectors)]
    for _ in range(num_layers):
        layers.append(torch.diag(1 / overlap.sum(1)) @ overlap @ layers[-1])
    return sum(layers) / (num_layers + 1)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_convolution_and_its_gradient_are_the_papers(num_layers):
    model = built(num_layers=num_layers)
    dense = model.embedding.weight[1:].detach().requires_grad_()
    expected, found = convolved_by_hand(dense, num_layers), model.item_embeddings()
    assert torch.allclose(found, expected, atol=1e-6)
    toward = torch.randn(10, 6)
    (expected * toward).sum().backward()
    (found * toward).sum().backward()
    assert torch.allclose(model.embedding.weight.grad[1:], dense.grad, atol=1e-6)
    assert model.embedding.weight.grad[0].eq(0).all()


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_dhcn_is_the_papers(session, num_layers):
    model = built(num_layers=num_layers)
    items = convolved_by_hand(model.embedding.weight[1:], num_layers)
    batch = make_batch([[8, 9, 1], session, [2]], padding=2)
    expected = session_by_hand(model, items, session)
    interests = model.encode(batch)
    assert torch.allclose(interests.long_term[1], expected, atol=1e-5)
    assert torch.allclose(interests.short_term[1], items[session[-1] - 1], atol=1e-5)
    assert torch.equal(model.merge(interests), interests.long_term)
    assert torch.allclose(model(batch)[1], items @ expected, atol=1e-5)


def test_scores_are_products_with_the_items_of_encode():
    model, batch = built(), make_batch(SESSIONS)
    interests = model.encode(batch)
    assert torch.equal(interests.context, model.item_embeddings())
    session = torch.randn(len(SESSIONS), 6)
    assert torch.allclose(model.score(session, interests), session @ model.item_embeddings().T)
    doubled = interests._replace(context=2 * interests.context)
    assert torch.allclose(model.score(session, doubled), 2 * model.score(session, interests))


# The self-supervised task.


@pytest.mark.parametrize("sessions", [SESSIONS, [[1, 2, 3]]])
def test_the_auxiliary_loss_and_its_gradient_are_the_papers(sessions):
    model = built(beta=0.25).train()
    torch.manual_seed(3)
    rows, columns = torch.randperm(len(sessions)), torch.randperm(6)
    torch.manual_seed(3)
    found = model.encode(make_batch(sessions, padding=1)).auxiliary_loss
    found.backward()
    by_model = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    items = model.embedding.weight[1:]
    convolved = convolved_by_hand(items, 3)
    theta_h = torch.stack([session_by_hand(model, convolved, session) for session in sessions])
    theta_l = line_graph_by_hand(items, sessions, 3)
    expected = 0.0
    for i in range(len(sessions)):
        true = sum(theta_h[i, k] * theta_l[i, k] for k in range(6))
        shuffled = sum(theta_h[rows[i], columns[k]] * theta_l[i, k] for k in range(6))
        expected = expected - torch.sigmoid(true).log() - (1 - torch.sigmoid(shuffled)).log()
    (0.25 * expected).backward()
    assert torch.allclose(found, 0.25 * expected, atol=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.allclose(by_model[name], parameter.grad, atol=1e-5), name


def test_the_auxiliary_loss_belongs_to_training():
    batch = make_batch(SESSIONS)
    assert built().encode(batch).auxiliary_loss is None
    assert built(beta=0.0).train().encode(batch).auxiliary_loss is None
    losses = plain_bare(built()).train().losses(batch)
    assert torch.allclose(losses["loss"], losses["rec_loss"] + losses["auxiliary"])
    assert losses["auxiliary"] > 0


def test_other_sessions_of_the_batch_enter_the_auxiliary_loss_alone():
    model = built().train()
    scores = model(make_batch(SESSIONS))
    for row, session in enumerate(SESSIONS):
        assert torch.allclose(model(make_batch([session]))[0], scores[row], atol=1e-6)


# What it learns of the training sessions.


def test_only_training_sessions_enter_the_hypergraph(tmp_path):
    (tmp_path / "events.csv").write_text(
        "session_id,item_id,timestamp,split\n"
        "a,w,1,train\na,x,2,train\nb,x,1,valid\nb,y,2,valid\nc,x,1,test\nc,z,2,test\nd,w,1,train\nd,y,2,train\n"
    )
    (tmp_path / "items.csv").write_text("item_id,title\nw,W\nx,X\ny,Y\nz,Z\n")
    data = SessionDataModule(str(tmp_path), split=SplitBy(by="column"), cache_dir=str(tmp_path / "cache"))
    model = plain_bare(DHCN(data.num_items, 4))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    w, x, y, z = (data.catalogue.titles.index(title) + 1 for title in "WXYZ")
    graph = model.backbone.hypergraph
    edges = [set(edge.tolist()) for edge in graph.items.tensor_split(graph.session_start[1:].long())]
    assert sorted(map(sorted, edges)) == sorted([sorted([w, x]), sorted([w, y])])
    assert graph.item_share[[w, x, y, z], 0].tolist() == [0.5, 1, 1, 0]


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
    model = DHCN(10, 4)
    model.read_training_sessions(cut)
    assert model.hypergraph.items.tolist() == [1, 2, 3, 6, 7, 8]
    assert model.hypergraph.sessions.tolist() == [0, 0, 0, 1, 1, 1]


def test_prefixes_as_hyperedges_are_the_authors():
    model = DHCN(10, 4, hyperedges="prefixes")
    model.read_training_sessions(make_examples([[1, 2, 3], [4, 5]]))
    graph = model.hypergraph
    edges = torch.tensor_split(graph.items, graph.session_start[1:].long().tolist())
    assert [edge.tolist() for edge in edges] == [[1], [1, 2], [4]]
    with pytest.raises(InputError, match="hyperedges"):
        DHCN(10, 4, hyperedges="clicks")


def test_reading_again_replaces_the_hypergraph():
    model = built()
    model.read_training_sessions(make_examples([[1, 2, 1]]))
    assert model.hypergraph.items.tolist() == [1, 2]
    assert model.hypergraph.session_share.tolist() == [[0.5]]


def test_without_training_sessions_it_says_so():
    model = DHCN(10, 4)
    for ask in (model.item_embeddings, lambda: model.encode(make_batch([[1, 2]]))):
        with pytest.raises(InputError, match=r"has not read.*read_training_sessions"):
            ask()
    with pytest.raises(InputError, match="no training sessions"):
        model.read_training_sessions(make_examples([[1]]))
    with pytest.raises(InputError, match="built for 10 items"):
        model.read_training_sessions(make_examples([[1, 11]]))


def test_a_checkpoint_brings_its_hypergraph():
    model, batch = built(), make_batch(SESSIONS)
    stream = io.BytesIO()
    torch.save(plain_bare(model).state_dict(), stream)
    smaller = DHCN(10, 6)
    smaller.read_training_sessions(make_examples([[4, 5]]))
    for other in (DHCN(10, 6), smaller, copy.deepcopy(smaller)):
        stream.seek(0)
        module = plain_bare(other).eval()
        module.load_state_dict(torch.load(stream, weights_only=True))
        assert torch.equal(module(batch), model(batch))


@pytest.mark.parametrize(
    ("options", "name"),
    [({"num_layers": 0}, "num_layers"), ({"beta": -1.0}, "beta"), ({"max_length": 0}, "max_len")],
)
def test_settings_are_checked(options, name):
    with pytest.raises(InputError, match=name):
        DHCN(10, 4, **options)


def test_a_batch_that_is_too_long_is_refused():
    with pytest.raises(InputError, match="at most 2 clicks"):
        built(max_length=2)(make_batch([[1, 2, 3]]))


@pytest.mark.parametrize("kind", [plain_bare, plain_wrapped])
def test_its_scores_may_be_cosines_of_items_that_are_convolved_once(kind, monkeypatch):
    """Seen to fail with the convolution computed again for the scores."""
    torch.manual_seed(0)
    backbone = DHCN(10, 6)
    backbone.read_training_sessions(make_examples(TRAINING))
    model = kind(backbone, scorer=CosineScores(5.0)).eval()
    batch = make_batch(SESSIONS)
    session = model.read(batch)[0]
    items = backbone.item_embeddings()
    expected = 5 * torch.nn.functional.cosine_similarity(session.unsqueeze(1), items.unsqueeze(0), dim=-1)
    calls, convolve = [], backbone._convolve
    monkeypatch.setattr(backbone, "_convolve", lambda: calls.append(1) or convolve())
    torch.testing.assert_close(model(batch), expected)
    assert len(calls) == 1
