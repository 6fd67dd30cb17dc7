"""Anybody's model as a backbone; RecBole's models are played by stand-ins (the real ones: tests/recbole)."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from plain import plain_bare, plain_wrapped
from torch import nn
from torch.nn.functional import normalize

import llm4sbr.adapters.recbole
from llm4sbr import InputError
from llm4sbr.adapters import ModuleBackbone
from llm4sbr.adapters.recbole import RecBoleBackbone, right_padded
from llm4sbr.backbones.readout import last_click
from llm4sbr.testing import assert_backbone, make_batch

SESSIONS = [[1, 2, 3, 2], [9], [5, 5, 5], [9, 8, 7, 6, 1]]


class Gru(nn.Module):
    """A user's model: knows nothing of sessions, batches or this package."""

    def __init__(self, rows: int, dim: int = 6, padding_idx: int | None = 0) -> None:
        super().__init__()
        self.tables = nn.Module()
        self.tables.items = nn.Embedding(rows, dim, padding_idx=padding_idx)
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, clicks):
        return self.gru(self.tables.items(clicks))[0]


def last_state(module, batch):
    return last_click(module(batch.item_ids), batch.lengths)


def gru_backbone(num_items):
    return ModuleBackbone(num_items, Gru(num_items + 1), last_state, "tables.items")


