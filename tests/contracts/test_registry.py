"""Plug-ins by entry point, with a real third-party distribution on the path."""

import subprocess
import sys
import textwrap

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.registry import BACKBONES, PluginWarning, load_plugins


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Make an installed distribution: metadata with entry points, and its module."""

    def make(name, module_text, entries):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "\n".join(f"{key} = {value}" for key, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{BACKBONES}]\n{lines}\n")
        (tmp_path / f"{name.replace('-', '_')}.py").write_text(textwrap.dedent(module_text))
        return tmp_path

    monkeypatch.syspath_prepend(tmp_path)
    load_plugins.cache_clear()
    yield make
    load_plugins.cache_clear()


def test_our_own_backbones_are_plug_ins():
    load_plugins.cache_clear()
    assert {"SRGNN", "GRU4Rec", "SASRec"} <= set(load_plugins(BACKBONES))


def test_a_third_partys_backbone_is_found(distribution):
    distribution("their-models", "class Theirs: ...", {"Theirs": "their_models:Theirs"})
    assert load_plugins(BACKBONES)["Theirs"].__module__ == "their_models"


def test_one_entry_point_may_name_several_classes(distribution):
    """Seen to fail with a tuple that is registered as if it were a class."""
    text = "class One: ...\nclass Two: ...\nPLUGINS = One, Two"
    distribution("two-models", text, {"theirs": "two_models:PLUGINS"})
    loaded = load_plugins(BACKBONES)
    assert (loaded["One"].__name__, loaded["Two"].__name__) == ("One", "Two")
    assert "theirs" not in loaded


def test_a_duplicate_name_is_an_error_that_names_both(distribution):
    distribution("other-srgnn", "class SRGNN: ...", {"SRGNN": "other_srgnn:SRGNN"})
    with pytest.raises(InputError, match=r"(?=.*\(other-srgnn\))(?=.*\(llm4sbr\))"):
        load_plugins(BACKBONES)


def test_a_broken_plug_in_is_a_warning_that_names_it(distribution):
    distribution("broken-models", "raise RuntimeError('boom')", {"Broken": "broken_models:Broken"})
    with pytest.warns(PluginWarning, match=r"Broken.*broken-models.*boom"):
        loaded = load_plugins(BACKBONES)
    assert "SRGNN" in loaded
    assert "Broken" not in loaded


@pytest.mark.parametrize("room", ["backbones", "datamodules"])
def test_the_bare_folder_cannot_be_imported(room, request):
    root = request.config.rootpath
    run = subprocess.run(
        [sys.executable, "-c", f"import {room}"], cwd=root, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert f"import llm4sbr.{room}" in run.stderr
