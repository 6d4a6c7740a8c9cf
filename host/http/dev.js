// Shows errors of the build and of this page over the page, and reloads it when there is a new release.
(() => {
  const STYLE = `
    :host { position: fixed; inset: auto 0 0 0; z-index: 2147483647; color-scheme: light dark; }
    div { box-sizing: border-box; max-height: 80vh; overflow: auto; padding: 1rem 1.5rem;
      border-top: 4px solid #e5484d; box-shadow: 0 -4px 24px rgb(0 0 0 / .25);
      background: light-dark(#fff, #1b1b1f); color: light-dark(#1b1b1f, #f4f4f6);
      font: 14px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
    h1 { margin: 0 5rem .5rem 0; font-size: 1.1rem; }
    h2 { margin: 1rem 0 .25rem; font-size: .85rem; color: light-dark(#5c5c66, #a9a9b4); }
    strong { color: light-dark(#c62a2f, #ff9592); white-space: pre-wrap; }
    p { margin: 0 0 .5rem; }
    pre { margin: 0 0 1rem; padding: .5rem .75rem; border-radius: 4px; font: inherit;
      white-space: pre-wrap; background: light-dark(#f2f2f4, #28282e); }
    code { font: inherit; }
    ol { margin: 0; padding-left: 2rem; }
    span { color: light-dark(#5c5c66, #a9a9b4); }
    button { position: sticky; top: 0; float: right; padding: .25rem .75rem; border: 1px solid #8a8a94;
      border-radius: 4px; background: light-dark(#fff, #1b1b1f); color: inherit; font: inherit;
      cursor: pointer; }
    button:focus-visible { outline: 2px solid #e5484d; outline-offset: 2px; }
    @media (max-width: 40rem) { div { padding: .75rem 1rem; font-size: 13px; } ol { padding-left: 1.5rem; } }
  `;
  let release;
  let incident;
  let failure = "";
  let host;
  const element = (name, text) => Object.assign(document.createElement(name), { textContent: text });
  const hide = () => {
    host?.remove();
    host = undefined;
  };
  const show = (errors) => {
    hide();
    if (!errors.length && !failure) return;
    host = document.createElement("wisr-errors");
    const panel = document.createElement("div");
    panel.setAttribute("role", "alert");
    const close = element("button", "Dismiss");
    close.onclick = hide;
    panel.append(close);
    for (const error of errors) panel.append(element("h1", error.title), element("pre", error.text));
    const account = document.createElement("article");
    // The server has escaped it.
    account.innerHTML = failure;
    panel.append(account);
    // A tree of its own, which the page's stylesheet does not reach.
    host.attachShadow({ mode: "open" }).append(element("style", STYLE), panel);
    document.body.append(host);
  };
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
  const ask = async () => {
    // The error page tells of its failure itself.
    if (document.querySelector("[data-wisr-failure]")) return "";
    const page = encodeURIComponent(location.pathname + location.search);
    const answer = await fetch(`/_wisr/dev/failure?page=${page}`);
    return answer.status === 200 ? answer.text() : "";
  };
  new EventSource("/_wisr/dev/events").onmessage = async (event) => {
    const state = JSON.parse(event.data);
    if (release !== undefined && state.release !== release && !state.building) {
      location.reload();
      return;
    }
    release ??= state.release;
    if (state.incident !== incident) {
      incident = state.incident;
      failure = await ask();
    }
    show(state.errors);
  };
})();
