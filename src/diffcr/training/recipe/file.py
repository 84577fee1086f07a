"""Recipe files, YAML or JSON: every key and value is checked."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from diffcr.errors import DiffCRError
from diffcr.files import parse_json, read_text, require_characters, unique_keys
from diffcr.methods.config import MethodConfig
from diffcr.methods.registry import config_from_json_dict
from diffcr.training.recipe.recipe import TrainingRecipe
from diffcr.validation import refuse_unknown_key

_LARGEST = 2**16


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
    path = Path(path)
    text = read_text(path, _LARGEST)
    try:
        values = parse_json(text) if path.suffix == ".json" else _parse_yaml(text)
        require_characters(values)
    # What a value of a wrong kind raises depends on its tag.
    except Exception as error:
        raise DiffCRError(f"recipe {path} is not valid YAML or JSON: {error}") from error
    return recipe_from_dict(values, str(path))


def _parse_yaml(text: str) -> Any:
    """YAML as its standard has it, no key twice in a mapping; without aliases, which make a short
    file say more than memory holds."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("aliases (*name) are not read: write the values out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            unique_keys([(self.construct_object(key, deep=True), None) for key, _ in node.value])
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


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
        refuse_unknown_key(key, kinds, where)
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
        with suppress(ValueError, OverflowError):
            return float(value)
    return value
