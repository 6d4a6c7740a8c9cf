"""What a page may ask of the host."""

from __future__ import annotations

from wit_world.imports import host

from ._text import scalar

_LEVELS = {level.name.lower(): level for level in host.Level}


def setting(name: str, default: str | None = None) -> str | None:
    """A setting of this route, from wisr.toml."""
    value = host.setting(scalar(name))
    return default if value is None else value


def log(message: object, level: str = "info") -> None:
    """A line in the server's log: ``trace``, ``debug``, ``info``, ``warn`` or ``error``."""
    host.log(_LEVELS[level], scalar(message))
