// The live view: polls /stats while the page is looked at, and shows it.

import { ApiError, getStats } from "./api.js";
import { Loom } from "./loom.js";

const BUSY_MS = 250;
const IDLE_MS = 1000;
const OFFLINE_MS = 3000;
const HISTORY_SECONDS = 120;
const RATE_OVER_MS = 1000;
const MOST_LISTED = 256;  // sequences in a report

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const LATENCIES = [
  ["queue", "In the queue"],
  ["time_to_first_token", "To the first token"],
  ["time_per_output_token", "For each token"],
  ["request", "Whole answer"],
];

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0001) return "< 0.1 ms";
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return `${seconds < 10 ? seconds.toFixed(2) : seconds.toFixed(1)} s`;
}

function rate(value) {
  return value >= 100 || value < 0.05 ? whole.format(value) : value.toFixed(1);
}

// Sizes a canvas for the screen; yields its context and its size in CSS pixels.
function prepared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

export class EngineView {
  #history = [];  // {at, generated}: tokens a second, oldest first
  #totals = [];   // {at, generated, read} of the last second or so
  #timer = 0;
  #running = null;
  #stats = null;

  // find: the node with an id. onModel(name) and onLocked() are called once, when the model is known
  // and when the server wants an API key.
  constructor(find, onModel, onLocked) {
    this.nodes = Object.fromEntries(
      ["rate", "prompt-rate", "pulse-rate", "history", "pulse", "counts", "idle", "pages", "pages-bar",
       "pages-used", "pages-kept", "latencies", "offline", "loom", "detail"].map((id) => [id, find(id)]));
    this.onModel = onModel;
    this.onLocked = onLocked;
    this.loom = new Loom(this.nodes.loom, this.nodes.detail);
    for (const [, label] of LATENCIES) {
      const row = this.nodes.latencies.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = label;
      row.append(head);
      for (let i = 0; i < 3; ++i) row.insertCell().textContent = "–";
    }
    document.addEventListener("visibilitychange", () => this.poll());
    addEventListener("resize", () => this.redraw());
    this.poll();
  }

