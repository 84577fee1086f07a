"""Tokens over the picture, in the browser."""

from __future__ import annotations

import re

import pytest

from tests.studio.visitor import Visitor

pytestmark = pytest.mark.browser


def _look(visitor: Visitor) -> None:
    visitor.press("Look inside")
    visitor.page.locator("#tokens img").wait_for()


def test_steps_and_layers_can_be_scrubbed(visitor: Visitor) -> None:
    visitor.open_tab("Look inside")
    _look(visitor)
    visitor.wait_for_text("#said", "all layers: 70% of the tokens are computed")
    assert visitor.page.locator("#ratios tbody tr").count() == 8
    visitor.photograph("look-inside")
    first = visitor.image("#tokens").tobytes()
    step = visitor.page.get_by_role("slider", name=re.compile("Denoising step")).locator(
        "visible=true"
    )
    step.focus()
    visitor.page.keyboard.press("ArrowLeft")
    visitor.wait_for_text("#said", "Step 10 of 20")
    visitor.page.get_by_label("Layer").click()
    visitor.page.get_by_role("option", name="layer 5").click()
    visitor.wait_for_text("#said", "layer 5: 20% of the tokens are computed")
    assert visitor.page.locator("#ratios td.current").inner_text() == "80%"
    visitor.page.wait_for_timeout(1000)
    assert visitor.image("#tokens").tobytes() != first


def test_reuse_shows_how_old_tokens_are(visitor: Visitor) -> None:
    visitor.open_tab("Look inside")
    visitor.page.get_by_label("Reuse of tokens").locator("visible=true").check()
    _look(visitor)
    visitor.wait_for_text("#said", "Tinted tokens reuse what they got")
    assert not visitor.page.get_by_label("Layer").is_visible()
    rows = visitor.page.locator("#ratios tbody tr")
    assert rows.count() == 20
    assert rows.first.locator("td").inner_text() == "100%"
    assert rows.last.locator("td").inner_text() != "100%"
    visitor.photograph("ages")
