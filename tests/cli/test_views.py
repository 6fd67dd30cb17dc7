"""``llm4sbr views infer`` by its words: what reaches the prompts, and what is refused."""

import pytest
from lightning.pytorch import LightningDataModule
from shops import write_shop

from llm4sbr import InputError
from llm4sbr.cli.inference import Inference
from llm4sbr.cli.main import main
from llm4sbr.views.inference.options import Localisation, LocalModel, Server
from llm4sbr.views.store import ViewStore


@pytest.fixture
def engine(stubs, monkeypatch):
    """An engine and an encoder that take no time."""
    engine = stubs.StubEngine()
    monkeypatch.setattr(LocalModel, "engine", lambda *_: engine)
    monkeypatch.setattr(Localisation, "text_encoder", lambda *_: stubs.StubEncoder())
    return engine


@pytest.fixture
def words(tmp_path):
    """The words of a command on a small shop."""
    shop = write_shop(tmp_path / "shop", clicks=lambda session: 5)

    def of(command, *more, out="store"):
        return ["views", command, "--data", str(shop / "data.yaml"), "--out", str(tmp_path / out), *more]

    return of


def test_every_group_reaches_what_is_asked(words, engine, tmp_path, capsys):
    """Seen to fail with the prompts' options and with the splits not handed on."""
    file = tmp_path / "options.yaml"
    file.write_text("prompts: {templates: paper, max_items: 2}\nlocalise: {r: 3}\n")
    more = ("--config", str(file), "--prompts.max_title_chars", "4", "--sessions.splits", "[train, validate]")
    assert main(words("infer", *more, "--limit", "6", "--progress", "false")) == 0
    told = capsys.readouterr().out
    assert "6 of 36 distinct sessions" in told
    assert "coverage: train " in told
    assert ", test" not in told
    with ViewStore(tmp_path / "store") as store:
        (spec,) = store.view_specs()
    assert (spec.r, len(spec.views)) == (3, 2)
    assert {(one.max_items, one.max_title_chars) for one in spec.answers} == {(2, 4)}
    assert all(prompt.startswith("A user clicked these items") for prompt in engine.asked)
    assert all("1. Bea…" in prompt and "3. " not in prompt for prompt in engine.asked)


def test_the_estimate_counts_what_is_left_and_asks_nothing(words, engine, tiny_llm, capsys):
    """Seen to fail with an estimate of all prompts."""
    assert main(words("infer", "--limit", "4")) == 0
    asked = len(engine.asked)
    capsys.readouterr()
    more = ("--limit", "6", "--local.max_new_tokens", "10", "--price_out", "1e5", "--dry_run", "true")
    more += ("--model", tiny_llm)  # its tokenizer counts
    assert main(words("infer", *more)) == 0
    told = capsys.readouterr().out
    assert told.startswith("4 prompts\n")
    assert "40 answer tokens at most\ncost: 4.00 at most" in told
    assert len(engine.asked) == asked
    server = (
        "--server.base_url",
        "http://nowhere.invalid/v1",
        "--server.max_new_tokens",
        "7",
        "--model",
        "qwen",
    )
    assert main(words("infer", *server, "--limit", "1", "--dry_run", "true", out="other")) == 0
    assert "14 answer tokens at most" in capsys.readouterr().out


def test_a_groups_name_may_be_left_out_where_one_option_ends_so(words, engine, capsys):
    """Two groups have `max_new_tokens`. Seen to fail with the first of them taken."""
    assert status(words("infer", "--max_new_tokens", "7")) == 2
    assert "max_new_tokens" in capsys.readouterr().err
    assert status(words("infer", "--retries", "-1")) == 1
    assert "server.retries" in capsys.readouterr().err
    assert not engine.asked


def test_a_dry_run_of_views_that_cost_nothing_is_refused(words, engine, capsys):
    assert status(words("infer", "--source", "titles", "--dry_run", "true")) == 1
    assert "title views need none" in capsys.readouterr().err


def status(words):
    """Exit status; the parser exits by itself."""
    try:
        return main(words)
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize(
    "more",
    [
        ("--limit", "-1"),
        ("--localise.r", "-1"),
        ("--prompts.max_items", "0"),
        ("--prompts.templates", "no/such.yaml"),
        ("--local.num_answers", "0"),
        ("--processes.devices", "0"),
        ("--server.retries", "-1"),
        ("--sessions.budget", "1.5", "--sessions.bare_run", "runs/x"),
    ],
)
def test_a_value_out_of_range_is_one_clear_line(words, engine, tmp_path, capsys, more):
    """Seen to fail with the range of each not checked."""
    assert status(words("infer", *more)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("llm4sbr: error:")
    assert more[0].lstrip("-").rpartition(".")[2] in error or "no/such.yaml" in error
    assert not engine.asked
    assert not (tmp_path / "store").exists()


def test_data_without_examples_and_a_server_for_the_catalogue_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"gives no examples \(got 'LightningDataModule'\)"):
        Inference(LightningDataModule(), str(tmp_path))
    with pytest.raises(InputError, match="cannot be constrained to the catalogue"):
        Server("http://a/v1").engine("m", ["Soap"])


def test_a_negative_price_is_refused(words, engine, capsys):
    assert status(words("infer", "--dry_run", "true", "--server.price_in", "-1")) == 1
    assert "server.price_in" in capsys.readouterr().err


def test_a_server_takes_its_patience_from_the_words():
    engine = Server("http://a/v1", max_new_tokens=9, timeout=7.0, retries=2).engine("m", None)
    assert (engine.retry.timeout, engine.retry.retries) == (7.0, 2)
    assert engine.identity.decoding["max_tokens"] == 9
