/**
 * Write pages for wisr in JavaScript or TypeScript.
 *
 * A page is a module `page.js`, `page.ts`, `page.jsx` or `page.tsx`:
 *
 * - `export default function (props, ctx)` renders the page: a string, `html`, or a `Response` for another
 *   type, status or headers, or for bytes;
 * - `export function getStaticProps(ctx)` fetches what it shows and says how long that stays fresh;
 * - `export function getStaticPaths()` lists the pages of a dynamic route;
 * - `export function Shell(ctx)` renders what a reader sees while a page is being made.
 *
 * What is no page, and what JSON would lose in props, is an error that names the file and the place. Half a
 * surrogate pair leaves the page as U+FFFD, as on the web.
 *
 * Each may be `async`. `fetch`, `Response`, `Headers`, `console`, `TextEncoder`, `TextDecoder`, `setTimeout`,
 * `crypto.getRandomValues` and `crypto.randomUUID` are there as on the web; `Buffer`, `process`, `URL` and the DOM are not. Each call runs in a fresh sandbox:
 * what one leaves in a variable, the next does not see.
 */

/** Which page is being made. It holds nothing of a reader: what a page cannot see, it cannot leak into the cache. */
export interface Context<Params = Record<string, string | string[]>> {
  /** The route that the module serves, such as `/posts/[id]`. */
  readonly route: string;
  /** The path that is being made, such as `/posts/1`. */
  readonly path: string;
  /** Route parameters by name: a string for `[id]`, an array for `[...slug]`. */
  readonly params: Params;
  /** The query parameters that the route's configuration allows; each the first of its name. */
  readonly query: Readonly<Record<string, string | undefined>>;
  /** Why the page is being made now. */
  readonly cause: "build" | "first-request" | "stale" | "on-demand" | "draft";
}

/** How long a result stays fresh, in seconds; `false`: until it is revalidated on demand. Left out: as wisr.toml says. */
export type Revalidate = number | false;

/** What `getStaticProps` returns. */
export type StaticProps<Props> =
  | {
      /** Handed to the page as JSON. Readers can see it, at `/_wisr/data/<path>.json`. */
      props: Props;
      revalidate?: Revalidate;
      /** Names under which the page can be revalidated together with others. */
      tags?: string[];
    }
  /** There is no such page: 404. Without `revalidate` it is looked for again after 60 s, or when a tag is called. */
  | { notFound: true; revalidate?: Revalidate; tags?: string[] }
  /** The page is elsewhere: 307, or 308 where it is permanent, or as `statusCode` says. */
  | { redirect: Redirect; revalidate?: Revalidate; tags?: string[] };

export type Redirect =
  | { destination: string; permanent?: boolean }
  | { destination: string; statusCode: 301 | 302 | 303 | 307 | 308 };

/** What `getStaticPaths` returns. */
export interface StaticPaths<Params = Record<string, string | string[]>> {
  /** The parameters of each page; an optional catch-all may be left out. */
  paths: { params: Params }[];
  /** What any other path gets: `false` a 404, `"blocking"` the page once it is made, `true` the shell at once. */
  fallback: boolean | "blocking";
}

type Awaitable<T> = T | Promise<T>;

export type GetStaticProps<Props, Params = Record<string, string | string[]>> = (
  ctx: Context<Params>,
) => Awaitable<StaticProps<Props>>;

export type GetStaticPaths<Params = Record<string, string | string[]>> = () => Awaitable<StaticPaths<Params>>;

/** The default export of a page. */
export type Page<Props, Params = Record<string, string | string[]>> = (
  props: Props,
  ctx: Context<Params>,
) => Awaitable<Rendered>;

/** The export `Shell`. */
export type Shell<Params = Record<string, string | string[]>> = (ctx: Context<Params>) => Awaitable<Rendered>;

/** What a page renders to. A string is an HTML document. */
export type Rendered = string | Html | Response;

/** HTML in which everything from outside has been escaped. */
export interface Html {
  toString(): string;
}

/**
 * HTML from a template. What is put in is escaped, unless it is `Html` itself; arrays are joined;
 * `undefined`, `null` and `false` show nothing.
 */
export function html(strings: TemplateStringsArray, ...values: unknown[]): Html;

/** Text that is HTML already. */
export function raw(text: string): Html;

/** Text with `& < > " '` escaped. */
export function escape(text: unknown): string;

/** A setting of this route, from wisr.toml. */
export function setting(name: string): string | undefined;

/**
 * Tags what is being made, whatever comes of it: a page, a 404 or a redirect. The same as `tags` of a result,
 * from wherever the data is read.
 */
export function tag(name: string): void;

/** Lines in the server's log, each with the route and the generation that said it. */
export const log: Record<"trace" | "debug" | "info" | "warn" | "error", (message: unknown) => void>;
