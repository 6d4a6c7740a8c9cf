// Makes the module of a page: esbuild bundles it with the SDK, componentize-qjs puts that into a component.
//
// Reads one JSON object from stdin: { root, entry, out, release }.
// Writes one to stdout: { inputs: [path] }, the files of the author that the module is made of, or { error: text }.

import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { componentize } from "componentize-qjs";
import * as esbuild from "esbuild";
import { retrace } from "./trace.js";

const SDK = path.dirname(fileURLToPath(import.meta.url));

const bundle = ({ root, entry, release }) =>
  esbuild.build({
    absWorkingDir: root,
    entryPoints: [path.join(SDK, "entry.js")],
    outfile: path.join(root, "bundle.js"),
    alias: { wisr: path.join(SDK, "wisr.js"), "wisr:source": entry },
    nodePaths: [path.join(SDK, "node_modules")],
    external: ["wasi:*", "wasj:*", "wisr:page/*"],
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
    define: {
      "process.env.NODE_ENV": release ? '"production"' : '"development"',
      __WISR_PAGE__: JSON.stringify(path.relative(root, entry)),
    },
    loader: {
      ".html": "text", ".svg": "text", ".css": "text", ".md": "text", ".txt": "text",
      ".png": "binary", ".jpg": "binary", ".webp": "binary", ".woff2": "binary",
    },
    logLevel: "silent",
  });

/** Sources as an author knows them: below the tree, or the SDK's, which no stack shows. */
const named = (root, { sources, mappings }) => ({
  sources: sources.map((source) => {
    // A map has URLs: `[id]` stands in it as `%5Bid%5D`.
    const file = path.resolve(root, decodeURIComponent(source));
    if (file.startsWith(SDK + path.sep)) return `wisr/${path.relative(SDK, file)}`;
    return path.relative(root, file);
  }),
  mappings,
});

/**
 * While componentize-qjs runs the module once, it stands in for what it does not know, but has the streams of
 * `wasi:io` itself, so `wasi:http` fails to link there. Under another name all of it is stood in for. The names
 * get their right spelling, of the same length, in the finished component.
 */
const misspelt = (text) => text.replace(/wasi:(?=(io|http|clocks)[/@])/g, "wasj:");
const spelt = (component) =>
  Buffer.from(component.toString("latin1").replace(/wasj:(?=(io|http|clocks)[/@])/g, "wasi:"), "latin1");

const componentized = async (jsSource) => {
  const witPath = mkdtempSync(path.join(SDK, ".wit-"));
  try {
    cpSync(path.join(SDK, "wit"), witPath, { recursive: true });
    for (const place of readdirSync(witPath, { recursive: true }).filter((place) => place.endsWith(".wit"))) {
      const file = path.join(witPath, place);
      writeFileSync(file, misspelt(readFileSync(file, "utf8")));
    }
    const { component } = await componentize({ witPath, world: "javascript", jsSource, sync: true });
    return spelt(component);
  } finally {
    rmSync(witPath, { recursive: true });
  }
};

const build = async (order) => {
  let made;
  try {
    made = await bundle(order);
  } catch (error) {
    const messages = error.errors ?? [{ text: String(error) }];
    return { error: (await esbuild.formatMessages(messages, { kind: "error", color: false })).join("").trim() };
  }
  const text = (end) => made.outputFiles.find(({ path }) => path.endsWith(end)).text;
  const map = named(order.root, JSON.parse(text(".map")));
  try {
    // The map comes last, so that the bundle's lines stay where it has them.
    const source = `${text(".js")}\nglobalThis.__wisrMap = ${JSON.stringify(map)};\n`;
    writeFileSync(order.out, await componentized(source));
  } catch (error) {
    return { error: `error: ${retrace(error.message, map, () => false)}` };
  }
  const inputs = Object.keys(made.metafile.inputs).map((input) => path.resolve(order.root, input));
  return { inputs: inputs.filter((input) => !input.startsWith(SDK + path.sep)) };
};

process.stdout.write(JSON.stringify(await build(JSON.parse(readFileSync(0, "utf8")))));
