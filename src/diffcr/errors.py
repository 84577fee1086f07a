"""What the library raises and warns for people, as opposed to assertions for developers."""

from __future__ import annotations


class DiffCRError(ValueError):
    """A mistake that the caller can mend, in one line: what was wrong, the value, what to do."""


class DiffCRWarning(UserWarning):
    """Something that works but is probably not what the caller wants."""
