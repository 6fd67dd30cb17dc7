"""What stands where the LLM was not asked: title views at the length of the others; and views left out."""

import re
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer

from llm4sbr import InputError, LLM4SBRWrapper
from llm4sbr.backbones import GRU4Rec
from llm4sbr.callbacks import ViewCache
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.views.inference.pipeline import infer_views
from llm4sbr.views.loading import load_view_table
from llm4sbr.views.store import ViewStore
from llm4sbr.views.store.key_file import read_keys, write_keys
from llm4sbr.views.tables import DenseViews, TitleViews


@pytest.fixture
def source(stubs):
    return stubs.FakeSource()


def answer(prompt):
    """Two views of different lengths: the first title over the long term, a word that fits many otherwise."""
    titles = re.findall(r"^\d+\. (.*)$", prompt, flags=re.MULTILINE)
    return titles[0] if "Long-term interest:" in prompt else titles[-1].split()[0]


@pytest.fixture
def store(stubs, source, tmp_path):
    """LLM views of every session, r = 5, and the titles."""
    with ViewStore(tmp_path / "views") as opened:
        for view_source in ("llm", "titles"):
            infer_views(
                source, opened, encoder=stubs.StubEncoder(), engine=stubs.StubEngine(answer),
                view_source=view_source, progress=False,
            )  # fmt: skip
        yield opened


def batch_of(source, split):
    """All examples of a split, without targets."""
    part = source.examples(split)
    prefixes = [torch.tensor(prefix) for prefix in part.prefixes()]
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    items = torch.nn.utils.rnn.pad_sequence(prefixes, batch_first=True)
    return SessionBatch(items, lengths, 0 * lengths, part.first_index + torch.arange(len(part)))


def views_of(store, source, only, split, spec="llm", fallback="titles"):
    loaded = load_view_table(store, source, spec, fallback, only)
    return loaded.table(batch_of(source, split))


def test_views_of_sessions_left_out_count_as_not_known(store, source):
    """Seen to fail with ``only`` not applied, and with its complement applied."""
    keys = source.keys("train")
    asked = frozenset(keys[::3])
    loaded = load_view_table(store, source, "llm", only=asked)
    views, mask = loaded.table(batch_of(source, "train"))
    every, _ = load_view_table(store, source, "llm").table(batch_of(source, "train"))
    known = torch.tensor([key in asked for key in keys])
    assert mask.all(1).tolist() == mask.any(1).tolist() == known.tolist()
    assert torch.equal(views[known], every[known])
    assert not views[~known].any()
    assert loaded.coverage["train"] == pytest.approx(known.float().mean().item())
    assert load_view_table(store, source, "llm", only=[]).coverage["test"] == 0


def test_titles_stand_in_at_the_mean_length_of_what_training_knows(store, source):
    """Seen to fail with plain `TitleViews`, one length for both views, and unknown rows in the mean."""
    keys = source.keys("train")
    asked = frozenset(keys[::3])
    views, mask = views_of(store, source, asked, "train")
    assert mask.all()
    known = torch.tensor([key in asked for key in keys])
    lengths = views.norm(dim=-1)  # (E, K)
    assert (lengths[known].mean(0) > 1.5).all()  # what titles, of length 1 at most, would fall short of
    assert abs(lengths[known][:, 0].mean() - lengths[known][:, 1].mean()) > 0.1
    assert torch.allclose(lengths[~known], lengths[known].mean(0).expand_as(lengths[~known]), rtol=1e-3)
    titles, _ = views_of(store, source, None, "train", spec="titles")
    assert torch.cosine_similarity(views[~known], titles[~known], dim=-1).min() > 0.9999
    assert torch.equal(
        views[known], load_view_table(store, source, "llm").table(batch_of(source, "train"))[0][known]
    )


