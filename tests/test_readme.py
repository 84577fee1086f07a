"""The README says what the records say, and runs as written."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _tables() -> ModuleType:
    specification = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks/readme.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_committed_records() -> None:
    tables = _tables()
    assert all(f"<!-- {name} -->" in README for name in tables.TABLES)
    assert tables.filled(README) == README


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert len(local) > 5
    assert all((ROOT / link).exists() for link in local)
