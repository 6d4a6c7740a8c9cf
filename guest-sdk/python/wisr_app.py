"""The author's page in the shape of the contract, guest-sdk/wit/page.wit."""

from __future__ import annotations

import dataclasses
import importlib
import json
import linecache
import random
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import get_args

import page as source
import wisr_place
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import paths as wit_paths
from wit_world.imports import page_types as wit

import wisr

# It reloads by itself: the host starts making the page together with the shell, and a page without scripts
# has no other way to find out that it is done.
LOADING = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><meta name="color-scheme" content="light dark"><meta http-equiv="refresh" content="1"><title>Loading…</title></head><body><main><p role="status">This page is being made. It shows by itself in a moment.</p><p><a href="">Show it now</a></p></main></body></html>"""

HTML = "text/html; charset=utf-8"

FALLBACKS = get_args(wisr.Fallback)


# What the standard library imports only when it is needed, which is too late once the page runs.
for late in ("_strptime", "bisect", "calendar", "copy", "decimal", "encodings.idna", "encodings.latin_1", "heapq",
             "locale", "numbers", "unicodedata", "warnings"):
    importlib.import_module(late)


def keep_sources() -> None:
    """There are no files once the page runs: the lines that a traceback shows are read now."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(".py") and not file.startswith("/python"):
            lines = linecache.getlines(file)
            linecache.cache[file] = (0, None, lines, file)


keep_sources()


def guarded(call: Callable):
    """Runs one of the page's functions; what it raises becomes the error of the contract, a string."""

    def run(*values):
        # Its state is that of the build, the same in every sandbox.
        random.seed()
        try:
            return call(*values)
        except Exception as error:
            raise Err(words(error)) from None

    return run


def words(error: BaseException) -> str:
    """The last line of a traceback first, since that is what a person looks for; then the traceback."""
    shown = traceback.TracebackException.from_exception(error)
    link = shown
    while link is not None:
        link.stack = traceback.StackSummary.from_list(
            traceback.FrameSummary(named(frame.filename), frame.lineno, frame.name, line=frame.line)
            for frame in link.stack
            if not ours(frame.filename)
        )
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    last = "".join(shown.format_exception_only()).strip()
    if isinstance(error, ModuleNotFoundError) and error.name:
        last += f" (modules are loaded when the page is built: `import {error.name}` at the top of page.py)"
    return f"{last}\n{''.join(shown.format())}".rstrip()


def ours(file: str) -> bool:
    return file == __file__ or file.startswith(wisr.__path__[0])


def named(file: str) -> str:
    """A file as its author knows it: the builder shows the page's folder as /0, the source tree as /1."""
    return file.replace("/0/", f"{wisr_place.PLACE}/", 1) if file.startswith("/0/") else file.removeprefix("/1/")


def context(ctx: wit.Context) -> wisr.Context:
    def value(param: wit.Param):
        return param.values if f"[...{param.name}]" in ctx.route else param.values[0]

    return wisr.Context(
        route=ctx.route,
        path=ctx.path,
        params={param.name: value(param) for param in ctx.params},
        # The first of a name wins.
        query=dict(reversed(ctx.query)),
        cause=ctx.cause.name.lower().replace("_", "-"),
    )


def freshness(revalidate: wisr.Revalidate) -> wit.Freshness:
    if revalidate is None:
        return wit.Freshness_Inherit()
    if revalidate is False:
        return wit.Freshness_Never()
    if isinstance(revalidate, int) and revalidate is not True and 0 <= revalidate < 2**32:
        return wit.Freshness_Seconds(revalidate)
    raise TypeError(f"`revalidate` is a whole number of seconds, False for never, or None, not {revalidate!r}")


def plain(value):
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"the props hold a {type(value).__name__}, which has no JSON form")


def outcome(result) -> wit.Outcome:
    match result:
        case wisr.Props():
            data = json.dumps(result.value, default=plain, ensure_ascii=False)
            return wit.Outcome_Props(wit.Props(data, freshness(result.revalidate), [str(tag) for tag in result.tags]))
        case wisr.NotFound():
            return wit.Outcome_NotFound(freshness(result.revalidate))
        case wisr.Redirect():
            status = 308 if result.permanent else 307
            return wit.Outcome_Redirect(wit.Redirect(result.location, status, freshness(result.revalidate)))
    raise TypeError(f"static_props returns Props, NotFound or Redirect, not {type(result).__name__}")


def document(rendered, name: str) -> wit.Document:
    if isinstance(rendered, str):
        rendered = wisr.Document(rendered)
    elif isinstance(rendered, bytes):
        rendered = wisr.Document(rendered, "application/octet-stream")
    if not isinstance(rendered, wisr.Document):
        raise TypeError(f"{name} returns a string, bytes or a Document, not {type(rendered).__name__}")
    body = rendered.body
    headers = [("content-type", rendered.content_type), *rendered.headers.items()]
    return wit.Document(rendered.status, headers, wit.Body_Text(body) if isinstance(body, str) else wit.Body_Bytes(body))


class Page(exports.Page):
    @guarded
    def static_props(self, ctx: wit.Context) -> wit.Outcome:
        made = getattr(source, "static_props", None)
        return outcome(made(context(ctx)) if made else wisr.Props())

    @guarded
    def render(self, ctx: wit.Context, data: str) -> wit.Document:
        if not hasattr(source, "render"):
            raise TypeError("page.py has no function `render(props, ctx)`")
        return document(source.render(json.loads(data), context(ctx)), "render")


class Paths(exports.Paths):
    @guarded
    def static_paths(self) -> wit_paths.PathList:
        listed = source.static_paths() if hasattr(source, "static_paths") else wisr.Paths()

        if not isinstance(listed, wisr.Paths):
            raise TypeError(f"static_paths returns Paths, not {type(listed).__name__}")
        if listed.fallback not in FALLBACKS:
            raise TypeError(f"`fallback` is one of {', '.join(FALLBACKS)}, not {listed.fallback!r}")

        def params(path):
            if not isinstance(path, Mapping):
                raise TypeError(f'static_paths lists each path by its parameters, as {{"id": "1"}}, not {path!r}')
            return [
                wit.Param(name, [str(value)] if isinstance(value, (str, int)) else [str(part) for part in value])
                for name, value in path.items()
            ]

        fallback = wit_paths.Fallback[listed.fallback.upper().replace("-", "_")]
        return wit_paths.PathList([params(path) for path in listed.paths], fallback)

    @guarded
    def shell(self, ctx: wit.Context) -> wit.Document:
        return document(source.shell(context(ctx)) if hasattr(source, "shell") else LOADING, "shell")
