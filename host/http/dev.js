// Shows build errors over the page, and reloads the page when there is a new release.
(() => {
  const STYLE = `
    :host { position: fixed; inset: auto 0 0 0; z-index: 2147483647; }
    div { max-height: 80vh; overflow: auto; padding: 1rem 1.5rem; border-top: 4px solid #ff5a5a;
      background: #1b1b1f; color: #f4f4f6; font: 14px/1.5 ui-monospace, monospace; }
    h2 { margin: 0; font-size: 1rem; }
    pre { margin: .5rem 0 1rem; font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; }
    button { float: right; padding: .25rem .75rem; border: 1px solid #8a8a94; border-radius: 4px;
      background: none; color: inherit; font: inherit; cursor: pointer; }
    button:focus-visible { outline: 2px solid #fff; outline-offset: 2px; }
  `;
  let release;
  let host;
  const element = (name, text) => Object.assign(document.createElement(name), { textContent: text });
  const hide = () => {
    host?.remove();
    host = undefined;
  };
  const show = (errors) => {
    hide();
    host = document.createElement("wisr-errors");
    const panel = document.createElement("div");
    panel.setAttribute("role", "alert");
    panel.setAttribute("aria-label", "Build errors");
    const close = element("button", "Dismiss");
    close.onclick = hide;
    panel.append(close);
    for (const error of errors) panel.append(element("h2", error.title), element("pre", error.text));
    // A tree of its own, which the page's stylesheet does not reach.
    host.attachShadow({ mode: "open" }).append(element("style", STYLE), panel);
    document.body.append(host);
  };
  new EventSource("/_wisr/dev/events").onmessage = (event) => {
    const state = JSON.parse(event.data);
    if (release !== undefined && state.release !== release && !state.building) {
      location.reload();
      return;
    }
    release ??= state.release;
    if (state.errors.length) show(state.errors);
    else hide();
  };
})();
