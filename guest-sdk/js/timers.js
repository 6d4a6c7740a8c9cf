// A page is made in one call that waits: promises and timers run here until what the page promised is there.
// `async` functions have been compiled to generators, so all of them come past this queue.

import { subscribeDuration } from "wasj:clocks/monotonic-clock@0.2.3";

const jobs = [];
const timers = new Map();
let last = 0;

globalThis.queueMicrotask = (job) => void jobs.push(job);

globalThis.setTimeout = (job, delay = 0, ...values) => {
  timers.set(++last, { due: Date.now() + Math.max(0, Number(delay) || 0), job: () => job(...values) });
  return last;
};

globalThis.clearTimeout = (id) => void timers.delete(id);

const nextTimer = () => {
  let first;
  for (const [id, { due }] of timers) if (!first || due < timers.get(first).due) first = id;
  const timer = timers.get(first);
  timers.delete(first);
  const wait = timer.due - Date.now();
  if (wait > 0) {
    using pollable = subscribeDuration(wait * 1e6);
    pollable.block();
  }
  return timer.job;
};

/** What a value settles to, once all that it waits for has happened. */
export const settled = (value) => {
  if (typeof value?.then !== "function") return value;
  let outcome;
  value.then(
    (value) => (outcome = { value }),
    (error) => (outcome = { error }),
  );
  while (!outcome) {
    if (jobs.length) jobs.shift()();
    else if (timers.size) nextTimer()();
    else throw new Error("the page waits for a promise that nothing will settle");
  }
  if ("error" in outcome) throw outcome.error;
  return outcome.value;
};
