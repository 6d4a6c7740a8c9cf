// @ROUTE@
import { type GetStaticPaths, type GetStaticProps, type Page, html } from "wisr";

type Params = @PARAMS@;

interface Props {
  name: string;
}

/** The pages to make ahead of time. Any other is made when somebody asks for it first. */
export const getStaticPaths: GetStaticPaths = () => ({
  paths: @PATHS@,
  fallback: "blocking",
});

/** Finds out what the page shows, and says for how many seconds that is fresh. */
export const getStaticProps: GetStaticProps<Props, Params> = ({ params }) => {
  const name = @VALUE@;
  if (name === "missing") return { notFound: true };
  return { props: { name }, revalidate: 60 };
};

const page: Page<Props> = ({ name }) => html`<!doctype html>
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

export default page;
