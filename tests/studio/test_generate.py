"""Dense beside compressed, in the browser."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.studio.visitor import Visitor

pytestmark = pytest.mark.browser

_STAR = "a large red plain star in the middle on a striped teal background"
_CIRCLE = "a large blue plain circle in the middle on a plain white background"


def _seconds(visitor: Visitor, name: str) -> str:
    text = visitor.text("#numbers")
    found = re.search(rf"{name}\s+([\d.]+) s", text)
    assert found, text
    return found[1]


def _pair(visitor: Visitor) -> list[bytes]:
    return [visitor.image("#comparison", place).tobytes() for place in (0, 1)]


def test_a_prompt_is_painted_dense_and_compressed(visitor: Visitor) -> None:
    visitor.paint(_STAR)
    dense, compressed = _pair(visitor)
    assert dense != compressed
    assert visitor.image("#comparison").size == (96, 96)
    assert float(_seconds(visitor, "Left: dense")) > 0
    assert float(_seconds(visitor, "Right: compressed")) > 0
    visitor.photograph("generate")


def test_another_prompt_and_another_seed_are_other_pictures(visitor: Visitor) -> None:
    visitor.paint(_STAR)
    star = _pair(visitor)
    visitor.paint(_CIRCLE)
    circle = _pair(visitor)
    assert star[0] != circle[0] and star[1] != circle[1]
    visitor.set_number("Seed", "5")
    visitor.paint()
    assert _pair(visitor)[0] != circle[0]


def test_an_example_is_taken_as_the_prompt(visitor: Visitor) -> None:
    example = visitor.page.locator(".example").nth(1)
    example.click()
    assert visitor.page.get_by_label("Prompt").first.input_value() == example.inner_text()


def test_the_dial_paints_again_and_keeps_the_dense_picture(visitor: Visitor) -> None:
    visitor.paint(_STAR)
    before, seconds = _pair(visitor), _seconds(visitor, "Left: dense")
    dial = visitor.page.get_by_role("slider", name=re.compile("Budget")).first
    box = dial.bounding_box()
    visitor.page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + box["height"] / 2)
    visitor.page.mouse.down()
    visitor.page.mouse.move(box["x"] + 0.06 * box["width"], box["y"] + box["height"] / 2)
    visitor.page.mouse.up()
    visitor.wait_for_painted(2)
    after = _pair(visitor)
    assert after[0] == before[0] and after[1] != before[1]
    assert _seconds(visitor, "Left: dense") == seconds
    numbers = visitor.text("#numbers")
    assert float(dial.input_value()) < 0.3
    assert f"{float(dial.input_value()):.0%} of the tokens" in numbers


def test_at_full_budget_both_pictures_are_equal(visitor: Visitor) -> None:
    visitor.page.get_by_role("spinbutton", name=re.compile("Budget")).first.fill("1")
    visitor.page.keyboard.press("Tab")
    visitor.paint(_STAR)
    dense, compressed = _pair(visitor)
    assert dense == compressed


def test_a_method_without_a_budget_hides_the_dial(visitor: Visitor) -> None:
    dial = visitor.page.get_by_role("slider", name=re.compile("Budget")).first
    assert dial.is_visible()
    visitor.page.get_by_label("DiffCR 30%").first.check()
    dial.wait_for(state="hidden")
    visitor.paint(_STAR)
    dense, compressed = _pair(visitor)
    assert dense != compressed
    assert "Budget" not in visitor.text("#numbers")


def test_the_history_opens_an_earlier_picture(visitor: Visitor) -> None:
    visitor.paint(_STAR)
    star = _pair(visitor)
    visitor.paint(_CIRCLE)
    before = visitor.html("#comparison")
    visitor.page.locator("#history button").nth(1).click()
    visitor.wait_for_change("#comparison", before)
    assert _pair(visitor) == star
    assert visitor.painted == 2


def test_mistakes_are_one_line_on_the_page(visitor: Visitor) -> None:
    visitor.type_prompt(" ")
    visitor.press("Generate")
    message: Any = visitor.page.get_by_text("the prompt is empty: write some words")
    message.first.wait_for()
    assert visitor.painted == 0
