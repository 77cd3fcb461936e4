// The conversation: what was said, the answer that is being made, and how both are shown.

import { ApiError, chat } from "./api.js";
import { copyButton, element, icon, markdown } from "./markdown.js";
import { sampling, systemPrompt } from "./settings.js";

const STORE = "atom.conversation";  // of this tab
const DRAW_EVERY_MS = 50;

const number = new Intl.NumberFormat("en");

// One answer while it is made, and its figures.
class Answer {
  text = "";
  started = performance.now();
  first = 0;
  last = 0;
  pieces = 0;
  usage = null;
  reason = null;

  add(text) {
    this.last = performance.now();
    if (this.pieces++ === 0) this.first = this.last;
    this.text += text;
  }

  // "142 tokens, 58 a second, the first after 120 ms"
  figures() {
    const tokens = this.usage?.completion_tokens ?? this.pieces;
    if (this.pieces === 0) return "";
    const words = [`${number.format(tokens)} ${tokens === 1 ? "token" : "tokens"}`];
    const seconds = (this.last - this.first) / 1000;
    if (tokens > 1 && seconds > 0) words.push(`${rate((tokens - 1) / seconds)} tok/s`);
    const wait = this.first - this.started;
    words.push(`first after ${wait < 1000 ? `${Math.round(wait)} ms` : `${(wait / 1000).toFixed(1)} s`}`);
    return words.join(" · ");
  }
}

function rate(value) {
  return value >= 100 ? number.format(Math.round(value)) : value.toFixed(1);
}

const ENDINGS = { length: "stopped at its longest", stopped: "stopped", error: "failed" };

export class Conversation {
  #messages = [];  // {role, content, figures?, ending?}
  #abort = null;
  #running = null;

  // nodes: list, scroll, welcome, announce. onBusy(busy) is told when an answer begins and ends.
  constructor(nodes, onBusy) {
    this.nodes = nodes;
    this.onBusy = onBusy;
    try {
      const stored = JSON.parse(sessionStorage.getItem(STORE) ?? "[]");
      if (Array.isArray(stored)) {
        this.#messages = stored.filter((m) => ["user", "assistant"].includes(m?.role) && typeof m.content === "string");
      }
    } catch { /* what is stored is not ours */ }
    this.#show();
  }

  get busy() {
    return this.#abort !== null;
  }

  async send(text) {
    await this.stop();
    this.#messages.push({ role: "user", content: text });
    await this.#answer();
  }

  async regenerate() {
    if (!this.#messages.some((message) => message.role === "user")) return;
    await this.stop();
    if (this.#messages.at(-1).role === "assistant") this.#messages.pop();
    await this.#answer();
  }

  // Takes the last message and all behind it back; yields its text.
  async takeBack() {
    await this.stop();
    const at = this.#messages.findLastIndex((message) => message.role === "user");
    if (at < 0) return "";
    const [message] = this.#messages.splice(at);
    this.#keep();
    this.#show();
    return message.content;
  }

  // Ends the answer that is being made; what there is of it stays.
  async stop() {
    this.#abort?.abort();
    await this.#running;
  }

  async clear() {
    await this.stop();
    this.#messages = [];
    this.#keep();
    this.#show();
  }

  #keep() {
    sessionStorage.setItem(STORE, JSON.stringify(this.#messages));
  }

  #answer() {
    this.#running = this.#stream();
    return this.#running;
  }

  async #stream() {
    const abort = this.#abort = new AbortController();
    this.onBusy(true);
    this.#show();
    const system = systemPrompt();
    const messages = this.#messages.map(({ role, content }) => ({ role, content }));
    if (system) messages.unshift({ role: "system", content: system });

    const answer = new Answer();
    const body = element("div", { class: "prose" }, waiting());
    const footer = element("footer");
    const item = element("li", { class: "message assistant", "aria-busy": "true" }, body, footer);
    this.nodes.list.append(item);
    this.#follow(true);
    let drawn = 0, timer = 0, problem = null;
    const draw = () => {
      clearTimeout(timer);
      timer = 0;
      drawn = performance.now();
      if (answer.text) body.replaceChildren(markdown(answer.text));
      footer.replaceChildren(element("span", { class: "figures" }, answer.figures()));
      this.#follow();
    };
    try {
      for await (const { text, usage, reason } of chat(messages, sampling(), abort.signal)) {
        if (text) answer.add(text);
        answer.usage = usage ?? answer.usage;
        answer.reason = reason ?? answer.reason;
        timer ||= setTimeout(draw, Math.max(0, DRAW_EVERY_MS - (performance.now() - drawn)));
      }
    } catch (caught) {
      if (caught.name !== "AbortError" && !(caught instanceof ApiError)) console.error(caught);
      if (caught.name === "AbortError") answer.reason = "stopped";
      else problem = caught instanceof ApiError ? caught.message : "The answer cannot be read.";
    }
    draw();
    this.#abort = null;
    item.remove();
    if (answer.text) {
      this.#messages.push({ role: "assistant", content: answer.text, figures: answer.figures(),
                            ending: problem ? ENDINGS.error : ENDINGS[answer.reason] ?? "" });
    }
    this.#keep();
    this.#show(problem ?? (answer.text ? null : "The answer is empty."));
    this.nodes.announce.textContent = problem ?? `Answered. ${answer.text.slice(0, 400)}`;
    this.onBusy(false);
  }

  // Draws the whole conversation; trouble: what went wrong at its end.
  #show(trouble = null) {
    const items = this.#messages.map((message, i) =>
      message.role === "user" ? element("li", { class: "message user" }, message.content)
        : this.#answerItem(message, i === this.#messages.length - 1 && !this.busy));
    if (trouble) {
      const again = element("button", { type: "button" }, icon("again"), "Try again");
      again.addEventListener("click", () => this.regenerate());
      items.push(element("li", { class: "message assistant" },
                         element("p", { class: "trouble", role: "alert" }, trouble), element("footer", {}, again)));
    }
    this.nodes.list.replaceChildren(...items);
    this.nodes.welcome.hidden = items.length > 0;
    this.#follow(true);
  }

  #answerItem(message, last) {
    const footer = element("footer", {}, copyButton(() => message.content, "Copy"));
    if (last) {
      const again = element("button", { type: "button", title: "Another answer (Alt+R)" }, icon("again"),
                            element("span", {}, "Again"));
      again.addEventListener("click", () => this.regenerate());
      footer.append(again);
    }
    const figures = [message.ending, message.figures].filter(Boolean).join(" · ");
    footer.append(element("span", { class: "figures" }, figures));
    return element("li", { class: "message assistant" },
                   element("div", { class: "prose" }, markdown(message.content)), footer);
  }

  // Keeps the end in view, unless the reader has scrolled away from it.
  #follow(always = false) {
    const { scroll } = this.nodes;
    const away = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    if (always || away < 120) scroll.scrollTop = scroll.scrollHeight;
  }
}

function waiting() {
  return element("span", { class: "thinking", role: "img", "aria-label": "Waiting for the first token" },
                 element("i"), element("i"), element("i"));
}
