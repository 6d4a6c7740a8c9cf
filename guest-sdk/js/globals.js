// What pages know from the web, put in place before a page's own modules are loaded.

import "./timers.js";
import Promise from "promise-polyfill";
import { fetch, Headers, Response } from "./fetch.js";
import { line, log } from "./wisr.js";
import { crypto } from "./random.js";
import { TextDecoder, TextEncoder } from "./text.js";

Promise._immediateFn = queueMicrotask;
Promise._unhandledRejectionFn = (error) => log.warn(`a promise was rejected, and nobody looked: ${error}`);
Promise.withResolvers = function () {
  const made = {};
  made.promise = new this((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

const says = (level) => (...values) => log[level](line(values));

const console = {
  trace: says("trace"),
  debug: says("debug"),
  log: says("info"),
  info: says("info"),
  warn: says("warn"),
  error: says("error"),
};

Object.assign(globalThis, { Promise, console, crypto, fetch, Headers, Response, TextDecoder, TextEncoder });
