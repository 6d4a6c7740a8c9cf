"""``fetch``: one HTTP request through wasi:http, waited for to its end."""

from __future__ import annotations

import json as _json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from componentize_py_types import Err, Ok
from wit_world.imports import outgoing_handler, streams, types

from ._text import scalar

_CHUNK = 64 * 1024
# What one blocking-write-and-flush takes at most (wasi:io/streams).
_WRITE = 4096

_METHODS = {
    name: getattr(types, f"Method_{name.capitalize()}")
    for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
}

# In the words of an author; any other code is told by its own name.
_REFUSALS = {
    types.ErrorCode_HttpRequestDenied: "denied: the origin is not in the `outbound` list of the route",
    types.ErrorCode_DestinationIpProhibited: "denied: the address is not public",
    types.ErrorCode_DnsTimeout: "looking up the host took too long",
    types.ErrorCode_DnsError: "the host is unknown",
    types.ErrorCode_DestinationNotFound: "the host is unknown",
    types.ErrorCode_DestinationUnavailable: "the host cannot be reached",
    types.ErrorCode_ConnectionRefused: "connection refused",
    types.ErrorCode_ConnectionTerminated: "the connection was closed before the answer",
    types.ErrorCode_ConnectionTimeout: "connecting took too long",
    types.ErrorCode_ConnectionLimitReached: "too many requests at once",
    types.ErrorCode_HttpResponseTimeout: "the answer took too long",
    types.ErrorCode_HttpRequestBodySize: "the request's body is too large",
    types.ErrorCode_HttpResponseBodySize: "the answer is too large",
    types.ErrorCode_HttpResponseIncomplete: "the answer broke off",
    types.ErrorCode_TlsCertificateError: "the host's certificate is not trusted",
    types.ErrorCode_LoopDetected: "the request leads back to this server",
}


class FetchError(Exception):
    """No answer came, or ``raise_for_status`` did not like it."""


@dataclass(frozen=True)
class Response:
    """The answer to a request, read to its end."""

    url: str
    status: int
    headers: Mapping[str, str]
    """By name in lower case; values of one name are joined with ``, ``."""
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 200 to 299."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as UTF-8; what is none is U+FFFD."""
        return self.body.decode("utf-8-sig", "replace")

    def json(self) -> Any:
        """The body as JSON."""
        try:
            return _json.loads(self.text)
        except ValueError as error:
            raise FetchError(f"{self.url} answered {self.status} with no JSON: {error}") from error

    def raise_for_status(self) -> Response:
        """Itself, unless the status is 400 or more."""
        if self.status >= 400:
            raise FetchError(f"{self.url} answered {self.status}")
        return self


def fetch(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | bytes = b"",
    json: Any = None,
) -> Response:
    """Fetches a URL and returns the answer whatever its status. Redirects are not followed."""
    sent = dict(headers or {})
    if json is not None:
        body = _json.dumps(json)
        sent.setdefault("content-type", "application/json")
    try:
        request = _prepare(url, scalar(method).upper(), sent, _bytes(body))
        return _receive(url, *request)
    except Err as error:
        why = _refusal(error.value)
    except ValueError as error:
        why = str(error)
    raise FetchError(f"fetch {method} {url}: {why}")


def _bytes(body: object) -> bytes:
    if isinstance(body, str):
        return scalar(body).encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise ValueError(f"the body is a string or bytes, not {type(body).__name__}: for JSON, pass it as `json=`")


def _refusal(code: object) -> str:
    if isinstance(code, types.ErrorCode_InternalError) and code.value:
        return code.value
    return _REFUSALS.get(type(code), type(code).__name__.removeprefix("ErrorCode_"))


def _prepare(url: str, method: str, headers: dict[str, str], body: bytes) -> tuple[types.OutgoingRequest, bytes]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise ValueError("not an absolute http or https URL without credentials")
    if not url.isascii() or any(char <= " " for char in url):
        raise ValueError("a URL holds no spaces and only ASCII: percent-encode the rest (urllib.parse.quote)")
    fields = types.Fields()
    if body:
        headers["content-length"] = str(len(body))
    for name, value in headers.items():
        fields.append(scalar(name), scalar(value).encode())
    request = types.OutgoingRequest(fields)
    request.set_method(_METHODS[method]() if method in _METHODS else types.Method_Other(method))
    request.set_scheme(types.Scheme_Https() if parts.scheme == "https" else types.Scheme_Http())
    request.set_authority(parts.netloc)
    query = f"?{parts.query}" if parts.query else ""
    request.set_path_with_query(f"{parts.path or '/'}{query}")
    return request, body


def _receive(url: str, request: types.OutgoingRequest, body: bytes) -> Response:
    outgoing = request.body() if body else None
    answer = outgoing_handler.handle(request, None)
    if outgoing is not None:
        _write(outgoing, body)
    with answer.subscribe() as ready:
        ready.block()
    got = answer.get().value
    if isinstance(got, Err):
        raise got
    with got.value as incoming:
        headers: dict[str, str] = {}
        with incoming.headers() as fields:
            for name, raw in fields.entries():
                value = raw.decode("utf-8", "replace")
                headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        with incoming.consume() as content, content.stream() as stream:
            return Response(url, incoming.status(), headers, b"".join(_chunks(stream)))


def _chunks(stream: streams.InputStream):
    while True:
        try:
            yield stream.blocking_read(_CHUNK)
        except Err as error:
            if isinstance(error.value, streams.StreamError_Closed):
                return
            raise ValueError("the answer broke off") from error


def _write(outgoing: types.OutgoingBody, body: bytes) -> None:
    # A server may answer before it has read everything, and that answer is worth more than the broken pipe.
    try:
        with outgoing.write() as stream:
            for at in range(0, len(body), _WRITE):
                stream.blocking_write_and_flush(body[at : at + _WRITE])
        types.OutgoingBody.finish(outgoing, None)
    except Err:
        pass
