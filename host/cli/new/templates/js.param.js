// @ROUTE@
import { html } from "wisr";

/** The pages to make ahead of time. Any other is made when somebody asks for it first. */
export function getStaticPaths() {
  return { paths: @PATHS@, fallback: "blocking" };
}

/** Finds out what the page shows, and says for how many seconds that is fresh. */
export function getStaticProps({ params }) {
  const name = @VALUE@;
  if (name === "missing") return { notFound: true };
  return { props: { name }, revalidate: 60 };
}

export default function Page({ name }) {
  return html`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${name}</title>
<link rel="stylesheet" href="/style.css">
<main>
  <h1>${name}</h1>
  <p>One of the pages of <code>@ROUTE@</code>. Edit <code>@FILE@</code> and save it.</p>
</main>
`;
}
