"""What importing costs, what is public, and how long a family is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import iter_modules

import pytest

import diffcr
from diffcr import hosts
from diffcr.hosts.family import Family

_PROJECT = Path(__file__).parent.parent


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, diffcr, diffcr.cli\n"
    code += "heavy = {'torch', 'numpy', 'diffusers', 'transformers', 'peft', 'accelerate'}\n"
    code += "print(sorted(heavy & set(sys.modules)))"
    assert _run(code) == "[]"


def test_configurations_and_errors_need_no_torch() -> None:
    code = "import sys, diffcr; diffcr.DiffCRConfig(), diffcr.DenseConfig(), diffcr.DiffCRError\n"
    code += "print('torch' in sys.modules)"
    assert _run(code) == "False"


def test_public_names() -> None:
    # get_compressor is for benchmarks and own training loops that load an attached model.
    assert set(diffcr.__all__) - {"get_compressor"} == {
        "ATEDMConfig",
        "DenseConfig",
        "DiffCRConfig",
        "DiffCRError",
        "DistillationSettings",
        "FirstBlockCacheConfig",
        "MagCacheConfig",
        "MoDConfig",
        "PyramidAttentionBroadcastConfig",
        "ReuseConfig",
        "StructuredPruningConfig",
        "TGateConfig",
        "TaylorSeerConfig",
        "ToMeConfig",
        "__version__",
        "add_lora",
        "attach",
        "calibrate",
        "compile",
        "detach",
        "disabled",
        "distill",
        "fit_bypass",
        "fuse_lora",
        "load",
        "measure_mag_ratios",
        "parameter_groups",
        "push",
        "save",
        "summary",
        "supported_models",
        "register_model",
        "trajectory",
        "unfuse_lora",
    }
    assert set(dir(diffcr)) == set(diffcr.__all__)
    assert diffcr.__version__ == version("diffcr")


def test_public_names_are_callable_whatever_was_imported_first() -> None:
    code = "import diffcr.checkpoint.saving, diffcr.binding.attachment, diffcr\n"
    code += "names = set(diffcr.__all__) - {'__version__'}\n"
    code += "print(all(callable(getattr(diffcr, name)) for name in names))"
    assert _run(code) == "True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'atach'"):
        diffcr.atach  # noqa: B018


def test_a_family_is_a_file_of_at_most_60_lines() -> None:
    registered = {*hosts.families()}
    for found in iter_modules(hosts.__path__, "diffcr.hosts."):
        module = import_module(found.name)
        held = [value for value in vars(module).values() if isinstance(value, Family)]
        registered -= {family.transformer_class.rpartition(".")[2] for family in held}
        if held:
            assert len(Path(str(module.__file__)).read_text().splitlines()) <= 60, found.name
    # All of them were seen.
    assert not registered


@pytest.mark.skipif(not (_PROJECT / "pyproject.toml").exists(), reason="not in a clone")
def test_tested_versions_are_the_constraints() -> None:
    """The version behind each dependency is the one that constraints.txt holds."""
    text = (_PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    names = [line.strip() for line in (_PROJECT / "constraints.txt").read_text().splitlines()]
    pinned = {name.lower().replace("_", "-"): v for name, v in (n.split("==") for n in names)}
    for dependency in tomllib.loads(text)["project"]["dependencies"]:
        name = dependency.split(">=")[0]
        assert f'"{dependency}",  # {pinned[name]}\n' in text
    assert "torchvision" not in pinned
    assert not [name for name in pinned if name.startswith("nvidia")]