class FromZero(Gru):
    """Counts items from 0 and has no row for padding."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows, padding_idx=None)


def from_zero(num_items):
    def session_vector(module, batch):
        return last_click(module((batch.item_ids - 1).clamp(min=0)), batch.lengths)

    return ModuleBackbone(num_items, FromZero(num_items), session_vector, lambda m: m.tables.items)


class TwoReadings(Gru):
    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.readout = nn.Linear(12, 6)


def pair_backbone(num_items):
    def both(module, batch):
        states = module(batch.item_ids) * batch.padding_mask().unsqueeze(-1)
        return states.sum(1), last_click(states, batch.lengths)

    def read_out(module, long_term, short_term):
        return module.readout(torch.cat((long_term, short_term), dim=-1))

    return ModuleBackbone(num_items, TwoReadings(num_items + 1), both, "tables.items", read_out)


@pytest.mark.parametrize("make", [gru_backbone, from_zero, pair_backbone])
def test_contract(make):
    assert_backbone(make)


def gru_by_hand(module, items):
    """The last state of one session, cell by cell."""
    cell = nn.GRUCell(6, 6)
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in module.gru.state_dict().items()})
    state = torch.zeros(6)
    for item in items:
        state = cell(module.tables.items.weight[item], state)
    return state


@pytest.mark.parametrize("session", SESSIONS)
def test_bare_scores_are_the_modules_own(session):
    torch.manual_seed(0)
    backbone = gru_backbone(9)
    table = backbone.module.tables.items.weight
    expected = torch.stack([gru_by_hand(backbone.module, session) @ table[item] for item in range(1, 10)])
    batch = make_batch([[3, 4], session], padding=2)
    assert torch.allclose(backbone(batch)[1], expected, atol=1e-6)
    interests = backbone.encode(batch)
    assert torch.equal(backbone.merge(interests), interests.long_term)  # the mean of one vector, exactly


def test_items_that_count_from_zero():
    torch.manual_seed(0)
    backbone = from_zero(9)
    table = backbone.module.tables.items.weight
    assert table.shape == (9, 6)
    state = gru_by_hand(backbone.module, [4 - 1, 9 - 1, 1 - 1])
    assert torch.allclose(backbone(make_batch([[4, 9, 1]]))[0], table @ state, atol=1e-6)


def test_a_pair_is_read_out_by_the_module():
    torch.manual_seed(0)
    backbone = pair_backbone(9)
    states = [gru_by_hand(backbone.module, [4, 2, 7][:n]) for n in (1, 2, 3)]
    session = backbone.module.readout(torch.cat((states[0] + states[1] + states[2], states[2])))
    expected = backbone.module.tables.items.weight[1:] @ session
    assert torch.allclose(backbone(make_batch([[4, 2, 7], [1]], padding=1))[0], expected, atol=1e-6)


def test_either_view_reaches_an_average_fusion():
    """Seen to fail with the long-term interest alone as the read-out."""
    torch.manual_seed(0)
    model = plain_wrapped(gru_backbone(9), text_dim=4, fusion="average").eval()
    views = torch.randn(1, 2, 4, requires_grad=True)
    model(make_batch([[3, 4]])._replace(views=views)).square().sum().backward()
    assert (views.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("make", [gru_backbone, from_zero, pair_backbone])
@pytest.mark.parametrize("wrapped", [False, True])
def test_it_learns_bare_and_wrapped(make, wrapped):
    torch.manual_seed(0)
    batch = make_batch(SESSIONS, target=[3, 1, 4, 2])._replace(views=torch.randn(4, 2, 8))
    backbone = make(9)
    module = plain_wrapped(backbone, text_dim=8) if wrapped else plain_bare(backbone)
    overfit(module, batch)
    assert (module.eval()(batch).argmax(1) + 1).tolist() == [3, 1, 4, 2]


def overfit(module, batch, steps=80):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        module.losses(batch)["loss"].backward()
        optimizer.step()


def test_a_module_that_reads_padding_is_found():
    def mean_of_all(module, batch):
        return module(batch.item_ids).mean(1)

    with pytest.raises(AssertionError, match="padding"):
        assert_backbone(lambda n: ModuleBackbone(n, Gru(n + 1), mean_of_all, "tables.items"))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: ModuleBackbone(9, Gru, last_state), "must be a torch.nn.Module"),
        (lambda: ModuleBackbone(9, Gru(10), last_state), r"no such item embedding.*\['tables.items'\]"),
        (lambda: ModuleBackbone(9, nn.Linear(2, 2), last_state, "items"), "no nn.Embedding at all"),
        (lambda: ModuleBackbone(9, Gru(10), last_state, "tables"), "must be an nn.Embedding.*'Module'"),
        (lambda: ModuleBackbone(9, Gru(10), last_state, lambda m: m.gru.bias_hh_l0), r"table of rows.*18"),
        (lambda: ModuleBackbone(8, Gru(10), last_state, "tables.items"), r"9 rows .* or 8 .*\(10, 6\)"),
        (lambda: ModuleBackbone(10, Gru(10), last_state, "tables.items"), "holds 9 items, not 10.*11 rows"),
        (
            lambda: ModuleBackbone(0, Gru(1), last_state, "tables.items"),
            "num_items must be a whole number",
        ),
    ],
)
def test_what_cannot_be_wrapped_is_refused(make, problem):
    with pytest.raises(InputError, match=problem):
        make()


@pytest.mark.parametrize(
    ("session_vector", "problem"),
    [
        (lambda m, b: m(b.item_ids), r"\(2, 6\) \(got \(2, 3, 6\)\).*last_click"),
        (lambda m, b: m(b.item_ids)[:1, 0], r"\(got \(1, 6\)\)"),
        (lambda m, b: m.gru(m.tables.items(b.item_ids)), r"\(got \(2, 3, 6\)\)"),
        (lambda m, b: m(b.item_ids)[:, 0, :5], r"\(got \(2, 5\)\).*size of the item embedding"),
        (lambda m, b: (m(b.item_ids)[:, 0],) * 3, "a tuple of 3"),
        (lambda m, b: [0.0], "got 'list'"),
    ],
)
def test_vectors_of_another_shape_are_refused(session_vector, problem):
    backbone = ModuleBackbone(9, Gru(10), session_vector, "tables.items")
    with pytest.raises(InputError, match=problem):
        backbone(make_batch([[1, 2, 3], [4]]))


# What follows plays RecBole: the attributes and methods its sequential models share, and no more.


class Sequential(nn.Module):
    ITEM_SEQ, ITEM_SEQ_LEN = "item_id_list", "item_length"

    def __init__(self, num_items=9, width=4, dim=6):
        super().__init__()
        self.n_items, self.max_seq_length, self.device = num_items + 1, width, torch.device("meta")
        self.item_embedding = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.position = nn.Embedding(width, dim)
        self.seen = []

    def forward(self, item_seq, item_seq_len):
        assert item_seq.size(1) == self.max_seq_length
        self.seen.append((item_seq.tolist(), item_seq_len.tolist()))
        place = torch.arange(self.max_seq_length).to(self.device)
        clicks = (self.item_embedding(item_seq) + self.position(place)) * (item_seq > 0).unsqueeze(-1)
        return torch.tanh(clicks.sum(1) / item_seq_len.unsqueeze(1))

    def full_sort_predict(self, interaction):
        vector = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return vector @ self.item_embedding.weight.T


class CORE(Sequential):
    """Cosines over a temperature, with dropout on candidates; its forward reads no lengths."""

    temperature = 0.07

    def __init__(self, num_items=9):
        super().__init__(num_items)
        self.item_dropout = nn.Dropout(0.5)

    def forward(self, item_seq):
        return normalize(super().forward(item_seq, (item_seq > 0).sum(1)), dim=-1)

    def full_sort_predict(self, interaction):
        items = normalize(self.item_embedding.weight, dim=-1)
        return self.forward(interaction[self.ITEM_SEQ]) @ items.T / self.temperature


class TunedCORE(CORE):
    temperature = 0.5


class BERT4Rec(Sequential):
    """One row more, for the mask, and a bias for every item."""

    def __init__(self, num_items=9):
        super().__init__(num_items)
        self.item_embedding = nn.Embedding(num_items + 2, 6, padding_idx=0)
        self.output_bias = nn.Parameter(torch.randn(num_items + 1))

    def reconstruct_test_data(self, item_seq, item_seq_len):
        item_seq = torch.cat((item_seq, item_seq[:, :1] * 0), dim=1)
        item_seq[torch.arange(len(item_seq)), item_seq_len] = self.n_items
        return item_seq[:, 1:]

    def gather_indexes(self, output, index):
        return output[torch.arange(len(output)), index]

    def forward(self, item_seq):
        mask = (item_seq > 0).unsqueeze(-1)
        clicks = (self.item_embedding(item_seq) + self.position.weight) * mask
        return clicks + clicks.sum(1, keepdim=True) / mask.sum(1, keepdim=True)

    def full_sort_predict(self, interaction):
        lengths = interaction[self.ITEM_SEQ_LEN]
        states = self.forward(self.reconstruct_test_data(interaction[self.ITEM_SEQ], lengths))
        vector = self.gather_indexes(states, lengths - 1)
        return vector @ self.item_embedding.weight[: self.n_items].T + self.output_bias


@pytest.mark.parametrize("model", [Sequential, CORE, TunedCORE, BERT4Rec])
def test_recbole_models_keep_the_contract(model):
    assert_backbone(lambda num_items: RecBoleBackbone(num_items, model(num_items)))


@pytest.mark.parametrize("model", [Sequential, CORE, TunedCORE, BERT4Rec])
def test_scores_are_those_of_full_sort_predict(model):
    torch.manual_seed(0)
    net = model()
    backbone = RecBoleBackbone(9, net).eval()
    item_seq = torch.tensor([[1, 2, 3, 2], [9, 0, 0, 0], [5, 5, 5, 0], [8, 7, 6, 1]])  # the latest four
    interaction = {"item_id_list": item_seq, "item_length": torch.tensor([4, 1, 3, 4])}
    expected = net.full_sort_predict(interaction)[:, 1:]
    assert torch.allclose(backbone(make_batch(SESSIONS)), expected, atol=1e-5)


def test_the_latest_clicks_are_padded_on_the_right_to_the_models_width():
    net = Sequential(width=3)
    backbone = RecBoleBackbone(9, net)
    net.seen.clear()
    backbone(make_batch([[1, 2, 3, 4, 5], [6], [7, 8], [1, 2, 3]], padding=2))
    assert net.seen == [([[3, 4, 5], [6, 0, 0], [7, 8, 0], [1, 2, 3]], [3, 1, 2, 3])]
    wide, lengths = right_padded(torch.tensor([[4, 0], [5, 6]]), torch.tensor([1, 2]), 5)
    assert wide.tolist() == [[4, 0, 0, 0, 0], [5, 6, 0, 0, 0]]
    assert lengths.tolist() == [1, 2]


def test_core_normalises_what_the_wrapper_fuses_and_drops_candidates_in_training():
    torch.manual_seed(0)
    net = CORE()
    model = plain_wrapped(RecBoleBackbone(9, net), text_dim=4)
    batch = make_batch([[3, 4]])._replace(views=torch.randn(1, 2, 4))
    scores = model.eval()(batch)
    fused, items = model.enhance(batch).session[0], net.item_embedding.weight[1:]
    expected = torch.stack([torch.cosine_similarity(fused, item, dim=0) for item in items]) / 0.07
    assert torch.allclose(scores[0], expected, atol=1e-4)
    assert not torch.allclose(model.train()(batch), scores)


def test_a_model_follows_its_batches_to_their_device():
    net = Sequential()
    assert net.device.type == "meta"
    RecBoleBackbone(9, net)(make_batch([[1]]))
    assert net.device.type == "cpu"


def test_making_a_backbone_leaves_modes_and_random_numbers_alone():
    net = CORE()
    net.position.eval()
    torch.manual_seed(5)
    RecBoleBackbone(9, net)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert net.training
    assert net.item_dropout.training
    assert not net.position.training


class WithUser(Sequential):
    def forward(self, user, item_seq, item_seq_len):
        return super().forward(item_seq, item_seq_len)


class ScoresWithUser(Sequential):
    def full_sort_predict(self, interaction):
        return super().full_sort_predict(interaction) + interaction["user_id"]


class Distance(Sequential):
    def full_sort_predict(self, interaction):
        vector = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return -torch.cdist(vector, self.item_embedding.weight)


class TinyScores(Distance):
    """As small as a new STAMP's, where an absolute tolerance sees no difference."""

    def full_sort_predict(self, interaction):
        return 1e-6 * super().full_sort_predict(interaction)

    def forward(self, item_seq, item_seq_len):
        return 1e-6 * super().forward(item_seq, item_seq_len)


