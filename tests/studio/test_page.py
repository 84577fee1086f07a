"""What holds on every tab: narrow windows, keyboard, names, and several visitors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.studio.visitor import Visitor

pytestmark = pytest.mark.browser

_TABS = ("Generate", "Inpaint", "Look inside", "Compare")
# Of the page's own controls: the editor's tool bar is Gradio's.
_NAMELESS = """
() => [...document.querySelectorAll("input, textarea, select, button, [role=button]")]
  .filter((e) => e.offsetParent !== null && e.type !== "file" && !e.closest("#drawing"))
  .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") ||
                   e.title || e.innerText?.trim() || e.labels?.length))
  .map((e) => e.outerHTML.slice(0, 200))
"""


def test_a_narrow_window_needs_no_sideways_scrolling(visit: Callable[..., Visitor]) -> None:
    visitor = visit(width=360, height=740)
    visitor.paint()
    for tab in _TABS:
        if tab != _TABS[0]:
            _open_narrow(visitor, tab)
        visitor.page.wait_for_timeout(500)
        widths = "() => [document.documentElement.scrollWidth, window.innerWidth]"
        needed, width = visitor.page.evaluate(widths)
        assert needed <= width, tab
    _open_narrow(visitor, "Generate")
    visitor.photograph("narrow")


def _open_narrow(visitor: Visitor, tab: str) -> None:
    shown = visitor.page.get_by_role("tab", name=tab).locator("visible=true")
    if not shown.count():
        visitor.page.locator(".overflow-menu button").first.click()
        visitor.page.locator(".overflow-dropdown").get_by_text(tab).click()
        return
    shown.click()


def test_a_picture_needs_the_keyboard_alone(visitor: Visitor) -> None:
    prompt = visitor.page.get_by_label("Prompt").first
    prompt.focus()
    prompt.press("Control+a")
    visitor.page.keyboard.type("a large blue plain ring in the middle on a plain white background")
    for _ in range(12):
        visitor.page.keyboard.press("Tab")
        if visitor.page.evaluate("() => document.activeElement.innerText") == "Generate":
            break
    visitor.page.keyboard.press("Enter")
    visitor.wait_for_painted(1)


def test_every_control_has_a_name(visitor: Visitor) -> None:
    visitor.paint()
    for tab in _TABS:
        visitor.open_tab(tab)
        visitor.page.wait_for_timeout(500)
        assert visitor.page.evaluate(_NAMELESS) == [], tab
        headings = visitor.page.get_by_role("heading", name="diffcr studio")
        assert headings.count() == 1


def test_two_visitors_at_once_get_what_one_gets_alone(visit: Callable[..., Visitor]) -> None:
    prompts = [
        "a large red plain star in the middle on a striped teal background",
        "a large blue plain circle in the middle on a plain white background",
    ]
    first, second = visit(), visit()
    for visitor, prompt in zip((first, second), prompts, strict=True):
        visitor.type_prompt(prompt)
    first.press("Generate")
    second.press("Generate")
    for visitor in (first, second):
        visitor.wait_for_painted(1)
    together = [visitor.image("#comparison", 1).tobytes() for visitor in (first, second)]
    alone = visit()
    for prompt, expected in zip(prompts, together, strict=True):
        alone.paint(prompt)
        assert alone.image("#comparison", 1).tobytes() == expected
    assert first.painted == second.painted == 1
