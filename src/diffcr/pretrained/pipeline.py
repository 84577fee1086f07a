"""The class of the embedded pipeline, which is called with a prompt alone."""

from __future__ import annotations

import functools
from typing import Any

from diffusers import PixArtSigmaPipeline as PublishedPipeline

from diffcr.hosts.sampling import call_options


class PixArtSigmaPipeline(PublishedPipeline):  # type: ignore[misc]
    """PixArt-Sigma's pipeline at the size of the embedded model.

    The published call looks sizes up among those of the published models, and refuses others with
    "Invalid sample size". It has its parent's name, under which diffusers opens what it saves.
    """

    @functools.wraps(PublishedPipeline.__call__)
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """As the published call, at the size of the model and without cleaning the prompt."""
        return super().__call__(*arguments, **{**call_options(self), **options})
