"""The author's page in the shape of the contract, guest-sdk/wit/page.wit."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import linecache
import math
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import get_args

import page as source
import wisr_place
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import paths as wit_paths
from wit_world.imports import page_types as wit

import wisr
from wisr._text import free_streams, scalar, scalars

# It reloads by itself: the host starts making the page together with the shell, and a page without scripts
# has no other way to find out that it is done.
LOADING = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><meta name="color-scheme" content="light dark"><meta http-equiv="refresh" content="1"><title>Loading…</title></head><body><main><p role="status">This page is being made. It shows by itself in a moment.</p><p><a href="">Show it now</a></p></main></body></html>"""

HTML = "text/html; charset=utf-8"

FALLBACKS = get_args(wisr.Fallback)


# What the standard library imports only when it is needed, which is too late once the page runs.
for late in ("_strptime", "bisect", "calendar", "copy", "decimal", "encodings.idna", "encodings.latin_1",
             "encodings.utf_16_le", "encodings.utf_8_sig", "heapq", "locale", "numbers", "unicodedata", "warnings"):
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
    """Runs one of the page's functions; what it raises becomes the error of the contract, a string. All text that
    leaves the page leaves it here."""

    def run(*values):
        # Its state is that of the build, the same in every sandbox.
        random.seed()
        free_streams()
        try:
            return scalars(call(*values))
        except Exception as error:
            raise Err(scalar(words(error))) from None

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
    """A file as its author knows it: the builder shows the page's folder as /0, the source tree as /1, packages
    as /3."""
    place = f"{wisr_place.PLACE}/"
    return file.replace("/0/", place, 1) if file.startswith("/0/") else file.removeprefix("/1/").removeprefix("/3/")


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


def told(words: str) -> TypeError:
    """A mistake in what the page returned, with the author's file."""
    return TypeError(f"{wisr_place.PLACE}/page.py: {words}")


def described(value: object) -> str:
    """A value in an author's words."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if inspect.isawaitable(value):
        return "a coroutine, and functions of pages are not `async`"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def plain(value):
    """A value of which every part has a JSON form: the first that has none is told by its place."""

    def walk(value, place: str, above: tuple):
        if value is None or isinstance(value, (str, bool, int)):
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise told(f"`{place}` is {value}, which has no JSON form")
            return value
        if id(value) in above:
            raise told(f"`{place}` holds itself, which has no JSON form")
        above = (*above, id(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, (str, int, float)) and key is not None:
                    raise told(f"`{place}` has a key that is {described(key)}, where a string is needed")
            return {key: walk(part, f"{place}[{key!r}]", above) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(part, f"{place}[{at}]", above) for at, part in enumerate(value)]
        raise told(f"`{place}` is {described(value)}, which has no JSON form")

    return walk(value, "props", ())


def word(value, name: str) -> str:
    """A part of a path, a tag, a header: a string, or a number as one."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise told(f"{name} is {described(value)}, where a string is needed")


def words_of(values, name: str) -> list[str]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise told(f"{name} is {described(values)}, where a list of strings is needed")
    return [word(value, f"{name}[{at}]") for at, value in enumerate(values)]


def outcome(result) -> wit.Outcome:
    if isinstance(result, (wisr.NotFound, wisr.Redirect)):
        # The contract has a place for the tags of props alone.
        for name in words_of(result.tags, "tags"):
            wisr.tag(name)
    match result:
        case wisr.Props():
            data = json.dumps(plain(result.value), ensure_ascii=False)
            return wit.Outcome_Props(wit.Props(data, freshness(result.revalidate), words_of(result.tags, "tags")))
        case wisr.NotFound():
            return wit.Outcome_NotFound(freshness(result.revalidate))
        case wisr.Redirect():
            status = 308 if result.permanent else 307
            location = word(result.location, "the location of a Redirect")
            return wit.Outcome_Redirect(wit.Redirect(location, status, freshness(result.revalidate)))
    raise told(f"static_props returned {described(result)}: return Props(…), NotFound() or Redirect(…)")


# What `str` makes of an object that has no text.
NO_TEXT = re.compile(r"\s*<[\w.<> ]+ at 0x[0-9a-f]+>\s*")


def document(rendered, name: str) -> wit.Document:
    if isinstance(rendered, str):
        rendered = wisr.Document(rendered)
    elif isinstance(rendered, (bytes, bytearray, memoryview)):
        rendered = wisr.Document(bytes(rendered), "application/octet-stream")
    if not isinstance(rendered, wisr.Document):
        raise told(f"{name} returned {described(rendered)}: return a string of HTML, bytes or a Document")
    body = rendered.body
    if isinstance(body, str):
        if NO_TEXT.fullmatch(body):
            raise told(f"{name} returned the text {body.strip()}, which is no page but an object without text")
        body = wit.Body_Text(body)
    elif isinstance(body, (bytes, bytearray, memoryview)):
        body = wit.Body_Bytes(bytes(body))
    else:
        raise told(f"{name} returned a Document whose body is {described(body)}: it is a string or bytes")
    status = rendered.status
    if not isinstance(status, int) or not 0 <= status < 2**16:
        raise told(f"{name} returned a Document whose status is {status!r}, where a number such as 200 is needed")
    headers = [("content-type", rendered.content_type), *dict(rendered.headers).items()]
    told_headers = [(word(key, "the name of a header"), word(value, f"the header {key!r}")) for key, value in headers]
    return wit.Document(int(status), told_headers, body)


def called(function: str, *values):
    made = getattr(source, function)
    if not callable(made):
        raise told(f"`{function}` is {described(made)}, where a function is needed")
    return made(*values)


class Page(exports.Page):
    @guarded
    def static_props(self, ctx: wit.Context) -> wit.Outcome:
        return outcome(called("static_props", context(ctx)) if hasattr(source, "static_props") else wisr.Props())

    @guarded
    def render(self, ctx: wit.Context, data: str) -> wit.Document:
        if not hasattr(source, "render"):
            raise told("there is no function `render(props, ctx)`")
        return document(called("render", json.loads(data), context(ctx)), "render")


class Paths(exports.Paths):
    @guarded
    def static_paths(self) -> wit_paths.PathList:
        listed = called("static_paths") if hasattr(source, "static_paths") else wisr.Paths()
        if not isinstance(listed, wisr.Paths):
            raise told(f"static_paths returned {described(listed)}: return Paths(…)")
        if listed.fallback not in FALLBACKS:
            raise told(f"`fallback` is one of {', '.join(FALLBACKS)}, not {listed.fallback!r}")

        def values(name, value) -> list[str]:
            of = f"{name!r} of a path of static_paths"
            return [word(value, of)] if isinstance(value, (str, int)) else words_of(value, of)

        def params(path):
            if not isinstance(path, Mapping):
                raise told(f'static_paths lists each path by its parameters, as {{"id": "1"}}, not {path!r}')
            return [wit.Param(word(name, "a parameter"), values(name, value)) for name, value in path.items()]

        fallback = wit_paths.Fallback[listed.fallback.upper().replace("-", "_")]
        return wit_paths.PathList([params(path) for path in listed.paths], fallback)

    @guarded
    def shell(self, ctx: wit.Context) -> wit.Document:
        return document(called("shell", context(ctx)) if hasattr(source, "shell") else LOADING, "shell")