def test_other_splits_have_no_say_in_the_length(store, source):
    """Seen to fail with the lengths taken over all examples of the table."""
    asked = set(source.keys("train")[::3])
    both = asked | (set(source.keys("test")) - set(source.keys("train")))
    alone, _ = views_of(store, source, asked, "validate")
    more, _ = views_of(store, source, both, "validate")
    left_out = torch.tensor([key not in both for key in source.keys("validate")])
    assert left_out.any()
    assert torch.equal(alone[left_out], more[left_out])


@pytest.mark.parametrize("only", [[], None])
def test_titles_alone_stay_as_they_are(store, source, only):
    """No view known in training, or views that are titles: nothing to be as long as."""
    spec = "llm" if only == [] else "titles"
    found, mask = views_of(store, source, only, "test", spec)
    table = load_view_table(store, source, spec).table.table
    expected, expected_mask = TitleViews(table, ("long_term", "short_term"))(batch_of(source, "test"))
    assert torch.equal(found, expected)
    assert torch.equal(mask, expected_mask)


def test_dense_views_and_untitled_sessions(stubs, tmp_path):
    """r = 0 keeps vectors of length 1; a session without a title stays masked and finite."""
    source = stubs.FakeSource(titles=["", *(f"rose {n} soap" for n in range(29))])
    with ViewStore(tmp_path) as store:
        infer_views(
            source, store, encoder=stubs.StubEncoder(), engine=stubs.StubEngine(), r=0, progress=False
        )
        part = source.examples("train")
        asked = source.keys("train")[: len(part) // 2]
        views, mask = views_of(store, source, asked, "train")
        assert torch.isfinite(views).all()
        assert torch.allclose(views[mask].norm(dim=-1), torch.ones(int(mask.sum())), atol=1e-3)
        source.parts["train"] = replace(part, clicks=torch.ones(len(part.clicks)).long().numpy())
        views, mask = views_of(store, source, asked, "train")
        assert not mask.any()
        assert not views.any()


def test_lengths_are_measured_in_parts(store, source, monkeypatch):
    """Seen to fail with the last part alone, and with masked views counted in."""
    table = load_view_table(store, source, "llm").table
    rows = torch.arange(len(source.examples("train")))
    whole = table.mean_norms(rows)
    monkeypatch.setattr("llm4sbr.views.tables._ROWS_AT_ONCE", 7)
    assert torch.allclose(table.mean_norms(rows), whole)
    by_hand = table(batch_of(source, "train"))[0].norm(dim=-1).mean(0)
    assert torch.allclose(whole, by_hand)
    mask = torch.tensor([[True, False], [True, True], [False, False], [True, False]])
    dense = DenseViews(table.table, table.views, torch.arange(4.0).view(4, 1, 1).expand(4, 2, 64) / 8, mask)
    assert dense.mean_norms(torch.arange(4)).tolist() == pytest.approx([(0 + 1 + 3) / 3, 1.0])


def test_the_cache_reads_the_sessions_from_a_file(stubs, store, source, tmp_path):
    """Seen to fail with ``only`` not handed on by `ViewCache`."""
    asked = source.keys("train")[:4]
    write_keys(tmp_path / "new" / "asked.keys", asked)
    assert read_keys(tmp_path / "new" / "asked.keys") == asked
    cache = ViewCache(str(store.path), "llm", "titles", only=str(tmp_path / "new" / "asked.keys"))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.datamodule = source
    cache.setup(trainer, LLM4SBRWrapper(GRU4Rec(30, 8), text_dim=64), "fit")
    views, _ = views_of(store, source, asked, "train")
    assert torch.equal(cache.table(batch_of(source, "train"))[0], views)


@pytest.mark.parametrize("text", ["zz\n", "00" * 16 + "\n\n", "00" * 15 + "\n"])
def test_a_file_that_is_no_list_of_keys_is_refused(tmp_path, text):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(InputError, match=r"keys: row \d: a session key is 32 hex digits"):
        read_keys(tmp_path / "keys")
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(tmp_path / "none")
