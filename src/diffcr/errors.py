"""What the library raises and warns for people, as opposed to assertions for developers."""

from __future__ import annotations

from collections.abc import Mapping

_LONGEST, _ENDS = 400, (260, 130)


def in_one_line(text: str) -> str:
    """A text for people on one line, of at most 400 characters: the middle of a longer one, where
    a value stands, is left out."""
    line = " ".join(text.split())
    if len(line) <= _LONGEST:
        return line
    first, last = _ENDS
    return f"{line[:first]} ... {line[-last:]}"


def first_line(error: BaseException) -> str:
    """The first line of what an error of another library says; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class DiffCRError(ValueError):
    """A mistake that the caller can mend, in one line: what was wrong, the value, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


class SettingsError(DiffCRError):
    """Settings that are missing or do not fit, named as the library does: a command line, a form
    have spellings of their own.

    Args:
        message: With every setting's name in braces: "clip needs a model: give {clip}".
        settings: Those names.
    """

    def __init__(self, message: str, *settings: str) -> None:
        self._message, self._settings = message, settings
        super().__init__(self.spelled({}))

    def spelled(self, spellings: Mapping[str, str]) -> str:
        """The message with other spellings of the settings, by name."""
        text = self._message
        for setting in self._settings:
            text = text.replace(f"{{{setting}}}", spellings.get(setting, setting))
        return text


class DiffCRWarning(UserWarning):
    """Something that works but is probably not what the caller wants."""
