"""What libraries of models say while they load tells a user of the command line nothing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_VERBOSITIES = ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY")
# Of a library to whoever calls it, which is not the user.
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within the context diffusers and transformers, where they are imported in it, log errors
    alone, unless their variables ask for more, and warnings for developers are not shown."""
    given = {name: os.environ.get(name) for name in _VERBOSITIES}
    for name in _VERBOSITIES:
        os.environ.setdefault(name, "error")
    try:
        with warnings.catch_warnings():
            for category in _FOR_DEVELOPERS:
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for name, value in given.items():
            if value is None:
                os.environ.pop(name, None)


def hide_loading_bars() -> None:
    """No progress bars of loading a pipeline's parts; downloads keep theirs."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()
