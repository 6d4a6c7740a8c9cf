// What a page imports from "wisr". Types and documentation are in wisr.d.ts.

import * as host from "wisr:page/host@0.1.0";

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

export const escape = (text) => String(text).replace(/[&<>"']/g, (char) => ENTITIES[char]);

class Html {
  #text;
  constructor(text) {
    this.#text = text;
  }
  toString() {
    return this.#text;
  }
}

export const raw = (text) => new Html(String(text));

const shown = (value) => {
  if (value instanceof Html) return value.toString();
  if (Array.isArray(value)) return value.map(shown).join("");
  return value === undefined || value === null || value === false ? "" : escape(value);
};

export const html = (strings, ...values) =>
  new Html(strings.reduce((text, string, at) => text + shown(values[at - 1]) + string));

export const setting = (name) => host.setting(name) ?? undefined;

const at = (level) => (message) => host.log(level, String(message));

export const log = {
  trace: at("trace"),
  debug: at("debug"),
  info: at("info"),
  warn: at("warn"),
  error: at("error"),
};
