"""Painting a mask and having it repainted, in the browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcr.inpainting.example import make_example
from diffcr.studio.inpaint_tab import PAINTED
from tests.studio.visitor import Visitor

pytestmark = pytest.mark.browser


def _stroke(visitor: Visitor) -> None:
    """Over the example's object, as with a mouse."""
    canvas = visitor.page.locator("#drawing canvas").first
    canvas.wait_for()
    visitor.page.wait_for_timeout(1500)
    box = canvas.bounding_box()
    for row in (0.59, 0.63, 0.67):
        visitor.page.mouse.move(box["x"] + 0.60 * box["width"], box["y"] + row * box["height"])
        visitor.page.mouse.down()
        for step in range(1, 8):
            across = 0.60 + 0.04 * step
            visitor.page.mouse.move(
                box["x"] + across * box["width"], box["y"] + row * box["height"]
            )
        visitor.page.mouse.up()
    visitor.page.wait_for_timeout(500)


def _repaint(visitor: Visitor) -> Image.Image:
    before = visitor.html("#strokes")
    visitor.press("Repaint")
    visitor.wait_for_change("#strokes", before)
    return visitor.image("#repainted")


def _choose(visitor: Visitor, part: str) -> None:
    visitor.page.get_by_label("What is repainted").click()
    visitor.page.get_by_role("option", name=part).click()


def test_a_painted_stroke_is_repainted_and_nothing_else(visitor: Visitor) -> None:
    visitor.open_tab("Inpaint")
    _stroke(visitor)
    painted = np.asarray(_repaint(visitor)).astype(int)
    assert painted.shape == (512, 512, 3)
    given = np.asarray(make_example().image.resize((512, 512), Image.Resampling.BICUBIC))
    changed = np.abs(painted - given).max(axis=-1) > 2
    assert 0.02 < changed.mean() < 0.4
    assert not changed[:200].any()
    numbers = visitor.text("#strokes-numbers")
    assert re.search(r"\d+% of the picture", numbers) and re.search(r"[\d.]+ s", numbers)
    for part in ("Left half", "Everything", PAINTED):
        _choose(visitor, part)
        again = _repaint(visitor)
    assert (np.asarray(again) == painted).all()
    assert visitor.page.locator("#strokes circle").count() == 4
    visitor.photograph("inpaint")


def test_a_part_by_name_needs_no_mouse(visitor: Visitor) -> None:
    visitor.open_tab("Inpaint")
    _choose(visitor, "Upper half")
    visitor.type_prompt("a large blue plain circle at the top left on a plain white background")
    painted = _repaint(visitor)
    assert painted.size == (512, 512)
    assert "50% of the picture" in visitor.text("#strokes-numbers")


def test_without_a_mask_the_page_says_what_to_do(visitor: Visitor) -> None:
    visitor.open_tab("Inpaint")
    visitor.page.locator("#drawing canvas").first.wait_for()
    visitor.press("Repaint")
    visitor.page.get_by_text("nothing is masked: paint over what is to change").first.wait_for()


def test_an_own_picture_is_repainted_at_its_own_size(visitor: Visitor, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (200, 40, 40)).save(tmp_path / "own.png")
    visitor.open_tab("Inpaint")
    visitor.page.locator("#drawing canvas").first.wait_for()
    visitor.page.get_by_label("Clear").locator("visible=true").first.click()
    visitor.page.locator("#drawing input[type=file]").first.set_input_files(tmp_path / "own.png")
    visitor.page.wait_for_timeout(2000)
    _choose(visitor, "Left half")
    painted = np.asarray(_repaint(visitor))
    assert painted.shape == (200, 300, 3)
    # Beyond the mask and its dilation the picture is the one that was given.
    assert (painted[:, 160:] == (200, 40, 40)).all()
    assert (painted[:, :140] != (200, 40, 40)).any()
