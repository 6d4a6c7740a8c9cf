// What a page returned, looked at before it is published: what has no text and no JSON form is an error that
// names the author's file, the place and what to return instead.

import { Headers, Response } from "./fetch.js";
import { Html, hasText } from "./text.js";

const REMEDY = "return a string of HTML, html`…` or a Response";

// A page that reads so has been made of an object without text, wherever that happened.
const NO_TEXT = /^\s*\[object [\w$ ]+\]\s*$/;

/** The file of the page, as its author knows it: the builder writes it in. */
export const fail = (words) => {
  throw new TypeError(`${__WISR_PAGE__}: ${words}`);
};

const isElement = (value) => "$$typeof" in value || ("type" in value && "props" in value);

/** A value in an author's words. */
export const described = (value) => {
  if (value === null || value === undefined || typeof value === "boolean") return String(value);
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === "function") return `a function${value.name && ` (${value.name})`}`;
  if (typeof value !== "object") return `a ${typeof value} (${String(value)})`;
  if (Array.isArray(value)) return "an array";
  if (typeof value.then === "function") return "a promise (is an `await` missing?)";
  if (isElement(value)) return "a JSX element";
  const kind = Object.getPrototypeOf(value)?.constructor?.name ?? "Object";
  if (kind !== "Object") return `an object of the kind ${kind}`;
  const keys = Object.keys(value);
  if (keys.length === 0) return "an empty object";
  return `an object with the keys ${keys.slice(0, 8).join(", ")}${keys.length > 8 ? ", …" : ""}`;
};

const refused = (value, name) => {
  if (value && typeof value === "object" && isElement(value)) {
    return fail(`${name} returned a JSX element: make a string of it, as renderToString of preact-render-to-string does`);
  }
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
    return fail(`${name} returned bytes: return new Response(bytes, { headers: { "content-type": … } })`);
  }
  return fail(`${name} returned ${described(value)}: ${REMEDY}`);
};

/** The text of what a page returned: a string, `html`, or what a library of templates makes. */
export const htmlOf = (rendered, name) => {
  const isHtml = typeof rendered === "string" || (typeof rendered === "object" && rendered !== null && hasText(rendered));
  const text = isHtml && String(rendered);
  if (typeof text !== "string") return refused(rendered, name);
  if (NO_TEXT.test(text)) return fail(`${name} returned the text ${text.trim()}, which is no page but an object without text`);
  return text;
};

// JSON leaves them out, or writes them as `{}` or by the insides of this SDK.
const SPEECHLESS = [Map, Set, WeakMap, WeakSet, Error, RegExp, ArrayBuffer, Headers, Response, Html];

const isSpeechless = (value) => {
  if (typeof value !== "object") return typeof value === "function" || typeof value === "symbol" || typeof value === "bigint";
  if (typeof value.then === "function" || ArrayBuffer.isView(value)) return true;
  if (SPEECHLESS.some((kind) => value instanceof kind)) return true;
  const prototype = Object.getPrototypeOf(value);
  const isPlain = prototype === null || prototype === Object.prototype || Array.isArray(value);
  const isBoxed = value instanceof Number || value instanceof String || value instanceof Boolean;
  return !isPlain && !isBoxed && Object.keys(value).length === 0;
};

/** A value as JSON; `undefined` stays that. What JSON would lose in silence is told by its place. */
export const jsonOf = (value, name) => {
  const places = new WeakMap();
  let place = name;
  const checked = function (key, told) {
    const holder = places.get(this);
    if (holder !== undefined) place = Array.isArray(this) ? `${holder}[${key}]` : `${holder}.${key}`;
    if (told === undefined || told === null) return told;
    if (isSpeechless(told)) return fail(`\`${place}\` is ${described(told)}, which has no JSON form`);
    if (typeof told === "object") places.set(told, place);
    return told;
  };
  try {
    return JSON.stringify(value, checked);
  } catch (error) {
    if (!/circular/.test(error.message)) throw error;
    return fail(`\`${place}\` holds itself, which has no JSON form`);
  }
};

/** A part of a path, or a tag: a string, or a number as one. */
export const wordOf = (value, name) => {
  if (typeof value === "string" || typeof value === "number") return String(value);
  return fail(`${name} is ${described(value)}, where a string is needed`);
};
