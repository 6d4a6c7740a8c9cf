// `fetch` of the web over wasi:http. It has its answer before it returns: the call is made, and waited for.

import { handle } from "wasj:http/outgoing-handler@0.2.3";
import { Fields, OutgoingBody, OutgoingRequest } from "wasj:http/types@0.2.3";
import { Html, TextDecoder, TextEncoder, scalar } from "./text.js";

const CHUNK = 64 * 1024;
// What one blocking-write-and-flush takes at most (wasi:io/streams).
const WRITE = 4096;
const METHODS = ["get", "head", "post", "put", "delete", "options", "patch"];

// In the words of an author; any other code is told by its own name.
const REFUSALS = {
  "HTTP-request-denied": "denied: the origin is not in the `outbound` list of the route",
  "destination-IP-prohibited": "denied: the address is not public",
  "DNS-timeout": "looking up the host took too long",
  "DNS-error": "the host is unknown",
  "destination-not-found": "the host is unknown",
  "destination-unavailable": "the host cannot be reached",
  "connection-refused": "connection refused",
  "connection-terminated": "the connection was closed before the answer",
  "connection-timeout": "connecting took too long",
  "connection-limit-reached": "too many requests at once",
  "HTTP-response-timeout": "the answer took too long",
  "HTTP-request-body-size": "the request's body is too large",
  "HTTP-response-body-size": "the answer is too large",
  "HTTP-response-incomplete": "the answer broke off",
  "TLS-certificate-error": "the host's certificate is not trusted",
  "loop-detected": "the request leads back to this server",
};

const refusal = ({ tag, val }) => (tag === "internal-error" && val) || REFUSALS[tag] || tag;

export class Headers {
  #entries = new Map();
  constructor(from = []) {
    const entries = typeof from[Symbol.iterator] === "function" ? from : Object.entries(from);
    for (const [name, value] of entries) this.append(name, value);
  }
  append(name, value) {
    const key = String(name).toLowerCase();
    const had = this.#entries.get(key);
    this.#entries.set(key, had === undefined ? String(value) : `${had}, ${value}`);
  }
  set(name, value) {
    this.#entries.set(String(name).toLowerCase(), String(value));
  }
  get(name) {
    return this.#entries.get(String(name).toLowerCase()) ?? null;
  }
  has(name) {
    return this.#entries.has(String(name).toLowerCase());
  }
  delete(name) {
    this.#entries.delete(String(name).toLowerCase());
  }
  forEach(call) {
    this.#entries.forEach((value, name) => call(value, name, this));
  }
  entries() {
    return this.#entries.entries();
  }
  keys() {
    return this.#entries.keys();
  }
  values() {
    return this.#entries.values();
  }
  [Symbol.iterator]() {
    return this.entries();
  }
}

const bytesOf = (body) => {
  if (body === undefined || body === null) return new Uint8Array();
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  // The web sends `[object Object]` for those, which nobody ever meant.
  if (typeof body === "object" && !(body instanceof Html) && body.toString === Object.prototype.toString) {
    throw new TypeError("a body is a string or bytes, not an object: JSON.stringify(…) or Response.json(…) makes JSON of it");
  }
  return new TextEncoder().encode(body);
};

export class Response {
  #body;
  constructor(body = null, { status = 200, statusText = "", headers = [] } = {}) {
    this.#body = typeof body === "string" ? body : bytesOf(body);
    this.status = status;
    this.statusText = statusText;
    this.headers = new Headers(headers);
    this.url = "";
    if (typeof body === "string" && !this.headers.has("content-type")) {
      this.headers.set("content-type", "text/plain;charset=UTF-8");
    }
  }
  static json(value, init) {
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError("Response.json: the value has no JSON form");
    const response = new Response(text, init);
    if (!new Headers(init?.headers).has("content-type")) response.headers.set("content-type", "application/json");
    return response;
  }
  get ok() {
    return this.status >= 200 && this.status < 300;
  }
  /** The body as it was given: text, or bytes. */
  get content() {
    return typeof this.#body === "string" ? this.#body : bytesOf(this.#body);
  }
  async bytes() {
    return bytesOf(this.#body);
  }
  async arrayBuffer() {
    return bytesOf(this.#body).slice().buffer;
  }
  async text() {
    return typeof this.#body === "string" ? this.#body : new TextDecoder().decode(bytesOf(this.#body));
  }
  async json() {
    const text = await this.text();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new SyntaxError(`${this.url} answered ${this.status} with no JSON: ${error.message}`);
    }
  }
}

const prepare = (url, method, headers) => {
  const parts = /^(https?):\/\/([^/?#@\s]+)([^#\s]*)/i.exec(url);
  if (!parts) throw new TypeError("not an absolute http or https URL without credentials");
  const fields = new Fields();
  for (const [name, value] of headers) fields.append(scalar(name), new TextEncoder().encode(value));
  const request = new OutgoingRequest(fields);
  const lower = method.toLowerCase();
  request.setMethod(METHODS.includes(lower) ? { tag: lower } : { tag: "other", val: scalar(method) });
  request.setScheme({ tag: parts[1].toLowerCase() === "https" ? "HTTPS" : "HTTP" });
  request.setAuthority(parts[2]);
  // What the URL standard escapes too; the host refuses the rest.
  const path = parts[3].replace(/[^\x21-\x7e]+/g, encodeURIComponent);
  request.setPathWithQuery(path.startsWith("/") ? path : `/${path}`);
  return request;
};

const send = (request, bytes) => {
  const body = bytes.length ? request.body() : undefined;
  using answer = handle(request, null);
  if (body) {
    // A server may answer before it has read everything, and that answer is worth more than the broken pipe.
    try {
      {
        using stream = body.write();
        for (let at = 0; at < bytes.length; at += WRITE) stream.blockingWriteAndFlush(bytes.subarray(at, at + WRITE));
      }
      OutgoingBody.finish(body, null);
    } catch {}
  }
  {
    using ready = answer.subscribe();
    ready.block();
  }
  const got = answer.get().val;
  if (got.tag === "err") throw Object.assign(new Error("refused"), { payload: got.val });
  return got.val;
};

const receive = (url, incoming) => {
  using response = incoming;
  const headers = new Headers();
  {
    using fields = response.headers();
    for (const [name, value] of fields.entries()) headers.append(name, new TextDecoder().decode(value));
  }
  const chunks = [];
  let length = 0;
  {
    using body = response.consume();
    using stream = body.stream();
    for (;;) {
      let chunk;
      try {
        chunk = stream.blockingRead(CHUNK);
      } catch (error) {
        if (error.payload?.tag === "closed") break;
        using failed = error.payload.val;
        throw new Error(`the answer broke off: ${failed.toDebugString()}`);
      }
      chunks.push(chunk);
      length += chunk.length;
    }
  }
  const bytes = new Uint8Array(length);
  chunks.reduce((at, chunk) => (bytes.set(chunk, at), at + chunk.length), 0);
  return Object.assign(new Response(bytes, { status: response.status(), headers }), { url });
};

export const fetch = async (input, { method = "GET", headers = [], body } = {}) => {
  const url = scalar(input);
  try {
    const bytes = bytesOf(body);
    const fields = new Headers(headers);
    if (typeof body === "string" && !fields.has("content-type")) fields.set("content-type", "text/plain;charset=UTF-8");
    if (bytes.length) fields.set("content-length", bytes.length);
    return receive(url, send(prepare(url, method, fields), bytes));
  } catch (error) {
    const why = error.payload?.tag ? refusal(error.payload) : error.message;
    throw new TypeError(`fetch ${method} ${url}: ${why}`);
  }
};
