// A page's module in the shape of the contract, guest-sdk/wit/page.wit.

import "./globals.js";
import * as source from "wisr:source";
import { retrace } from "./trace.js";
import { settled } from "./timers.js";

const FALLBACKS = new Map([[false, "not-found"], ["blocking", "blocking"], [true, "shell"]]);

const REDIRECTS = [301, 302, 303, 307, 308];

const HTML = "text/html; charset=utf-8";

// It reloads by itself: the host starts making the page together with the shell, and a page without scripts
// has no other way to find out that it is done.
const LOADING = `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><meta name="color-scheme" content="light dark"><meta http-equiv="refresh" content="1"><title>Loading…</title></head><body><main><p role="status">This page is being made. It shows by itself in a moment.</p><p><a href="">Show it now</a></p></main></body></html>`;

const words = (error) => {
  if (!(error instanceof Error)) return `thrown: ${typeof error === "string" ? error : JSON.stringify(error)}`;
  const stack = retrace(error.stack ?? "", globalThis.__wisrMap, (file) => file.startsWith("wisr/")).trimEnd();
  const cause = error.cause === undefined ? "" : `\ncaused by ${words(error.cause)}`;
  return `${error.name}: ${error.message}${stack && "\n"}${stack}${cause}`;
};

/** Runs one of the page's functions to its end; what it throws becomes the error of the contract, a string. */
const guarded = (call) => (...values) => {
  try {
    return call(...values);
  } catch (error) {
    throw words(error);
  }
};

const context = ({ params, query, ...rest }) => ({
  ...rest,
  params: Object.fromEntries(
    params.map(({ name, values }) => [name, rest.route.includes(`[...${name}]`) ? values : values[0]]),
  ),
  // The first of a name wins.
  query: Object.fromEntries(query.toReversed()),
});

const freshness = (revalidate) => {
  if (revalidate === undefined) return { tag: "inherit" };
  if (revalidate === false) return { tag: "never" };
  if (Number.isInteger(revalidate) && revalidate >= 0 && revalidate < 2 ** 32) return { tag: "seconds", val: revalidate };
  throw new TypeError(`\`revalidate\` is a whole number of seconds, or false for never, not ${JSON.stringify(revalidate)}`);
};

const outcome = (result) => {
  const lifetime = freshness(result?.revalidate);
  if (result?.notFound) return { tag: "not-found", val: lifetime };
  if (result?.redirect) {
    const { destination, permanent = false, statusCode: status = permanent ? 308 : 307 } = result.redirect;
    if (typeof destination !== "string") throw new TypeError("`redirect` needs a `destination`");
    if (!REDIRECTS.includes(status)) throw new TypeError(`\`statusCode\` is one of ${REDIRECTS.join(", ")}, not ${status}`);
    return { tag: "redirect", val: { location: destination, status, freshness: lifetime } };
  }
  const data = JSON.stringify(result?.props);
  if (data === undefined) throw new TypeError("getStaticProps returns `props`, `notFound: true` or `redirect`");
  const tags = result.tags ?? [];
  if (!Array.isArray(tags)) throw new TypeError("`tags` is an array of names");
  return { tag: "props", val: { data, freshness: lifetime, tags: tags.map(String) } };
};

const document = (rendered, name) => {
  if (rendered instanceof Response) {
    const { content, status, headers } = rendered;
    const tag = typeof content === "string" ? "text" : "bytes";
    return { status, headers: [...headers], body: { tag, val: content } };
  }
  const isHtml = typeof rendered === "string" || (rendered && Object.hasOwn(Object.getPrototypeOf(rendered), "toString"));
  if (!isHtml) throw new TypeError(`${name} returns a string, html\`…\` or a Response, not ${JSON.stringify(rendered)}`);
  return { status: 200, headers: [["content-type", HTML]], body: { tag: "text", val: String(rendered) } };
};

export const page = {
  staticProps: guarded((ctx) => {
    if (!source.getStaticProps) return outcome({ props: {} });
    return outcome(settled(source.getStaticProps(context(ctx))));
  }),
  render: guarded((ctx, data) => {
    if (typeof source.default !== "function") {
      throw new TypeError("the page has no default export: `export default function (props) { … }` renders it");
    }
    return document(settled(source.default(JSON.parse(data), context(ctx))), "the page");
  }),
};

// Without its value, an optional catch-all is its folder's own path.
const isGiven = ([, value]) => value !== undefined && value !== null && value !== false;

const listed = (path) => {
  if (!path?.params) throw new TypeError(`getStaticPaths lists paths as { params: { … } }, not ${JSON.stringify(path)}`);
  const given = Object.entries(path.params).filter(isGiven);
  return given.map(([name, value]) => ({ name, values: (Array.isArray(value) ? value : [value]).map(String) }));
};

export const paths = {
  staticPaths: guarded(() => {
    if (!source.getStaticPaths) return { paths: [], fallback: "blocking" };
    const { paths, fallback } = settled(source.getStaticPaths());
    if (!FALLBACKS.has(fallback)) throw new TypeError('getStaticPaths returns `fallback`: true, false or "blocking"');
    return { paths: paths.map(listed), fallback: FALLBACKS.get(fallback) };
  }),
  shell: guarded((ctx) => document(source.Shell ? settled(source.Shell(context(ctx))) : LOADING, "Shell")),
};
