"""The README says what the records say, and runs as written."""

from __future__ import annotations

import re
from pathlib import Path

import readme

from diffcr.report.overview import write_overview

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_committed_records() -> None:
    texts = "".join(file.read_text(encoding="utf-8") for file in readme.FILLED)
    assert all(f"<!-- {name} -->" in texts for name in readme.TABLES)
    for file in readme.FILLED:
        text = file.read_text(encoding="utf-8")
        assert readme.filled(text) == text, file


def test_the_page_of_the_committed_records_is_written(tmp_path: Path) -> None:
    page = write_overview(readme.RESULTS / "experiments", tmp_path / "report.html")
    assert all(name in page.read_text() for name in ("dense-14-steps", "diffcr-lt-30-lora"))


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert len(local) > 5
    assert all((ROOT / link).exists() for link in local)
