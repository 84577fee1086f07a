"""A page in the browser: generate, inpaint, look inside, compare. Needs `diffcr[studio]`."""

from __future__ import annotations

from diffcr.studio.launching import Studio, launch, start

__all__ = ["Studio", "launch", "start"]
