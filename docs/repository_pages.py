"""Pages of the site that are files of the repository: examples and recipes, as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_ROOT = Path(__file__).parents[1]
_PAGES = {
    "examples.md": ("Examples", "examples", "*.py", "python"),
    "recipes.md": ("Recipes", "recipes", "*.yaml", "yaml"),
}
_LINK = re.compile(r"\]\(\.\./(examples|recipes)(?:/([\w-]+)\.\w+)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each folder."""
    for address, (title, folder, pattern, language) in _PAGES.items():
        parts = [f"# {title}", f"Files of `{folder}/`, as they are."]
        for path in sorted((_ROOT / folder).glob(pattern)):
            text = path.read_text(encoding="utf-8")
            parts.append(f"## {path.stem}\n\n````{language}\n{text}````")
        files.append(File.generated(config, address, content="\n\n".join(parts) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to those files to the pages."""
    return _LINK.sub(_to_page, markdown)


def _to_page(found: re.Match[str]) -> str:
    section = "" if found[2] is None else f"#{found[2]}"
    return f"]({found[1]}.md{section})"
