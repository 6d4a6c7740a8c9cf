// Keeps the charts of the overview going. Everything else works without it.
"use strict";
(() => {
  const WIDTH = 300, HEIGHT = 60, SAMPLES = 150;
  const total = (it) => it.hits + it.stale + it.misses + it.errors;
  const micros = (us) =>
    us < 1e3 ? `${Math.round(us)} µs` : us < 1e6 ? `${(us / 1e3).toFixed(1)} ms` : `${(us / 1e6).toFixed(1)} s`;
  // As in chart.rs.
  const CHARTS = {
    ratio: { least: 1, show: (it) => `${(it * 100).toFixed(1)} %`,
      lines: { hits: (it) => (total(it) ? it.hits / total(it) : null) } },
    requests: { least: 1, show: (it) => it.toFixed(1),
      lines: { requests: (it) => (it.seconds ? total(it) / it.seconds : null) } },
    latency: { least: 1000, show: micros,
      lines: { p50: (it) => it.p50_us, p99: (it) => it.p99_us } },
    generations: { least: 1, show: (it) => it.toFixed(0),
      lines: { running: (it) => it.running, waiting: (it) => it.waiting } },
  };
  const figures = document.querySelectorAll("figure[data-chart]");
  if (!figures.length) return;
  let samples = [];

  const draw = (figure) => {
    const chart = CHARTS[figure.dataset.chart];
    const lines = Object.entries(chart.lines);
    const values = lines.flatMap(([, of]) => samples.map(of)).filter((it) => it !== null);
    const top = Math.max(chart.least, ...values);
    const missing = SAMPLES - samples.length;
    for (const [name, of] of lines) {
      const points = samples.flatMap((sample, place) => {
        const value = of(sample);
        if (value === null) return [];
        const x = ((missing + place) * WIDTH) / (SAMPLES - 1);
        const y = HEIGHT - 2 - (HEIGHT - 4) * (value / top);
        return [`${x.toFixed(1)},${y.toFixed(1)}`];
      });
      figure.querySelector(`polyline[data-line="${name}"]`).setAttribute("points", points.join(" "));
      const last = samples.map(of).findLast((it) => it !== null) ?? null;
      figure.querySelector(`[data-value="${name}"]`).textContent = last === null ? "–" : chart.show(last);
    }
  };

  const poll = async () => {
    let pause = 2000;
    try {
      const after = samples.length ? `?after=${samples[samples.length - 1].at}` : "";
      const answer = await fetch(`/api/live${after}`);
      if (answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(answer.status);
      const told = await answer.json();
      pause = told.every * 1000;
      samples = samples.concat(told.samples).slice(-SAMPLES);
      figures.forEach(draw);
      document.body.dataset.live = "yes";
    } catch {
      // The server is being restarted, or gone: what is shown stays, and says that it is old.
      document.body.dataset.live = "no";
      pause = 5000;
    }
    setTimeout(poll, pause);
  };
  poll();
})();
