"""The document round a page, and the articles of the content API, for pages in Python."""

import re
from pathlib import Path

from wisr import Context, escape, fetch, setting

# Read once, when the page is built.
TEMPLATE = (Path(__file__).parent / "frame.html").read_text()


def posts() -> list[dict]:
    """The articles with their text, newest first; one that has moved is listed at its new place only."""
    content = setting("content")
    listed = fetch(f"{content}/posts").raise_for_status().json()
    kept = [post for post in listed if not post.get("moved")]
    return [fetch(f"{content}/posts/{post['id']}").raise_for_status().json() for post in kept]


def frame(ctx: Context, title: str, description: str, kind: str, content: str) -> str:
    """The finished document. The kind becomes the class of ``main``, which the stylesheet lays out by."""
    address = f"{setting('site', '')}{ctx.path}"
    values = {"title": title, "description": description, "address": address, "kind": kind}

    def value(found: re.Match[str]) -> str:
        return content if found[1] == "content" else escape(values[found[1]])

    return re.sub(r"\{\{(\w+)\}\}", value, TEMPLATE)