class States(Sequential):
    def forward(self, item_seq, item_seq_len):
        return self.item_embedding(item_seq)


class NoTable(Sequential):
    def __init__(self):
        super().__init__()
        self.item_matrix = self.item_embedding
        del self.item_embedding


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (WithUser, "WithUser.forward reads user"),
        (ScoresWithUser, "ScoresWithUser scores with 'user_id'"),
        (Distance, "Distance does not score by a product.*override score"),
        (TinyScores, "TinyScores does not score by a product"),
        (States, r"one vector per session \(got \(2, 4, 6\)\)"),
        (NoTable, "NoTable has no item_embedding"),
        (lambda: Sequential(8), r"must have n_items = 10.*got 9"),
        (lambda: Gru(10), "is not a sequential model of RecBole: it has no ITEM_SEQ.*ModuleBackbone"),
    ],
)
def test_recbole_models_that_cannot_be_wrapped_are_refused(model, problem):
    with pytest.raises(InputError, match=problem):
        RecBoleBackbone(9, model())


class OverridesScore(RecBoleBackbone):
    def score(self, session, interests):
        return -torch.cdist(session, self.item_embeddings())


def test_a_subclass_may_say_how_its_model_scores():
    assert_backbone(lambda num_items: OverridesScore(num_items, Distance(num_items)))


