"""The rows of the comparison: what each is, where it lies, and how it is opened.

A row is a file. One in `benchmarks/experiments/` says what it changes in the shipped recipe, and is
trained once per seed, into `runs/experiments/NAME-seed-S/`. One in `benchmarks/untrained/` needs no
training of its own: the embedded pipeline as it was pretrained, with a training-free method
("method") or fewer denoising steps; token reuse that `diffcr.calibrate` fits to captions of the
validation split ("calibration"), spending another budget than it was fitted for where one is given
("budget"); or what another row's run left on its way to a larger ratio ("checkpoint", below
`runs/experiments/`), or the embedded checkpoint ("embedded": true). Where skipped tokens get
something else than nothing ("bypass"), it may be fitted to captions of the validation split. A step
cache may be beside it ("cache"). It has seed 0 alone, or as many as it says ("image_seeds"), each
with noise of its own. One in `benchmarks/distilled/` is token reuse that was calibrated and then
distilled, once per seed for all rows with the same settings, spending a budget.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.lora import load_lora, read_lora
from diffcr.binding.model import get_attached, get_compressor
from diffcr.errors import DiffCRError
from diffcr.evaluation.options import EvaluationOptions
from diffcr.files import read_json
from diffcr.methods.config import DenseConfig
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.methods.registry import config_from_json_dict
from diffcr.pretrained import GUIDANCE_SCALE, default_checkpoint_path, load_default_pipeline
from diffcr.records.record import read_record
from diffcr.scenes import ScenesDataset
from diffcr.training.recipe import TrainingRecipe, find_recipe, load_recipe, recipe_from_dict

ROOT = Path(__file__).parents[1]
TRAINED = ROOT / "benchmarks" / "experiments"
UNTRAINED = ROOT / "benchmarks" / "untrained"
DISTILLED = ROOT / "benchmarks" / "distilled"
RUNS = ROOT / "runs" / "experiments"
RECORDS = ROOT / "benchmarks" / "results" / "experiments"
TEST_IMAGES = 2000
OPTIONS = EvaluationOptions(
    num_inference_steps=20,
    guidance_scale=GUIDANCE_SCALE,
    image_precision="bf16",
    batch_size=50,
    beside_dense=False,
    held_out_regions=4,
    held_out_samples=512,
    denoiser_repeats=0,
    pipeline_repeats=0,
    map_timesteps=(),
)
_RECORDED = (
    "num_inference_steps",
    "guidance_scale",
    "image_precision",
    "held_out_regions",
    "held_out_samples",
)
SETTINGS = {"images": TEST_IMAGES, **{name: getattr(OPTIONS, name) for name in _RECORDED}}


@dataclass(frozen=True)
class Run:
    """A row with one seed: what is trained, measured and recorded at once.

    Attributes:
        name: Of its file.
        seed: Of its training; of its images, where it has none.
    """

    name: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.name}-seed-{self.seed}"

    @property
    def is_trained(self) -> bool:
        """Whether its row is trained; others are measured as they are."""
        return (TRAINED / f"{self.name}.json").exists()

    @property
    def is_distilled(self) -> bool:
        """Whether its row is token reuse that is distilled."""
        return (DISTILLED / f"{self.name}.json").exists()

    @property
    def is_made(self) -> bool:
        """Whether its row is made with this seed."""
        return (
            self.is_trained
            or self.is_distilled
            or self.seed < self._untrained.get("image_seeds", 1)
        )

    @property
    def first_image_seed(self) -> int:
        """Image i starts from the noise of this seed plus i."""
        return 0 if self.is_trained or self.is_distilled else self.seed * TEST_IMAGES

    @property
    def _untrained(self) -> dict[str, Any]:
        return read_json((DISTILLED if self.is_distilled else UNTRAINED) / f"{self.name}.json")

    @property
    def directory(self) -> Path:
        """Of its training; of distilled rows with the same settings the same."""
        if self.is_distilled:
            settings = {k: self._untrained[k] for k in ("calibration", "distillation")}
            digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
            return RUNS / f"distilled-{digest[:8]}-seed-{self.seed}"
        return RUNS / str(self)

    @property
    def record(self) -> Path:
        """File of what was measured; a sheet of images has its name."""
        return RECORDS / f"{self}.json"

    @property
    def recipe(self) -> TrainingRecipe:
        """Of a row that is trained."""
        shipped = load_recipe(find_recipe("scenes-diffcr-lt")).to_json_dict()
        changes = read_json(TRAINED / f"{self.name}.json")
        values = {**changed(shipped, changes), "name": str(self), "seed": self.seed}
        values["checkpoint"] = values["checkpoint"].format(seed=self.seed)
        return recipe_from_dict(values, f"{self.name}.json")

    @property
    def configuration(self) -> dict[str, Any]:
        """Of its record: the settings of all rows and its own, its recipe or method in full."""
        if self.is_trained:
            return {**SETTINGS, "recipe": described(self.recipe)}
        own = {key: value for key, value in self._untrained.items() if key != "image_seeds"}
        if "cache" in own:
            own["cache"] = config_from_json_dict(own["cache"]).to_json_dict()
        if {"checkpoint", "calibration", "distillation", "embedded"} & own.keys():
            return {**SETTINGS, **own}
        method = config_from_json_dict(own.get("method", {"method": DenseConfig.method}))
        return {**SETTINGS, **own, "method": method.to_json_dict()}

    @property
    def result(self) -> Path | None:
        """What a training left, its own or, on the way, another row's; None for no training."""
        if self.is_trained:
            return self.directory / "final"
        checkpoint = self.configuration.get("checkpoint")
        return RUNS / checkpoint if checkpoint else None

    @property
    def start(self) -> Run | None:
        """The run that left the checkpoint which this one goes on from, or is."""
        given = ROOT / self.recipe.checkpoint if self.is_trained else self.result
        if given is None or given == ROOT:
            return None
        name, _, seed = given.relative_to(RUNS).parts[0].rpartition("-seed-")
        return Run(name, int(seed))

    def is_current(self) -> bool:
        """Whether there is a record of this very row, measured with these settings."""
        if not self.record.exists():
            return False
        measured, wanted = dict(read_record(self.record).configuration), self.configuration
        # Settings that came later had their defaults then.
        if self.is_trained:
            values = {**measured["recipe"], "name": str(self)}
            measured["recipe"] = described(recipe_from_dict(values, str(self.record)))
        elif "method" in measured:
            measured["method"] = config_from_json_dict(measured["method"]).to_json_dict()
        return measured == wanted

    def open(self) -> Any:
        """The embedded pipeline as the row wants it.

        Raises:
            DiffCRError: The run that it is from was not trained here.
        """
        pipe = self._open()
        if not self.is_trained and "bypass" in self.configuration:
            self._set_bypass(pipe, **self.configuration["bypass"])
        if "cache" in self.configuration:
            attach(pipe, config_from_json_dict(self.configuration["cache"]))
        return pipe

    def _open(self) -> Any:
        if self.result is not None:
            return load_result(_trained(self.result))
        pipe = load_default_pipeline()
        if "embedded" in self.configuration:
            diffcr.load(pipe, default_checkpoint_path())
            return pipe
        if self.is_distilled:
            diffcr.load(pipe, _trained(self.directory / "checkpoint"))
            self.set_budget(pipe)
            return pipe
        if "calibration" in self.configuration:
            self.calibrate(pipe)
            self.set_budget(pipe)
            return pipe
        method = config_from_json_dict(self.configuration["method"])
        if not isinstance(method, DenseConfig):
            attach(pipe, method)
        return pipe

    def _set_bypass(self, pipe: Any, validation_captions: int = 0, **asked: Any) -> None:
        """Give skipped tokens what the row says; what is linear is fitted."""
        get_compressor(pipe).set_bypass(**asked)
        if validation_captions:
            captions = ScenesDataset("validation", size=validation_captions)
            diffcr.fit_bypass(
                pipe,
                [scene.caption for scene in captions],
                asked["bypass_rank"],
                self.configuration["num_inference_steps"],
                self.configuration["guidance_scale"],
            )

    def calibrate(self, pipe: Any) -> None:
        """As `diffcr calibrate` does, whose seed and batch size these are."""
        configuration = self.configuration
        asked = configuration["calibration"]
        captions = ScenesDataset("validation", size=asked["validation_captions"])
        diffcr.calibrate(
            pipe,
            [scene.caption for scene in captions],
            asked["target_compression_ratio"],
            asked["granularity"],
            configuration["num_inference_steps"],
            configuration["guidance_scale"],
        )

    def set_budget(self, pipe: Any) -> None:
        """Spend what the row says, where it says something."""
        if "budget" in self.configuration:
            reuser: Any = get_attached(pipe)
            reuser.set_budget(self.configuration["budget"])


