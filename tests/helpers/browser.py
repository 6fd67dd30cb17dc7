"""Headless Chromium, for tests of pages."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def chromium():
    """A browser; the test is skipped where none is installed."""
    if CHROMIUM is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=False, args=["--disable-quic", "--disable-sync"]
        )
        try:
            yield found
        finally:
            found.close()
