"""Every command of the documentation is one that the real parsers accept; nothing is run."""

import argparse
import re
import runpy
import shlex
import subprocess
import sys

import pytest
from scripts import EXPERIMENTS

from llm4sbr.cli.explain import parser as explain
from llm4sbr.cli.main import main as llm4sbr
from llm4sbr.cli.recommend import parser as recommend
from llm4sbr.runs.update import parser as update_parser

ROOT = EXPERIMENTS.parent
sys.path.append(str(ROOT))
from experiments.__main__ import main as experiments  # noqa: E402

GPU = EXPERIMENTS / "gpu"
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PAGES += ["experiments/README.md", "experiments/gpu/README.md"]
BEFORE = {"docs/experiments-notes.md": "experiments/README.md"}  # a page that defines its variables
# Programs become functions that record their words; a program that is missing here is an error of the page.
SHELL = """
set -eu
PATH=
record() { printf '%s\\x1f' "$@"; printf '\\x1e'; }
for program in llm4sbr python wandb bash sbatch make pip; do
    eval "$program() { record $program \\"\\$@\\"; }"
done
"""


def blocks(page):
    """The `console` blocks of a page as a script: prompts removed, continued lines kept."""
    found = re.findall(r"^```console\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(re.sub(r"^\$ ", "", block, flags=re.MULTILINE) for block in found)


def commands(page):
    """Each command of a page as the list of words that the shell makes of it."""
    before = f"{blocks(BEFORE[page])}\nprintf '\\x1d'\n" if page in BEFORE else "printf '\\x1d'\n"
    told = subprocess.run(
        ["/bin/bash", "-c", SHELL + before + blocks(page)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    recorded = told.stdout.partition("\x1d")[2]
    return [command.split("\x1f")[:-1] for command in recorded.split("\x1e")[:-1]]


class Parsed(Exception):
    """The words were parsed; the script must not begin."""


def parse_script(path, words, monkeypatch):
    """Parse words with the parser of a script, and return the words that it hands on."""
    parse = argparse.ArgumentParser.parse_known_args
    left = []

    def stop(parser, *given):
        left.extend(parse(parser, *given)[1])
        raise Parsed

    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(GPU))
        patch.setattr(sys, "argv", [str(path), *words])
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        with pytest.raises(Parsed):
            runpy.run_path(str(path), run_name="__main__")
    return left


def complaint(main, words, capsys):
    """What a command complains of when it is to print its configuration; None for sound words."""
    try:
        if words[0] == "update":  # all other words are those of `fit`
            more = update_parser({}).parse_known_args(words[1:])[1]
            data = [] if "--data" in more else ["--data", "SessionDataModule"]
            words = ["fit", "--config", "experiments/base.yaml", "--model.backbone", "SRGNN", *data, *more]
        own = {"recommend": recommend, "explain": explain}.get(words[0])
        if own:  # their parsers print no configuration
            status = None if own("", "").parse_args(words[1:]) else 2
        else:
            status = main([*words, "--print_config"])
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr()
    return said.err if status else None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_parsed(page, monkeypatch, capsys):
    """Seen to fail with `--data.sessions.bye` in docs/data.md, and with a variable that nothing sets."""
    monkeypatch.chdir(ROOT)
    found = commands(page)
    assert found or "```console" not in (ROOT / page).read_text()
    wrong = []
    for program, *words in found:
        problem = None
        if program == "llm4sbr":
            problem = complaint(llm4sbr, words, capsys)
        elif program == "python" and words[:2] == ["-m", "experiments"]:
            problem = complaint(experiments, words[2:], capsys)
        elif program in ("python", "bash", "sbatch") and words[0] != "-c":
            assert (ROOT / words[0]).is_file()
            if program == "python":
                assert parse_script(ROOT / words[0], words[1:], monkeypatch) == []
            elif words[0] == "experiments/gpu/job.sh":
                problem = parse_job(words[1:], monkeypatch)
        if problem:
            wrong.append(f"{program} {' '.join(words)}\n{problem}")
    assert not wrong, "\n".join(wrong)


def options():
    """The options in the table of docs/training.md, without those that have a placeholder in capitals."""
    rows = re.findall(r"^\| (`--.*?) \|", (ROOT / "docs" / "training.md").read_text(), re.MULTILINE)
    found = [span for row in rows for span in re.findall(r"`(--[^`]+)`", row)]
    return [one for one in found if not re.search(r"\b[A-Z]{4,}\b", one)]


@pytest.mark.parametrize("option", options())
def test_every_option_of_the_table_is_parsed(option, monkeypatch, capsys):
    """Seen to fail with `--model.view_dropouts`."""
    monkeypatch.chdir(ROOT)
    run = shlex.split("fit --config experiments/base.yaml --data MovieLens100K --views.store views/ml-100k")
    words = shlex.split(option)
    model = [] if "--model.backbone" in words else ["--model.backbone", "SRGNN"]
    assert complaint(llm4sbr, [*run, *words, *model], capsys) is None


def parse_job(words, monkeypatch):
    """A job hands further words to its script, with those of jobs.yaml."""
    further = parse_script(GPU / "job.py", words, monkeypatch)
    job = runpy.run_path(str(GPU / "job.py"), run_name="job")
    chosen = job["JOBS"][words[0]]
    given = ["--work", "work", *job["flat"](chosen["words"], ROOT), *further]
    left = parse_script(GPU / chosen["script"], given, monkeypatch)
    return f"unknown words: {left}" if left else None