# Drawn by readme.py: sheets of the first images, and one picture's router maps.
TRAINED_SHEETS = tuple(Run(name) for name in ("dense", "mod-30", "diffcr-l-30", "diffcr-lt-30"))
UNTRAINED_SHEETS = tuple(
    Run(name) for name in ("dense-20-steps", "reuse-50-calibrated", "dense-10-steps")
)
DISTILLED_SHEETS = tuple(
    Run(name) for name in ("dense-20-steps", "reuse-80-calibrated", "distilled-80", "dense-6-steps")
)
SHEETS = tuple(dict.fromkeys((*TRAINED_SHEETS, *UNTRAINED_SHEETS, *DISTILLED_SHEETS)))
MAPPED = Run("diffcr-lt-30")


def _trained(directory: Path) -> Path:
    if not directory.is_dir():
        raise DiffCRError(f"{directory} is missing: train it, benchmarks/experiments.py")
    return directory


def all_names() -> list[str]:
    """Of every row."""
    return sorted(
        path.stem for rows in (TRAINED, UNTRAINED, DISTILLED) for path in rows.glob("*.json")
    )


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with those of `changes`; another method replaces the method whole."""
    result = dict(values)
    for key, value in changes.items():
        merges = isinstance(value, dict) and "method" not in value
        result[key] = changed(values[key], value) if merges else value
    return result


def described(recipe: TrainingRecipe) -> dict[str, Any]:
    """The recipe without what changes no result, or its rounding alone."""
    without = {"name", "model", "compile"}
    if not isinstance(recipe.method, DiffCRConfig):
        without.add("ratio_loss")
    return {key: value for key, value in recipe.to_json_dict().items() if key not in without}


def load_result(directory: Path) -> Any:
    """The embedded pipeline with what a run wrote."""
    pipe = load_default_pipeline()
    if (directory / "diffcr_config.json").exists():
        diffcr.load(pipe, directory)
    elif (directory / "adapter").exists():
        load_lora(pipe.transformer, read_lora(directory / "adapter"))
    else:
        dense = type(pipe.transformer).from_pretrained(directory / "transformer").eval()
        pipe.transformer = dense.to(pipe.transformer.device)
    return pipe
