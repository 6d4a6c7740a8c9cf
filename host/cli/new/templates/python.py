"""@ROUTE@"""

from datetime import datetime, timezone

from wisr import Context, Props


def static_props(ctx: Context) -> Props:
    """Finds out what the page shows, and says for how many seconds that is fresh."""
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Props({"made": made}, revalidate=10)


def render(props, ctx: Context) -> str:
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<link rel="stylesheet" href="/style.css">
<main>
  <h1>@TITLE@</h1>
  <p>Made at {props["made"]} ({ctx.cause}), and fresh for ten seconds.</p>
  <p>Edit <code>@FILE@</code> and save it.</p>
</main>
"""
