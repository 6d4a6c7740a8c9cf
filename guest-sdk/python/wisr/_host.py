"""What a page may ask of the host."""

from __future__ import annotations

from wit_world.imports import host

from ._text import scalar

_LEVELS = {level.name.lower(): level for level in host.Level}


def setting(name: str, default: str | None = None) -> str | None:
    """A setting of this route, from wisr.toml."""
    value = host.setting(scalar(name))
    return default if value is None else value


def tag(name: str) -> None:
    """Tags what is being made, whatever comes of it: a page, a 404 or a redirect. The same as ``tags`` of a
    result, from wherever the data is read."""
    if not isinstance(name, (str, int)):
        raise TypeError(f"a tag is a string, not {type(name).__name__}")
    host.tag(scalar(name))


def log(message: object, level: str = "info") -> None:
    """A line in the server's log: ``trace``, ``debug``, ``info``, ``warn`` or ``error``."""
    host.log(_LEVELS[level], scalar(message))
