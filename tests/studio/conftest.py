"""A page that runs, and a browser to visit it with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.studio.visitor import Visitor

RECORDS = Path(__file__).parents[2] / "benchmarks" / "results"
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Pictures of the docs are written where this says, else thrown away.
_PICTURES = "STUDIO_PICTURES"
_ARGUMENTS = [
    # Root has no sandbox.
    "--no-sandbox",
    # In software: the editor draws with WebGL.
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # Nothing but the page is asked of the network.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def studio() -> Iterator[Any]:
    """The page of the embedded pipeline, with the project's records."""
    from diffcr.studio import start

    running = start(records=RECORDS)
    yield running
    running.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Windows of Debian's Chromium."""
    if _CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield chromium.new_context()
        chromium.close()


@pytest.fixture
def visit(studio: Any, browser: Any, tmp_path: Path) -> Iterator[Callable[..., Visitor]]:
    """Opens the page for another visitor. In the end nobody's console may hold an error, and nobody
    may have been sent anywhere else."""
    visitors: list[Visitor] = []
    folder = Path(os.environ[_PICTURES]) if _PICTURES in os.environ else tmp_path

    def come(width: int = 1200, height: int = 900) -> Visitor:
        visitors.append(Visitor.of(browser, studio.url, folder, width, height))
        return visitors[-1]

    yield come
    for visitor in visitors:
        visitor.page.close()
        assert visitor.errors == []
        assert visitor.elsewhere == []


@pytest.fixture
def visitor(visit: Callable[..., Visitor]) -> Visitor:
    """One visitor at a wide window."""
    return visit()
