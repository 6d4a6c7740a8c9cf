// `/archive/2026`: a year of articles by month, one page for each year that has any. A page in TypeScript.

import { html, type GetStaticPaths, type GetStaticProps, type Page } from "wisr";
import { day, frame, MONTHS, posts, type Post } from "../../_layout/frame.ts";

type Params = { year: string };
type Props = { months: { name: string; posts: Post[] }[]; years: string[] };

const yearOf = (post: Post) => post.date.slice(0, 4);

export const getStaticPaths: GetStaticPaths<Params> = async () => {
  const years = new Set((await posts()).map(yearOf));
  return { paths: [...years].map((year) => ({ params: { year } })), fallback: "blocking" };
};

export const getStaticProps: GetStaticProps<Props, Params> = async ({ params }) => {
  const all = await posts();
  const ofYear = all.filter((post) => yearOf(post) === params.year);
  if (!ofYear.length) return { notFound: true };
  const months = MONTHS.map((name, at) => ({ name, posts: ofYear.filter((post) => Number(post.date.slice(5, 7)) === at + 1) }));
  return {
    props: { months: months.filter(({ posts }) => posts.length).reverse(), years: [...new Set(all.map(yearOf))] },
    revalidate: 3600,
    tags: ["posts"],
  };
};

const Archive: Page<Props, Params> = ({ months, years }, ctx) => {
  const { year } = ctx.params;
  const others = years.filter((other) => other !== year);
  return frame(ctx, `The year ${year}`, `What Slack Water printed in ${year}.`, "listing", html`
    <header>
      <h1>The year <em>${year}</em></h1>
      <p class="more">${others.map((other) => html`<a href="/archive/${other}">${other}</a> `)}<a href="/authors">By author</a></p>
    </header>
    ${months.map(({ name, posts }) => html`
      <section class="byline">
        <h2>${name}</h2>
        <ul>${posts.map(({ id, title, date, author }) => html`
          <li><a href="/posts/${encodeURIComponent(id)}">${title}</a> <span class="when">${day(date)}, ${author}</span></li>`)}
        </ul>
      </section>`)}`);
};

export default Archive;
