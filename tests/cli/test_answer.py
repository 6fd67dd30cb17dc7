"""``llm4sbr views answer`` by its words."""

from dataclasses import replace

import pytest
from bundles import CATALOGUE, SPEC, bundle, raw, trained
from views_stubs import StubEncoder, StubEngine

from llm4sbr.cli.main import main
from llm4sbr.serving.ask_queue import Asked, AskQueue
from llm4sbr.serving.server.options import Questions
from llm4sbr.views.inference.options import Localisation, LocalModel
from llm4sbr.views.inference.plan import view_spec
from llm4sbr.views.prompts import DEFAULT_PROMPTS
from llm4sbr.views.store import ViewStore

VIEWS = view_spec(CATALOGUE, StubEncoder(), StubEngine(), DEFAULT_PROMPTS, 3)


@pytest.fixture
def words(tmp_path, monkeypatch):
    """The words of a command, for one session that waits."""
    made = bundle(tmp_path / "bundle", trained(), spec=replace(SPEC, fingerprint=VIEWS.fingerprint))
    monkeypatch.setattr(LocalModel, "engine", lambda *_: StubEngine())
    monkeypatch.setattr(Localisation, "text_encoder", lambda *_: StubEncoder())
    queue = AskQueue(tmp_path / "asked")
    queue.add([Asked(CATALOGUE.session_key([1, 2]), raw([[1, 2]])[0], 1.0)], VIEWS.fingerprint, 9)
    queue.close()
    return ["views", "answer", str(tmp_path / "asked"), "--bundle", str(made), "--once", "true"]


def test_the_options_of_stage_1_reach_the_answers(words, tmp_path, capsys):
    """By default the store is in the folder of the queue."""
    assert main([*words, "--localise.r", "3"]) == 0
    assert "1 sessions answered, 0 wait" in capsys.readouterr().out
    with ViewStore(tmp_path / "asked" / "views") as store:
        assert store.localised_keys(VIEWS) == {CATALOGUE.session_key([1, 2])}
    assert main([*words, "--r", "3", "--out", str(tmp_path / "elsewhere")]) == 0
    assert "0 sessions answered, 0 wait" in capsys.readouterr().out


def test_other_views_and_a_missing_queue_are_errors_in_one_line(words, tmp_path, capsys):
    assert main([*words, "--r", "2"]) == 1
    assert "these options give other ones" in capsys.readouterr().err
    words[2] = str(tmp_path / "nowhere")
    assert main([*words, "--r", "3"]) == 1
    assert "there is no queue here" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_the_server_takes_its_options_by_short_names(monkeypatch):
    pytest.importorskip("uvicorn", reason='pip install "llm4sbr[serve]"')
    seen = []
    monkeypatch.setattr(
        "llm4sbr.serving.server.process.serve_bundle", lambda *given, **more: seen.append(given) or 0
    )
    assert main(["serve", "bundle", "--ask", "asked", "--ask_share", "0.2", "--ask_limit", "7"]) == 0
    assert seen[0][-1] == Questions("asked", 0.2, 7)
    with pytest.raises(SystemExit):
        main(["serve", "bundle", "--ask", "asked", "--ask_share", "0"])
