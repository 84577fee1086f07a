"""The frontier, in the browser."""

from __future__ import annotations

import pytest

from diffcr.report.figures.trade_off import MOST_SERIES
from diffcr.studio.frontier import read_frontier
from tests.studio.conftest import RECORDS
from tests.studio.visitor import Visitor

pytestmark = pytest.mark.browser


def test_methods_are_switched_off_and_on(visitor: Visitor) -> None:
    visitor.open_tab("Compare")
    visitor.wait_for_count("#frontier .line", MOST_SERIES)
    fewer = visitor.page.get_by_role("checkbox", name="Fewer denoising steps")
    fewer.uncheck()
    visitor.wait_for_count("#frontier .line", MOST_SERIES - 1)
    assert visitor.page.get_by_role("button", name="Fewer denoising steps").count() == 0
    fewer.check()
    visitor.wait_for_count("#frontier .line", MOST_SERIES)


def test_a_point_opens_its_pictures_by_keyboard(visitor: Visitor) -> None:
    visitor.open_tab("Compare")
    point = visitor.page.get_by_role("button", name="Fewer denoising steps, 10 steps")
    point.focus()
    visitor.page.keyboard.press("Enter")
    visitor.page.locator("#opened img").first.wait_for()
    assert visitor.page.locator("#opened img").count() == 8
    frontier = read_frontier(RECORDS)
    assert frontier.describe(frontier.point("dense-10-steps")) in visitor.html("#opened")
    visitor.photograph("compare")


def test_a_point_without_pictures_says_so(visitor: Visitor) -> None:
    visitor.open_tab("Compare")
    visitor.page.get_by_role("button", name="Structured pruning, trained, 50 %").click()
    visitor.page.get_by_text("No pictures of it were kept.").wait_for()
    assert visitor.page.locator("#opened img").count() == 0
