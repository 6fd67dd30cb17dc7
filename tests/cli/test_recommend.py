"""`llm4sbr recommend`: a table, JSON, unknown ids, and titles that would act on a terminal."""

import io
import json

import pytest
from bundles import SPEC, bundle, trained
from rich.console import Console
from scripts import Started

from llm4sbr.cli.main import main
from llm4sbr.cli.recommend import show
from llm4sbr.serving import Recommendation, Recommender


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(bundle(tmp_path_factory.mktemp("one") / "bundle", trained(), spec=SPEC))


def test_a_table_with_titles_and_a_line_for_unknown_ids(folder, capsys):
    assert main(["recommend", folder, "--session", "B001", "new", "B002", "new", "--k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = Recommender.load(folder).recommend([["B001", "B002"]], k=3)[0]
    rows = [line for line in lines if line.startswith("│")]
    assert len(rows) == 3
    for rank, row in enumerate(rows):
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert cells == [
            str(rank + 1), expected.item_ids[rank], expected.titles[rank], f"{expected.scores[rank]:.4f}",
        ]  # fmt: skip
    assert lines[-2:] == [
        "Ignored, because the catalogue lacks them: new, new.",
        "Views of the session: none.",
    ]


def test_json_has_every_number(folder, capsys):
    """Ids stay strings, whatever they look like. Seen to fail with 007 read as a number."""
    assert main(["recommend", folder, "--session", "007", "B001", "null", "--k", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (expected,) = Recommender.load(folder).recommend([["B001"]], k=2)
    assert shown == {
        "session": ["007", "B001", "null"], "item_ids": list(expected.item_ids),
        "titles": list(expected.titles), "scores": list(expected.scores), "ignored": ["007", "null"],
        "view": "absent", "reason": None,
    }  # fmt: skip


def test_filters(folder, capsys, tmp_path):
    (tmp_path / "only").write_text("B001\nB002\n\n B003 \n")
    (tmp_path / "without").write_text("B003\n")
    lists = ["--only", str(tmp_path / "only"), "--without", str(tmp_path / "without")]
    assert main(["recommend", folder, "--session", "B001", "--seen", "false", "--json", *lists]) == 0
    assert json.loads(capsys.readouterr().out)["item_ids"] == ["B002"]


def test_a_session_without_a_known_item_has_a_reason(folder, capsys):
    assert main(["recommend", folder, "--session", "x", "y"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "No recommendations: no item of the session is in the catalogue.",
        "Ignored, because the catalogue lacks them: x, y.",
    ]


def test_titles_and_ids_cannot_act_on_the_terminal():
    """Neither by escapes nor by the markup of rich. Seen to fail with the title printed as it is."""
    stream = io.StringIO()
    found = Recommendation(
        ("[red]a\x1b[2J",), ("So\nap\x1b]0;x\x07 \u202eevil[/red]",), (1.0,), ("\x1b[1A",), "known"
    )
    show(found, Console(file=stream, width=100, force_terminal=False))
    shown = stream.getvalue()
    assert not any(char in shown for char in "\x1b\x07\u202e")
    assert "[red]a\\x1b[2J" in shown
    assert "So ap\\x1b]0;x\\x07 \\u202eevil[/red]" in shown


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--session", "B001", "--k", "0"], 1, "k must be"),
        (["--session", "B001", "--only", "nowhere"], 1, "nowhere: this list of items cannot be read"),
        (["--session", "B001", "--device", "gpu9"], 1, "there is no such device"),
        (["--session"], 2, "expected at least one argument"),
        (["--session", "B001", "--k", "many"], 2, "invalid int value"),
        (["--session", "B001", "--sen", "false"], 2, "unrecognized arguments: --sen false"),
        ([], 2, "--session"),
    ],
)
def test_a_wrong_word_is_one_line(folder, capsys, words, status, said):
    try:
        found = main(["recommend", folder, *words])
    except SystemExit as ended:
        found = ended.code
    error = capsys.readouterr().err
    assert (found, len(error.splitlines())) == (status, 1)
    assert said in error


def test_a_folder_that_is_no_bundle_is_one_line(tmp_path, capsys):
    assert main(["recommend", str(tmp_path), "--session", "a"]) == 1
    assert "there is no bundle here" in capsys.readouterr().err


def test_the_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["recommend", "--help"])
    assert ended.value.code == 0
    assert "llm4sbr recommend bundle --session B001 B002\n" in capsys.readouterr().out


@pytest.mark.parametrize("debug", [False, True])
def test_a_warning_is_one_line(folder, tmp_path, debug):
    """Without the place in the code, unless --debug asks for it. Seen to fail with Python's own form."""
    (tmp_path / "stock.txt").write_text("B001\nnobody\n")
    words = ["recommend", str(folder), "--session", "B002", "--only", str(tmp_path / "stock.txt")]
    status, _, told = Started(tmp_path, "llm4sbr", *words, *(["--debug"] if debug else [])).wait()
    lines = [line for line in told.splitlines() if "nobody" in line or "catalogue" in line]
    assert status == 0
    assert [line.startswith("llm4sbr: warning: ") for line in lines] == [not debug]
    assert ("UserWarning" in told) == debug
