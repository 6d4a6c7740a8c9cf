"""Text as it crosses the border: a ``str`` may hold surrogates, which are no Unicode and which the contract's
strings cannot hold. As on the web they become U+FFFD, unless two of them are a pair."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from typing import Any


def scalar(value: object) -> str:
    """A value as text that the host can take."""
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    # No subclass of `str`: the bindings take none.
    return str.__str__(text)


def scalars(value: Any) -> Any:
    """The same for each string of what goes to the host."""
    if isinstance(value, str):
        return scalar(value)
    if isinstance(value, (list, tuple)):
        return type(value)(scalars(part) for part in value)
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            setattr(value, field.name, scalars(getattr(value, field.name)))
    return value


class _Stream:
    """A stream of text that takes any text."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(scalar(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def free_streams() -> None:
    """A page that prints half a pair is no worse than one that shows it. The streams are those of the call: at
    the build there are others."""
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, _Stream) else _Stream(stream) for stream in (sys.stdout, sys.stderr)
    )
