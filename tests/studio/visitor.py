"""Someone who looks at the page."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

# A busy machine takes minutes for what an idle one does in two seconds.
_PATIENCE = 600_000
_LOCAL = ("data:", "blob:")
# What a screenshot waits for: transitions of the page.
_SETTLED = 800


@dataclass(frozen=True)
class Visitor:
    """A browser window with the page.

    Attributes:
        page: Playwright's.
        errors: What the console said of errors.
        elsewhere: Addresses that were asked beside the page's own.
        folder: Of screenshots.
    """

    page: Any
    errors: list[str]
    elsewhere: list[str]
    folder: Path

    @classmethod
    def of(cls, browser: Any, url: str, folder: Path, width: int, height: int) -> Visitor:
        """A window of its own, with the page open. All windows share the browser's cache: scripts
        are read once; who is who the page knows by the window."""
        page = browser.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(_PATIENCE)
        page.set_default_navigation_timeout(_PATIENCE)
        visitor = cls(page, [], [], folder)
        visitor.page.on("console", lambda message: visitor._hear(message))
        visitor.page.on("pageerror", lambda error: visitor.errors.append(str(error)))
        visitor.page.on("request", lambda request: visitor._follow(request.url, url))
        visitor.page.goto(url)
        visitor.page.get_by_role("tab", name="Generate").wait_for()
        visitor.page.get_by_role("button", name="Generate", exact=True).wait_for()
        return visitor

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _follow(self, address: str, url: str) -> None:
        if not address.startswith((url, *_LOCAL)):
            self.elsewhere.append(address)

    def open_tab(self, name: str) -> None:
        """Click on a tab."""
        self.page.get_by_role("tab", name=name).click()

    def press(self, name: str) -> None:
        """Click on a button of the open tab."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def type_prompt(self, text: str) -> None:
        """Write into the open tab's prompt."""
        self.page.get_by_label("Prompt").locator("visible=true").fill(text)

    def set_number(self, label: str, value: str) -> None:
        """Write a number under "Seed, steps, guidance" of the open tab."""
        field = self.page.get_by_label(label).locator("visible=true")
        if not field.count():
            self.page.get_by_role("button", name="Seed, steps, guidance").locator(
                "visible=true"
            ).click()
        field.first.wait_for()
        # A field that was just unfolded takes its first value a moment later, and hands on what is
        # typed a moment later, too.
        self.page.wait_for_timeout(500)
        field.first.fill(value)
        field.first.press("Tab")
        self.page.wait_for_timeout(500)
        assert field.first.input_value() == value

    def paint(self, prompt: str | None = None) -> None:
        """Generate, and wait for the picture."""
        if prompt is not None:
            self.type_prompt(prompt)
        before = self.painted
        self.press("Generate")
        self.wait_for_painted(before + 1)

    @property
    def painted(self) -> int:
        """Pictures in the history."""
        return int(self.page.locator("#history button").count())

    def wait_for_painted(self, count: int) -> None:
        """Wait until the history holds that many."""
        self.page.locator("#history button").nth(count - 1).wait_for()

    def image(self, selector: str, place: int = 0) -> Image.Image:
        """The picture that an element shows."""
        shown = self.page.locator(f"{selector} img").nth(place)
        shown.wait_for()
        answer = self.page.request.get(shown.get_attribute("src"))
        return Image.open(BytesIO(answer.body())).convert("RGB")

    def wait_for_change(self, selector: str, before: str) -> None:
        """Wait until an element's HTML is another."""
        self.page.wait_for_function(
            "([selector, before]) => document.querySelector(selector).innerHTML !== before",
            arg=[selector, before],
        )

    def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until an element says something."""
        self.page.locator(selector).get_by_text(text).first.wait_for()

    def wait_for_count(self, selector: str, count: int) -> None:
        """Wait until there are that many elements."""
        self.page.wait_for_function(
            "([selector, count]) => document.querySelectorAll(selector).length === count",
            arg=[selector, count],
        )

    def text(self, selector: str) -> str:
        """What an element says."""
        return str(self.page.locator(selector).first.inner_text())

    def html(self, selector: str) -> str:
        """What an element holds."""
        return str(self.page.locator(selector).inner_html())

    def photograph(self, name: str) -> None:
        """Write a picture of the whole page."""
        self.page.mouse.move(0, 0)
        self.page.wait_for_timeout(_SETTLED)
        self.page.screenshot(path=self.folder / f"studio-{name}.png", full_page=True)
