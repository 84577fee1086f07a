"""The text-to-image models behind the page: shared by all visitors, used by one at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from math import ceil
from threading import Lock
from typing import Any

from PIL import Image

from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import (
    changes_dense,
    disabled,
    get_attached,
    get_compressor,
    get_reuser,
    is_attached,
    is_routed,
)
from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.reuse_maps import reuse_maps
from diffcr.evaluation.router_maps import router_maps
from diffcr.hosts import family_of, find_transformer
from diffcr.methods.coverage import method_refusals
from diffcr.methods.reuse.config import LARGEST_RATIO, ReuseConfig
from diffcr.studio.requests import PictureRequest, TimedPicture
from diffcr.studio.views import InsideView, ReusedView, RoutedView

_REUSE = {
    "Reuse of whole steps": ReuseConfig(0.5, granularity="steps"),
    "Reuse of tokens": ReuseConfig(0.5, granularity="tokens"),
}
_DIAL_STEPS = 100
# Pictures are painted again, to time them, within so many seconds.
_QUICK = 2.0
_QUICK_RUNS = 3


@dataclass(frozen=True)
class StudioMethod:
    """A way to compress the pipeline.

    Attributes:
        title: For people.
        pipe: The pipeline that it runs on.
        config: What is attached for the time of a picture; None where the pipeline has its method.
        least_budget: Lower end of the dial; None for a method without a budget.
        has_maps: Whether one can look inside.
    """

    title: str
    pipe: Any
    config: ReuseConfig | None
    least_budget: float | None
    has_maps: bool


@dataclass
class StudioModel:
    """A text-to-image model, dense and under several methods.

    Attributes:
        dense: The pipeline that paints without compression, once its method is switched off.
        methods: By title.
        guidance_scale: That the page begins with.
        lock: Held while a picture is painted.
        knows_scenes: Whether it is the embedded model, which knows the project's scenes alone.
    """

    dense: Any
    methods: Mapping[str, StudioMethod]
    guidance_scale: float
    lock: Lock
    knows_scenes: bool = False
    _warm: set[int] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        pipe: Any,
        dense: Any | None,
        guidance_scale: float,
        lock: Lock,
        knows_scenes: bool = False,
    ) -> StudioModel:
        """The methods that a pipeline can be shown with.

        Args:
            pipe: With a method attached, or bare.
            dense: The bare pipeline beside it, or None.
            guidance_scale: That the page begins with.
            lock: That all models of a page share.
            knows_scenes: Whether it is the embedded model.

        Raises:
            DiffCRError: Its class is not supported, or the dense model is not known.
        """
        transformer = find_transformer(pipe)
        attached = is_attached(transformer)
        if attached and dense is None and changes_dense(transformer):
            raise DiffCRError(
                "the checkpoint changed the model's own weights, so that the dense model is not "
                "known: give the bare pipeline as dense"
            )
        methods = _reusing(dense if attached else pipe)
        if attached:
            own = _as_attached(pipe)
            methods[own.title] = own
        if not methods:
            raise DiffCRError(
                f"{type(transformer).__name__} can be run with no reuse: attach a method first"
            )
        return cls(dense or pipe, methods, guidance_scale, lock, knows_scenes)

    @property
    def name(self) -> str:
        """Of the pipeline and its device, for people."""
        device = next(find_transformer(self.dense).parameters()).device
        named = "embedded pipeline" if self.knows_scenes else type(self.dense).__name__
        return f"{named} on {device}"

    def paint(
        self, request: PictureRequest, title: str | None = None, budget: float | None = None
    ) -> TimedPicture:
        """A picture and the seconds it took, after one that is not timed.

        Args:
            request: What is to be seen.
            title: Of the method; None for the dense model.
            budget: Share of the dense model's tokens, for a method that has a dial.

        Raises:
            DiffCRError: There is no such method, or the budget is outside its range.
        """
        method = None if title is None else self._method(title)
        pipe = self.dense if method is None else method.pipe
        with self.lock, self._prepared(method, budget):
            if id(pipe) not in self._warm:
                self._generate(pipe, replace(request, steps=1))
                self._warm.add(id(pipe))
            return self._time(pipe, request)

    def look_inside(
        self, request: PictureRequest, title: str, budget: float | None = None
    ) -> InsideView:
        """What a method computes while a picture is painted, at every denoising step.

        Raises:
            DiffCRError: There is no such method, or it has no maps.
        """
        method = self._method(title)
        if not method.has_maps:
            raise DiffCRError(f"{title} has neither routers nor ages of tokens to look at")
        settings = {"seed": request.seed, "guidance_scale": request.guidance_scale}
        pipe, steps = method.pipe, request.steps
        with self.lock, self._prepared(method, budget):
            if is_routed(find_transformer(pipe)):
                maps = router_maps(pipe, request.prompt, range(steps), steps, **settings)
                return RoutedView.of(maps, find_transformer(pipe))
            ages = reuse_maps(pipe, request.prompt, num_inference_steps=steps, **settings)
            return ReusedView(ages)

    def _method(self, title: str) -> StudioMethod:
        if title not in self.methods:
            known = ", ".join(self.methods)
            raise DiffCRError(f"no method is called {title!r}: choose from {known}")
        return self.methods[title]

    @contextmanager
    def _prepared(self, method: StudioMethod | None, budget: float | None) -> Iterator[None]:
        """Within the context, pipelines are as a method, or the dense model, needs them."""
        if method is None:
            attached = is_attached(find_transformer(self.dense))
            with disabled(self.dense) if attached else nullcontext():
                yield
        elif method.config is None:
            with self._at_budget(method, budget):
                yield
        else:
            attach(method.pipe, method.config)
            try:
                with self._at_budget(method, budget):
                    yield
            finally:
                detach(method.pipe)

    @staticmethod
    @contextmanager
    def _at_budget(method: StudioMethod, budget: float | None) -> Iterator[None]:
        """Within the context a method with a dial spends the budget; then what it spent before."""
        if method.least_budget is None or budget is None:
            yield
            return
        reuser = get_reuser(method.pipe)
        before = reuser.config.compression_ratio
        reuser.set_budget(budget)
        try:
            yield
        finally:
            reuser.set_compression_ratio(before)

    def _time(self, pipe: Any, request: PictureRequest) -> TimedPicture:
        """The picture, and the shortest time of a few where it is quick: what else the machine does
        weighs as much."""
        seconds: list[float] = []
        while len(seconds) < _QUICK_RUNS and sum(seconds) < _QUICK:
            start = time.perf_counter()
            image = self._generate(pipe, request)
            seconds.append(time.perf_counter() - start)
        return TimedPicture(image, min(seconds))

    @staticmethod
    def _generate(pipe: Any, request: PictureRequest) -> Image.Image:
        (image,) = generate_images(
            pipe, [request.prompt], request.seed, request.steps, request.guidance_scale
        )
        return image


def _reusing(bare: Any | None) -> dict[str, StudioMethod]:
    """What a bare pipeline can be run with, by title."""
    if bare is None:
        return {}
    refusals = method_refusals(family_of(find_transformer(bare)))
    return {
        title: StudioMethod(title, bare, config, _least_budget(config), has_maps=True)
        for title, config in _REUSE.items()
        if f"reuse:{config.granularity}" not in refusals
    }


def _as_attached(pipe: Any) -> StudioMethod:
    transformer = find_transformer(pipe)
    config = get_attached(transformer).config
    if isinstance(config, ReuseConfig):
        title = f"Reuse of {config.granularity}"
        return StudioMethod(title, pipe, None, _least_budget(config), has_maps=True)
    routed = is_routed(transformer)
    ratio = ""
    if routed:
        ratio = f" {get_compressor(transformer).realised_mean_compression_ratio:.0%}"
    name = {"diffcr": "DiffCR", "mod": "Uniform ratios (MoD)"}.get(config.method, config.method)
    return StudioMethod(f"{name}{ratio}", pipe, None, None, has_maps=routed)


def _least_budget(config: ReuseConfig) -> float:
    exact = 1 - LARGEST_RATIO * config.dense_above
    return ceil(exact * _DIAL_STEPS) / _DIAL_STEPS
