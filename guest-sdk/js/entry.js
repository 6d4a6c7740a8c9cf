// A page's module in the shape of the contract, guest-sdk/wit/page.wit.

import "./globals.js";
import * as source from "wisr:source";
import { retrace } from "./trace.js";
import { scalar, scalars } from "./text.js";
import { settled } from "./timers.js";
import { described, fail, htmlOf, jsonOf, wordOf } from "./values.js";
import { tag } from "./wisr.js";

const FALLBACKS = new Map([[false, "not-found"], ["blocking", "blocking"], [true, "shell"]]);

const REDIRECTS = [301, 302, 303, 307, 308];

const HTML = "text/html; charset=utf-8";

// It reloads by itself: the host starts making the page together with the shell, and a page without scripts
// has no other way to find out that it is done.
const LOADING = `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><meta name="color-scheme" content="light dark"><meta http-equiv="refresh" content="1"><title>Loading…</title></head><body><main><p role="status">This page is being made. It shows by itself in a moment.</p><p><a href="">Show it now</a></p></main></body></html>`;

const words = (error) => {
  if (!(error instanceof Error)) return `thrown: ${typeof error === "string" ? error : described(error)}`;
  const stack = retrace(error.stack ?? "", globalThis.__wisrMap, (file) => file.startsWith("wisr/")).trimEnd();
  const cause = error.cause === undefined ? "" : `\ncaused by ${words(error.cause)}`;
  return `${error.name}: ${error.message}${stack && "\n"}${stack}${cause}`;
};

/**
 * Runs one of the page's functions to its end; what it throws becomes the error of the contract, a string. All
 * text that leaves the page leaves it here.
 */
const guarded = (call) => (...values) => {
  try {
    return scalars(call(...values));
  } catch (error) {
    throw scalar(words(error));
  }
};

const called = (name, ...values) => {
  const made = source[name];
  const what = name === "default" ? "the default export" : `the export ${name}`;
  if (typeof made === "function") return settled(made(...values));
  if (made !== undefined) return fail(`${what} is ${described(made)}, where a function is needed`);
  return fail("there is no default export: `export default function (props) { … }` renders the page");
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
  // The contract has a place for the tags of props alone.
  if (result?.notFound || result?.redirect) tagged(result.tags ?? []).forEach(tag);
  if (result?.notFound) return { tag: "not-found", val: lifetime };
  if (result?.redirect) {
    const { destination, permanent = false, statusCode: status = permanent ? 308 : 307 } = result.redirect;
    if (typeof destination !== "string") fail(`\`redirect.destination\` is ${described(destination)}, where a string is needed`);
    if (!REDIRECTS.includes(status)) fail(`\`statusCode\` is one of ${REDIRECTS.join(", ")}, not ${described(status)}`);
    return { tag: "redirect", val: { location: destination, status, freshness: lifetime } };
  }
  const data = jsonOf(result?.props, "props");
  if (data === undefined) {
    fail(`getStaticProps returns \`props\`, \`notFound: true\` or \`redirect\`, not ${described(result)}`);
  }
  return { tag: "props", val: { data, freshness: lifetime, tags: tagged(result.tags ?? []) } };
};

const tagged = (tags) => {
  if (!Array.isArray(tags)) fail(`\`tags\` is an array of names, not ${described(tags)}`);
  return tags.map((name, at) => wordOf(name, `\`tags[${at}]\``));
};

const document = (rendered, name) => {
  if (rendered instanceof Response) {
    const { content, status, headers } = rendered;
    const form = typeof content === "string" ? "text" : "bytes";
    return { status, headers: [...headers], body: { tag: form, val: content } };
  }
  return { status: 200, headers: [["content-type", HTML]], body: { tag: "text", val: htmlOf(rendered, name) } };
};

export const page = {
  staticProps: guarded((ctx) => {
    if (source.getStaticProps === undefined) return outcome({ props: {} });
    return outcome(called("getStaticProps", context(ctx)));
  }),
  render: guarded((ctx, data) => document(called("default", JSON.parse(data), context(ctx)), "the default export")),
};

// Without its value, an optional catch-all is its folder's own path.
const isGiven = ([, value]) => value !== undefined && value !== null && value !== false;

const listed = (path) => {
  if (typeof path?.params !== "object" || path.params === null) {
    fail(`getStaticPaths lists paths as { params: { … } }, not ${typeof path === "object" ? JSON.stringify(path) : described(path)}`);
  }
  const given = Object.entries(path.params).filter(isGiven);
  return given.map(([name, value]) => ({
    name,
    values: (Array.isArray(value) ? value : [value]).map((part) => wordOf(part, `\`${name}\` of a path of getStaticPaths`)),
  }));
};

export const paths = {
  staticPaths: guarded(() => {
    if (source.getStaticPaths === undefined) return { paths: [], fallback: "blocking" };
    const list = called("getStaticPaths");
    if (!Array.isArray(list?.paths)) fail(`getStaticPaths returns { paths: […], fallback: … }, not ${described(list)}`);
    if (!FALLBACKS.has(list.fallback)) {
      fail(`getStaticPaths returns \`fallback\`: true, false or "blocking", not ${described(list.fallback)}`);
    }
    return { paths: list.paths.map(listed), fallback: FALLBACKS.get(list.fallback) };
  }),
  shell: guarded((ctx) => document(source.Shell === undefined ? LOADING : called("Shell", context(ctx)), "the export Shell")),
};
