// What a page imports from "wisr". Types and documentation are in wisr.d.ts.

import * as host from "wisr:page/host@0.1.0";
import { Html, hasText, scalar } from "./text.js";
import { described, fail, wordOf } from "./values.js";

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

const textOf = (value) => {
  const isObject = typeof value === "object" && value !== null && !(value instanceof Date) && !(value instanceof Error);
  const isText = isObject ? hasText(value) || Array.isArray(value) : typeof value !== "function" && typeof value !== "symbol";
  return isText ? String(value) : fail(`${described(value)} is shown in the page, and has no text`);
};

export const escape = (text) => textOf(text).replace(/[&<>"']/g, (char) => ENTITIES[char]);

export const raw = (text) => new Html(textOf(text));

const shown = (value) => {
  if (value instanceof Html) return value.toString();
  if (Array.isArray(value)) return value.map(shown).join("");
  return value === undefined || value === null || value === false ? "" : escape(value);
};

export const html = (strings, ...values) =>
  new Html(strings.reduce((text, string, at) => text + shown(values[at - 1]) + string));

export const setting = (name) => host.setting(scalar(name)) ?? undefined;

export const tag = (name) => host.tag(scalar(wordOf(name, "a tag")));

/** Values in one line for the log: text as it is, an error with its stack, all else as JSON. */
export const line = (values) => {
  const words = (value) => {
    if (typeof value === "string") return value;
    if (value instanceof Error) return `${value}\n${value.stack}`;
    try {
      return JSON.stringify(value) ?? String(value);
    } catch {
      return String(value);
    }
  };
  return scalar(values.map(words).join(" "));
};

const at = (level) => (message) => host.log(level, line([message]));

export const log = {
  trace: at("trace"),
  debug: at("debug"),
  info: at("info"),
  warn: at("warn"),
  error: at("error"),
};