  // Asks now, and then again and again while the page is visible.
  async poll() {
    clearTimeout(this.#timer);
    if (document.hidden || this.#running) return;
    let next = OFFLINE_MS;
    this.#running = getStats(AbortSignal.timeout(10000));
    try {
      const stats = await this.#running;
      this.nodes.offline.hidden = true;
      this.#show(stats);
      next = stats.running + stats.waiting > 0 ? BUSY_MS : IDLE_MS;
    } catch (problem) {
      const locked = problem instanceof ApiError && problem.status === 401;
      this.nodes.offline.textContent =
        locked ? "The engine is shown once an API key is entered." : "The engine does not answer.";
      if (locked) {
        this.onLocked?.();
        this.onLocked = null;
      }
      this.nodes.offline.hidden = false;
      this.#totals = [];
      this.loom.update([]);
    }
    this.#running = null;
    this.#timer = setTimeout(() => this.poll(), next);
  }

  redraw() {
    this.#drawHistory();
    this.loom.redraw();
  }

  #show(stats) {
    if (!this.#stats) this.onModel(stats.model);
    this.#stats = stats;
    const now = performance.now();
    const rates = this.#rates(stats, now);
    this.#history.push({ at: now, generated: rates.generated });
    while (this.#history[0].at < now - HISTORY_SECONDS * 1000 - 2000) this.#history.shift();

    const { nodes } = this;
    const sequences = stats.sequences ?? [];
    this.loom.update(sequences);
    nodes.rate.textContent = rate(rates.generated);
    nodes["pulse-rate"].textContent = rate(rates.generated);
    nodes["prompt-rate"].textContent = rate(rates.read);
    const unlisted = sequences.length >= MOST_LISTED ? stats.running + stats.waiting - sequences.length : 0;
    const unseen = Math.max(0, unlisted) + this.loom.hidden;
    nodes.counts.textContent = `${stats.running} running · ${stats.waiting} waiting` +
      (unseen > 0 ? ` · ${unseen} not shown` : "");
    nodes.idle.style.opacity = stats.running + stats.waiting > 0 ? 0 : 1;
    nodes.idle.textContent = stats.draining ? "The server is shutting down." : "Nothing is running.";

    const { total, used, cached } = stats.kv_pages;
    const share = (pages) => total > 0 ? 100 * pages / total : 0;
    const atLeast = (pages) => pages > 0 ? `max(2px, ${share(pages)}%)` : "0";
    nodes["pages-used"].style.width = atLeast(used);
    nodes["pages-kept"].style.width = atLeast(cached);
    const words = `${whole.format(used)} of ${whole.format(total)} pages in use, ${whole.format(cached)} kept`;
    nodes.pages.textContent = words;
    nodes["pages-bar"].setAttribute("aria-label", words);
    nodes.loom.setAttribute("aria-label", `${stats.running} sequences running, ${stats.waiting} waiting`);

    LATENCIES.forEach(([name], i) => {
      const values = stats.latency_seconds[name] ?? {};
      ["p50", "p90", "p99"].forEach((percentile, j) => {
        nodes.latencies.rows[i].cells[j + 1].textContent = duration(values[percentile]);
      });
    });
    this.#drawHistory();
  }

  // Tokens a second since the report before the last second: generated ones, and what the model read
  // beside them, prompts above all (those found in the cache are not read).
  #rates(stats, now) {
    const { generated_tokens: generated, computed_tokens: computed } = stats.totals;
    const read = computed - generated;
    const totals = this.#totals;
    if (totals.length > 0 && totals.at(-1).generated > generated) totals.length = 0;  // a new server
    totals.push({ at: now, generated, read });
    while (totals.length > 2 && totals[1].at <= now - RATE_OVER_MS) totals.shift();
    const seconds = (now - totals[0].at) / 1000;
    if (seconds < 0.1) return { generated: 0, read: 0 };
    return {
      generated: (generated - totals[0].generated) / seconds,
      read: Math.max(0, read - totals[0].read) / seconds,
    };
  }

  #drawHistory() {
    this.#drawCurve(this.nodes.history, HISTORY_SECONDS, true);
    if (this.nodes.pulse.offsetParent) this.#drawCurve(this.nodes.pulse, 30, false);
  }

  #drawCurve(canvas, seconds, labelled) {
    if (canvas.clientWidth === 0) return;
    const { context, width, height } = prepared(canvas);
    const style = getComputedStyle(canvas);
    const accent = style.getPropertyValue("accent-color");
    const top = labelled ? 16 : 2, bottom = height - 1;
    const now = performance.now();
    const points = this.#history.filter(({ at }) => at >= now - seconds * 1000 - 2000);
    const peak = Math.max(1, ...points.map((point) => point.generated));
    const x = (at) => width - (now - at) / (seconds * 1000) * width;
    const y = (value) => bottom - value / peak * (bottom - top);
    context.strokeStyle = context.fillStyle = style.color;
    context.globalAlpha = 0.18;
    context.fillRect(0, bottom, width, 1);
    if (points.length > 1) {
      context.beginPath();
      points.forEach((point, i) => context[i === 0 ? "moveTo" : "lineTo"](x(point.at), y(point.generated)));
      context.strokeStyle = context.fillStyle = accent;
      context.lineWidth = labelled ? 1.75 : 1.5;
      context.lineJoin = "round";
      context.globalAlpha = 1;
      context.stroke();
      context.lineTo(x(points.at(-1).at), bottom);
      context.lineTo(x(points[0].at), bottom);
      context.globalAlpha = 0.14;
      context.fill();
    }
    if (labelled && peak > 1) {
      context.globalAlpha = 1;
      context.fillStyle = style.color;
      context.font = `12px ${style.fontFamily}`;
      context.textAlign = "right";
      context.fillText(`peak ${rate(peak)}`, width, 10);
      context.textAlign = "left";
      context.fillText("last 2 min", 0, 10);
    }
    context.globalAlpha = 1;
  }
}
