// Makes modules of pages: esbuild bundles each with the SDK, componentize-qjs puts it into a component.
//
// Reads one JSON object from stdin: { root, wit, release, pages: [{ place, entry, out }] }.
// Writes one line of JSON to stdout for each event:
// { place, begun: true } | { place, inputs: [path] } | { place, error: text }.

import { readFile, writeFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { componentize } from "componentize-qjs";
import * as esbuild from "esbuild";
import { retrace } from "./trace.js";

const SDK = path.dirname(fileURLToPath(import.meta.url));

const tell = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

const bundle = ({ root, release }, entry) =>
  esbuild.build({
    absWorkingDir: root,
    entryPoints: [path.join(SDK, "entry.js")],
    outfile: path.join(root, "bundle.js"),
    alias: { wisr: path.join(SDK, "wisr.js"), "wisr:source": entry },
    nodePaths: [path.join(SDK, "node_modules")],
    external: ["wasj:*", "wisr:page/*"],
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    platform: "neutral",
    mainFields: ["module", "main"],
    conditions: ["worker", "module"],
    // Promises run in a queue of the SDK's own: a call of the contract ends with its result, not with a promise.
    supported: { "async-await": false, "async-generator": false, "for-await": false, "top-level-await": false, using: false },
    sourcemap: "external",
    sourcesContent: false,
    jsx: "automatic",
    define: { "process.env.NODE_ENV": release ? '"production"' : '"development"' },
    loader: {
      ".html": "text", ".svg": "text", ".css": "text", ".md": "text", ".txt": "text",
      ".png": "binary", ".jpg": "binary", ".webp": "binary", ".woff2": "binary",
    },
    logLevel: "silent",
  });

/** Sources as an author knows them: below the tree, or the SDK's, which no stack shows. */
const named = (root, { sources, mappings }) => ({
  sources: sources.map((source) => {
    const file = path.resolve(root, source);
    if (file.startsWith(SDK + path.sep)) return `wisr/${path.relative(SDK, file)}`;
    return path.relative(root, file);
  }),
  mappings,
});

const build = async (order, { place, entry, out }) => {
  tell({ place, begun: true });
  let made;
  try {
    made = await bundle(order, entry);
  } catch (error) {
    const messages = error.errors ?? [{ text: String(error) }];
    const text = await esbuild.formatMessages(messages, { kind: "error", color: false });
    tell({ place, error: text.join("").trim() });
    return;
  }
  const text = (end) => made.outputFiles.find(({ path }) => path.endsWith(end)).text;
  const map = named(order.root, JSON.parse(text(".map")));
  // Behind the bundle, so that its lines stay where the map has them.
  const jsSource = `${text(".js")}\nglobalThis.__wisrMap = ${JSON.stringify(map)};\n`;
  try {
    const { component } = await componentize({ witPath: order.wit, world: "guest", jsSource, sync: true });
    await writeFile(out, linked(component));
  } catch (error) {
    tell({ place, error: `error: ${retrace(error.message, map, () => false)}` });
    return;
  }
  const inputs = Object.keys(made.metafile.inputs).map((input) => path.resolve(order.root, input));
  tell({ place, inputs: inputs.filter((input) => !input.startsWith(SDK + path.sep)) });
};

/**
 * While componentize-qjs runs the module once, it stands in for what it does not know, but has the streams of
 * `wasi:io` itself, so `wasi:http` fails to link there. Under another name all of it is stood in for. The names
 * get their right spelling, of the same length, here.
 */
const linked = (component) => {
  const text = component.toString("latin1");
  return Buffer.from(text.replace(/wasj:(?=(io|http|clocks)\/)/g, "wasi:"), "latin1");
};

const order = JSON.parse(readFileSync(0, "utf8"));
for (const page of order.pages) await build(order, page);
