// `/authors`: who writes here, and what. A page in JavaScript.

import { html } from "wisr";
import { day, frame, posts } from "../_layout/frame.ts";

export async function getStaticProps() {
  const signed = (await posts()).filter((post) => post.author);
  const authors = Object.entries(Object.groupBy(signed, (post) => post.author))
    .map(([name, articles]) => ({ name, articles: articles.map(({ id, title, date }) => ({ id, title, date })) }))
    .sort((one, other) => one.name.localeCompare(other.name));
  return { props: { authors }, revalidate: 60, tags: ["posts"] };
}

export default function Authors({ authors }, ctx) {
  return frame(ctx, "Authors", "Who writes in Slack Water, and what.", "listing", html`
    <header><h1>Authors</h1><p class="lead">Few people, each with a boat or a kettle.</p></header>
    ${authors.map(({ name, articles }) => html`
      <section class="byline">
        <h2>${name}</h2>
        <ul>${articles.map(({ id, title, date }) => html`
          <li><a href="/posts/${encodeURIComponent(id)}">${title}</a> <span class="when">${day(date)}</span></li>`)}
        </ul>
      </section>`)}
    ${authors.length > 0 && html`<p class="more"><a href="/archive/${authors[0].articles[0].date.slice(0, 4)}">The archive by year</a></p>`}`);
}
