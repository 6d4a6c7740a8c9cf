// The document round a page and the articles of the content API, for pages in JavaScript and TypeScript.

import { escape, html, raw, setting, type Context, type Html } from "wisr";
import template from "./frame.html";

export interface Post {
  id: string;
  title: string;
  date: string;
  summary: string;
  author: string;
  moved?: string;
}

/** The articles, newest first; one that has moved is listed at its new place only. */
export async function posts(): Promise<Post[]> {
  const response = await fetch(`${setting("content")}/posts`);
  if (!response.ok) throw new Error(`${response.url} answered ${response.status}`);
  const posts: Post[] = await response.json();
  return posts.filter((post) => !post.moved);
}

/** The finished document. The kind becomes the class of `main`, which the stylesheet lays out by. */
export function frame(ctx: Context<any>, title: string, description: string, kind: string, content: Html): Html {
  const address = `${setting("site") ?? ""}${ctx.path}`;
  const values: Record<string, string> = { title, description, address, kind };
  return raw(
    template.replace(/\{\{(\w+)\}\}/g, (_, name) => (name === "content" ? String(content) : escape(values[name]))),
  );
}

/** A date in words, machine-readable. */
export function day(date: string): Html {
  const [year, month, day] = date.split("-").map(Number);
  return html`<time datetime="${date}">${day} ${MONTHS[month - 1]} ${year}</time>`;
}

export const MONTHS = [
  "January", "February", "March", "April", "May", "June",
  "July", "August", "September", "October", "November", "December",
];
