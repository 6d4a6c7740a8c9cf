"""``/numbers``: the publication counted. A page in Python, which has the standard library at hand."""

import re
from collections import Counter
from dataclasses import dataclass
from statistics import mean, median
from urllib.parse import quote

from _layout.frame import frame, posts
from wisr import Context, Props, escape

WORDS_A_MINUTE = 220

COMMON = set(
    "a about all an and are as at be been but by can do for from had has have he her him his how i if in into is it its "
    "just like me more my no not of on one or our out over she so some than that the their them then there they this to "
    "two up was we were what when which who will with would you your".split()
)


@dataclass
class Counted:
    id: str
    title: str
    words: int
    sentences: int


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", re.sub(r"[`*_#>\[\]()]", " ", text))


def static_props(ctx: Context) -> Props:
    articles, used = [], Counter()
    for post in posts():
        words = words_of(post["body"])
        used.update(word.lower() for word in words if word.lower() not in COMMON)
        sentences = len(re.findall(r"[.!?](?:\s|$)", post["body"])) or 1
        articles.append(Counted(post["id"], post["title"], len(words), sentences))
    articles.sort(key=lambda article: -article.words)
    return Props({"articles": articles, "used": used.most_common(12)}, revalidate=3600, tags=["posts"])


def row(article: dict, longest: int) -> str:
    share = 100 * article["words"] / max(longest, 1)
    return (
        f'<tr><td><a href="/posts/{quote(article["id"])}">{escape(article["title"])}</a></td>'
        f'<td>{article["words"]}</td><td>{article["words"] / article["sentences"]:.1f}</td>'
        f'<td>{max(1, round(article["words"] / WORDS_A_MINUTE))} min</td>'
        f'<td class="bar"><span style="width:{share:.0f}%"></span></td></tr>'
    )


def render(props: dict, ctx: Context) -> str:
    articles = props["articles"]
    counts = [article["words"] for article in articles] or [0]
    rows = "".join(row(article, max(counts)) for article in articles)
    used = ", ".join(f"{escape(word)} <small>{count}</small>" for word, count in props["used"])
    return frame(ctx, "In numbers", "Slack Water, counted: articles, words, minutes.", "listing", f"""
        <header><h1>In numbers</h1>
        <p class="lead">{len(articles)} articles, {sum(counts)} words: {mean(counts):.0f} each on average, half of them
        below {median(counts):.0f}.</p></header>
        <div class="prose wide"><div class="scroll"><table class="figures">
        <tr><th>Article</th><th>Words</th><th>Sentence</th><th>To read</th><th class="bar"></th></tr>{rows}</table></div>
        <h2>Words that come up</h2><p>{used}</p></div>
        <p class="more"><a href="/authors">The people behind them</a></p>""")
