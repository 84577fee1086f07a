"""Commands and programs in README and docs work as they are written.

A block of Python runs, all of a page in one namespace. What cannot run here stands behind
`<!-- not run: WHY -->`, and is held to the names and arguments that it uses. Of commands every word
is read by the command line that it is for.
"""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

import diffcr
import diffcr.pretrained
from diffcr.cli.commands import app
from diffcr.methods import registry
from diffcr.pretrained.pipeline import PixArtSigmaPipeline
from tests.pipelines import tiny_pixart_pipeline

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?```(python|bash)\n(.*?)```", re.DOTALL)
_COMMANDS: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# Of systems and other packages: what they are given is theirs to say.
_FOREIGN = {"source", "pip", "hf", "apt-get", "pytest", "mkdocs", "cd", "git"}
_AND_SO_ON = "..."
# Others run on a pipeline that is smaller still.
_ON_THE_EMBEDDED = ("README.md", "inpainting.md")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    runs: bool


def _blocks(page: Path, language: str) -> list[Block]:
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    blocks = [Block(kind, text, not mark) for mark, kind, text in found]
    return [block for block in blocks if block.language == language]


def _with(language: str) -> list[Any]:
    return [pytest.param(page, id=page.name) for page in PAGES if _blocks(page, language)]


@pytest.mark.parametrize("page", _with("python"))
def test_programs_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    if page.name not in _ON_THE_EMBEDDED:
        monkeypatch.setattr(diffcr.pretrained, "load_default_pipeline", _tiny_pipeline)
    namespace: dict[str, Any] = {"__name__": "snippet"}
    known = {"diffcr": diffcr}
    for block in _blocks(page, "python"):
        _check_names(block.text, known)
        if block.runs:
            exec(compile(block.text, str(page), "exec", dont_inherit=True), namespace)
    if page.name == "README.md":
        assert namespace["image"].size == (96, 96)
        assert diffcr.load(diffcr.pretrained.load_default_pipeline(), "half/")


def _tiny_pipeline() -> Any:
    """What a page calls the embedded pipeline, smaller still."""
    pipe = PixArtSigmaPipeline(**tiny_pixart_pipeline().components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _check_names(text: str, known: dict[str, Any]) -> None:
    """That what a program imports is there, and that diffcr's functions take its arguments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = import_module(str(node.module))
            known |= {name.asname or name.name: getattr(module, name.name) for name in node.names}
        elif isinstance(node, ast.Import):
            for name in node.names:
                import_module(name.name)
                root = name.name.partition(".")[0]
                known[name.asname or root] = import_module(name.name if name.asname else root)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = _resolve(node.func, known)
        if (getattr(function, "__module__", None) or "").startswith("diffcr"):
            named = {str(word.arg): None for word in node.keywords}
            inspect.signature(function).bind(*[None] * len(node.args), **named)


def _resolve(node: ast.expr, known: dict[str, Any]) -> Any:
    """What a dotted name stands for; None where it is none that was imported."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolve(node.value, known)
        return None if owner is None else getattr(owner, node.attr)
    return None


@pytest.mark.parametrize("page", _with("bash"))
def test_commands_are_understood(page: Path) -> None:
    for block in _blocks(page, "bash"):
        for command in _commands(block.text):
            _check_command(command)


def _commands(text: str) -> Iterator[list[str]]:
    """Words of each command, without what is set for it alone."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word in ("&&", ";", "|"):
                if words:
                    yield words
                words = []
            elif words or not re.match(r"[A-Z_]+=", word):
                words.append(word)


def _check_command(words: list[str]) -> None:
    if "diffcr" in words[:6] and words[0] in ("diffcr", "torchrun", "python"):
        _check_diffcr(words[words.index("diffcr") + 1 :])
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        asked = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        assert {*asked} <= {*targets}, words
    elif words[:2] == ["python", "-m"]:
        assert find_spec(words[2]), words
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words
    else:
        assert words[0] in _FOREIGN or (ROOT / words[0]).is_file(), words


def _check_diffcr(words: list[str]) -> None:
    """That a command of diffcr takes all of this; `...` stands for what it needs besides."""
    if not words or words == [_AND_SO_ON]:
        return
    name, *arguments = words
    given = [word for word in arguments if word != _AND_SO_ON]
    try:
        _COMMANDS[name].make_context(name, given)
    except Exception as error:
        missing = type(error).__name__ == "MissingParameter"
        if not (missing and _AND_SO_ON in arguments):
            raise AssertionError(f"diffcr {' '.join(words)}: {error}") from error


def test_a_wrong_option_or_argument_is_found() -> None:
    with pytest.raises(AssertionError, match="--tagret"):
        _check_command(["diffcr", "calibrate", "--tagret", "0.5"])
    with pytest.raises(TypeError, match="ratio"):
        _check_names("diffcr.calibrate(pipe, prompts, ratio=0.5)", {"diffcr": diffcr})
    with pytest.raises(AttributeError, match="attatch"):
        _check_names("diffcr.attatch(pipe)", {"diffcr": diffcr})
