// Shows build errors over the page, and reloads the page when there is a new release.
(() => {
  let release;
  let panel;
  const hide = () => {
    panel?.remove();
    panel = undefined;
  };
  const show = (errors) => {
    hide();
    panel = document.createElement("div");
    panel.setAttribute("role", "alert");
    panel.setAttribute("aria-label", "Build errors");
    panel.style.cssText =
      "position:fixed;inset:auto 0 0 0;max-height:80vh;overflow:auto;z-index:2147483647;" +
      "padding:1rem 1.5rem;background:#1b1b1f;color:#fff;font:14px/1.5 ui-monospace,monospace;" +
      "border-top:4px solid #ff5a5a";
    const close = document.createElement("button");
    close.textContent = "Dismiss";
    close.style.cssText = "float:right;font:inherit";
    close.onclick = hide;
    panel.append(close);
    for (const error of errors) {
      const title = document.createElement("h2");
      title.textContent = error.title;
      title.style.cssText = "margin:0;font-size:1rem";
      const text = document.createElement("pre");
      text.textContent = error.text;
      text.style.cssText = "white-space:pre-wrap;margin:.5rem 0 1rem";
      panel.append(title, text);
    }
    document.body.append(panel);
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
