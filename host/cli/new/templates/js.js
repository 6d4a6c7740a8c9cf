// @ROUTE@
import { html } from "wisr";

/** Finds out what the page shows, and says for how many seconds that is fresh. */
export function getStaticProps() {
  return { props: { made: new Date().toISOString() }, revalidate: 10 };
}

export default function Page({ made }, ctx) {
  return html`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<link rel="stylesheet" href="/style.css">
<main>
  <h1>@TITLE@</h1>
  <p>Made at ${made} (${ctx.cause}), and fresh for ten seconds.</p>
  <p>Edit <code>@FILE@</code> and save it.</p>
</main>
`;
}
