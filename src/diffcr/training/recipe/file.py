"""Recipe files, YAML or JSON: every key and value is checked."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

from diffcr.errors import DiffCRError
from diffcr.methods.config import MethodConfig
from diffcr.methods.registry import config_from_json_dict
from diffcr.training.recipe.recipe import TrainingRecipe


def find_recipe(name: str) -> Path:
    """A recipe file, or the shipped recipe of that name.

    Raises:
        DiffCRError: It is neither a path nor a name of a shipped recipe.
    """
    path = Path(name)
    if path.is_file() or path.suffix:
        return path
    package = Path(__file__).parents[2]
    # A wheel holds them inside the package, a clone beside src/.
    folders = (package / "recipes", package.parents[1] / "recipes")
    shipped = {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}
    if name not in shipped:
        raise DiffCRError(
            f"no recipe is called {name!r}: give a file, or one of {', '.join(shipped)}"
        )
    return shipped[name]


def load_recipe(path: str | Path) -> TrainingRecipe:
    """Read a recipe.

    Raises:
        DiffCRError: The file is missing or no YAML or JSON object, or a key or value is wrong.
    """
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise DiffCRError(f"recipe {path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DiffCRError(f"recipe {path} is not valid YAML or JSON: {reason}") from error
    return recipe_from_dict(values, str(path))


def recipe_from_dict(values: Any, source: str) -> TrainingRecipe:
    """A recipe from the contents of a file, `source` names it in errors."""
    try:
        recipe: TrainingRecipe = _read(TrainingRecipe, values, "")
    except DiffCRError as error:
        raise DiffCRError(f"recipe {source}: {error}") from error
    return recipe


def _read(section: Any, values: Any, where: str) -> Any:
    """A section, or the recipe itself; what its values have to be, it says itself."""
    if not isinstance(values, dict):
        raise DiffCRError(f"{where.rstrip('.') or 'it'} holds {values!r}: give keys and values")
    kinds = get_type_hints(section)
    for key in values:
        if key not in kinds:
            nearest = get_close_matches(str(key), kinds, n=1, cutoff=0)[0]
            raise DiffCRError(
                f"unknown key {where + str(key)!r}; did you mean {where + nearest!r}?"
            )
    if "name" in kinds and "name" not in values:
        raise DiffCRError("the key 'name' is missing")
    return section(**{key: _convert(kinds[key], v, where + key) for key, v in values.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    if kind == MethodConfig:
        if not isinstance(value, dict):
            raise DiffCRError(f"{where} is {value!r}: give a mapping with the key 'method'")
        return config_from_json_dict(value)
    sections = [part for part in (kind, *get_args(kind)) if is_dataclass(part)]
    if sections and not (value is None and type(None) in get_args(kind)):
        return _read(sections[0], value, where + ".")
    # YAML 1.1 reads a bare `no` as false, and 1e-4, without a point, as text.
    if value is False and "no" in get_args(kind):
        return "no"
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError):
            return float(value)
    return value
