"""Write pages for wisr in Python.

A page is a module ``page.py`` with these functions, of which only ``render`` must be there::

    def static_props(ctx: Context) -> Props | NotFound | Redirect: ...
    def render(props, ctx: Context) -> str | bytes | Document: ...
    def static_paths() -> Paths: ...      # for a dynamic route
    def shell(ctx: Context) -> str: ...   # shown while a page is being made

A string is an HTML document. Each call runs in a fresh sandbox: what one leaves in a variable, the next does
not see. Modules are loaded when the page is built, so what stands at their top level, such as a file that is
read there, is done once and kept.

For code shared by several pages, import it by its place in the source tree: ``from _layout.frame import frame``.
"""

from __future__ import annotations

import html as _html
import re as _re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ._fetch import FetchError, Response, fetch
from ._host import log, setting, tag

__all__ = [
    "Cause",
    "Context",
    "Document",
    "Fallback",
    "FetchError",
    "NotFound",
    "Paths",
    "Props",
    "Redirect",
    "Response",
    "escape",
    "fetch",
    "log",
    "setting",
    "tag",
]

Cause = Literal["build", "first-request", "stale", "on-demand", "draft"]

Fallback = Literal["not-found", "blocking", "shell"]

Revalidate = int | Literal[False] | None
"""How long a result stays fresh, in seconds; ``False``: until it is revalidated on demand; ``None``: as
wisr.toml says."""


@dataclass(frozen=True)
class Context:
    """Which page is being made. It holds nothing of a reader: what a page cannot see, it cannot leak."""

    route: str
    """The route that the module serves, such as ``/posts/[id]``."""
    path: str
    """The path that is being made, such as ``/posts/1``."""
    params: Mapping[str, Any]
    """Route parameters by name: a string for ``[id]``, a list of strings for ``[...slug]``."""
    query: Mapping[str, str]
    """The query parameters that the route's configuration allows; each the first of its name."""
    cause: Cause
    """Why the page is being made now."""


@dataclass
class Props:
    """The page exists and is rendered with ``value``: anything that is JSON, or a dataclass. Readers can see it,
    at ``/_wisr/data/<path>.json``; ``render`` gets it as plain dicts and lists."""

    value: Any = field(default_factory=dict)
    revalidate: Revalidate = None
    tags: Iterable[str] = ()
    """Names under which the page can be revalidated together with others."""


@dataclass
class NotFound:
    """There is no such page: 404. Without ``revalidate`` it is looked for again after 60 s, or when a tag is
    called."""

    revalidate: Revalidate = None
    tags: Iterable[str] = ()


@dataclass
class Redirect:
    """The page is elsewhere: 307, or 308 where it is permanent."""

    location: str
    permanent: bool = False
    revalidate: Revalidate = None
    tags: Iterable[str] = ()


@dataclass
class Paths:
    """The pages of a dynamic route, each by its parameters: ``Paths([{"id": "1"}])``."""

    paths: Iterable[Mapping[str, str | int | Iterable[str | int]]] = ()
    fallback: Fallback = "blocking"
    """What any other path gets: a 404, the page once it is made, or the shell at once."""


@dataclass
class Document:
    """A rendered page that is not plain HTML, or has a status or headers of its own."""

    body: str | bytes
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def escape(text: object) -> str:
    """Text with ``& < > " '`` escaped: what comes from elsewhere into HTML. What has no text of its own is a
    ``TypeError``."""
    shown = str(text)
    if not isinstance(text, str) and _re.fullmatch(r"<.* at 0x[0-9a-f]+>", shown, _re.DOTALL):
        raise TypeError(f"a {type(text).__name__} is shown in the page, and has no text")
    return _html.escape(shown)