@pytest.fixture
def fake_recbole(tmp_path, monkeypatch):
    """A package `recbole` in front of an installed one: models, default files, and SINE's side effect."""
    folder = tmp_path / "recbole"
    files = {
        "__init__.py": "",
        "model/__init__.py": "",
        "model/sequential_recommender.py": """
            import sys, torch
            torch.autograd.set_detect_anomaly(True)
            Base = sys.modules["fake_recbole_base"].Sequential
            class Tiny(Base):
                def __init__(self, config, dataset):
                    super().__init__(dataset.num(config["ITEM_ID_FIELD"]) - 1, config["MAX_ITEM_LIST_LENGTH"],
                                     config["hidden_size"])
                    assert config["absent"] is None
                    assert config["layer_norm_eps"] == 1e-12
                    self.norm = torch.nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
                    self.ITEM_SEQ = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
                    assert dataset.field2seqlen == {"item_id_list": config["MAX_ITEM_LIST_LENGTH"]}
                    self.config = config
                def forward(self, item_seq, item_seq_len):
                    sign = -1 if self.config["flip"] else 1
                    return self.norm(sign * super().forward(item_seq, item_seq_len))
            class Features(Base):
                def __init__(self, config, dataset):
                    dataset.get_item_feature()
        """,
        "properties/overall.yaml": "epochs: 300\n",
        "properties/model/Tiny.yaml": "hidden_size: 6\nlayer_norm_eps: 1e-12   # no dot\nflip: False\n",
        "properties/dataset/sample.yaml": (
            "ITEM_ID_FIELD: item_id\nLIST_SUFFIX: _list\nMAX_ITEM_LIST_LENGTH: 50\n"
        ),
        "properties/quick_start_config/sequential.yaml": "repeatable: True\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    for name in [name for name in sys.modules if name.split(".")[0] == "recbole"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "fake_recbole_base", sys.modules[__name__])
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "recbole"]:
        del sys.modules[name]


