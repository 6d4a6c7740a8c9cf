"""@ROUTE@"""

from wisr import Context, NotFound, Paths, Props, escape


def static_paths() -> Paths:
    """The pages to make ahead of time. Any other is made when somebody asks for it first."""
    return Paths(@PATHS@)


def static_props(ctx: Context) -> Props | NotFound:
    """Finds out what the page shows, and says for how many seconds that is fresh."""
    name = @VALUE@
    if name == "missing":
        return NotFound()
    return Props({"name": name}, revalidate=60)


def render(props, ctx: Context) -> str:
    name = escape(props["name"])
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<link rel="stylesheet" href="/style.css">
<main>
  <h1>{name}</h1>
  <p>One of the pages of <code>@ROUTE@</code>. Edit <code>@FILE@</code> and save it.</p>
</main>
"""
