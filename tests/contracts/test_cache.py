"""One root for every cache."""

from pathlib import Path

import pytest

from llm4sbr.contracts.cache import cache_root


@pytest.mark.parametrize(
    ("argument", "own", "shared", "expected"),
    [
        ("/given", "/own", "/shared", "/given"),
        ("~/given", None, None, "/home/me/given"),
        (None, "/own", "/shared", "/own"),
        (None, "~/own", None, "/home/me/own"),
        (None, "", "/shared", "/shared/llm4sbr"),
        (None, None, "/shared", "/shared/llm4sbr"),
        (None, None, "relative", "/home/me/.cache/llm4sbr"),
        (None, None, "", "/home/me/.cache/llm4sbr"),
        (None, None, None, "/home/me/.cache/llm4sbr"),
    ],
)
def test_where_caches_are(monkeypatch, argument, own, shared, expected):
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("LLM4SBR_CACHE", own), ("XDG_CACHE_HOME", shared)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_root(argument) == Path(expected)