@pytest.mark.usefixtures("fake_recbole")
class TestByName:
    def test_contract(self):
        assert_backbone(lambda num_items: RecBoleBackbone(num_items, "Tiny"))

    def test_options_go_over_recboles_defaults(self):
        plain = RecBoleBackbone(9, "Tiny")
        assert (plain.embedding_dim, plain.module.max_seq_length) == (6, 50)
        backbone = RecBoleBackbone(9, "Tiny", {"hidden_size": 4, "MAX_ITEM_LIST_LENGTH": 3, "flip": True})
        assert (backbone.embedding_dim, backbone.module.max_seq_length) == (4, 3)
        assert backbone.item_embeddings().shape == (9, 4)

    @pytest.mark.parametrize("before", [False, True])
    def test_anomaly_detection_is_left_as_it_was(self, before):
        torch.autograd.set_detect_anomaly(before)
        try:
            RecBoleBackbone(9, "Tiny")
            assert torch.is_anomaly_enabled() == before
        finally:
            torch.autograd.set_detect_anomaly(False)

    def test_what_is_refused(self):
        with pytest.raises(InputError, match=r"Tiny does not read hiden_size. It reads .*hidden_size"):
            RecBoleBackbone(9, "Tiny", {"hiden_size": 3})
        with pytest.raises(InputError, match="does not read epochs"):  # RecBole's trainer would
            RecBoleBackbone(9, "Tiny", {"epochs": 3})
        with pytest.raises(InputError, match=r"no sequential model 'Big'.*Tiny"):
            RecBoleBackbone(9, "Big")
        with pytest.raises(InputError, match=r"Features cannot be built: .*'get_item_feature'"):
            RecBoleBackbone(9, "Features")
        with pytest.raises(InputError, match="cannot be built"):
            RecBoleBackbone(9, "Tiny", {"hidden_size": "six"})


def test_options_are_for_models_that_are_named():
    with pytest.raises(InputError, match="an instance has its own"):
        RecBoleBackbone(9, Sequential(), {"hidden_size": 3})


def test_without_recbole_the_module_imports_and_tells_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "recbole"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "recbole", None)
    path = Path(llm4sbr.adapters.recbole.__file__)
    for part in (path, path.with_name("recbole_models.py")):
        spec = importlib.util.spec_from_file_location(f"fresh_{part.stem}", part)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    with pytest.raises(InputError, match=r"pip install --no-deps recbole==1\.2\.1"):
        RecBoleBackbone(9)
