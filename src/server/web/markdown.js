// The part of Markdown that models write, as DOM nodes. Text only ever becomes text nodes: nothing
// in an answer can become markup, a script or a request; links are followed by a click alone.

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])\s*(?:\1\s*){2,}$/;
const ITEM = /^(\s*)([-*+]|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const MAX_DEPTH = 12;

export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// An icon of icons.svg.
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `icons.svg#${name}`);
  svg.append(use);
  return svg;
}

// A button that copies what text() yields.
export function copyButton(text, label) {
  const words = element("span", {}, label);
  const button = element("button", { type: "button" }, icon("copy"), words);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    button.replaceChildren(icon("done"), element("span", {}, "Copied"));
    setTimeout(() => button.replaceChildren(icon("copy"), words), 1600);
  });
  return button;
}

// A fragment with the blocks of the text.
export function markdown(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(...blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0));
  return fragment;
}

function blocks(lines, depth) {
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (line.trim() === "") {
      ++at;
      continue;
    }
    const fence = FENCE.exec(line);
    if (fence) {
      let end = at + 1;
      while (end < lines.length && !closes(lines[end], fence[1])) ++end;
      nodes.push(code(lines.slice(at + 1, end).join("\n"), fence[2]));
      at = end + 1;
      continue;
    }
    const heading = HEADING.exec(line);
    if (heading) {
      nodes.push(element(`h${Math.min(3, heading[1].length)}`, {}, ...inline(heading[2])));
      ++at;
      continue;
    }
    if (RULE.test(line)) {
      nodes.push(element("hr"));
      ++at;
      continue;
    }
    if (QUOTE.test(line) && depth < MAX_DEPTH) {
      const inner = [];
      for (; at < lines.length && QUOTE.test(lines[at]); ++at) inner.push(QUOTE.exec(lines[at])[1]);
      nodes.push(element("blockquote", {}, ...blocks(inner, depth + 1)));
      continue;
    }
    if (ITEM.test(line) && depth < MAX_DEPTH) {
      const [node, next] = list(lines, at, depth);
      nodes.push(node);
      at = next;
      continue;
    }
    if (line.includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") &&
        TABLE_RULE.test(lines[at + 1])) {
      const [node, next] = table(lines, at);
      nodes.push(node);
      at = next;
      continue;
    }
    const paragraph = [line.trim()];
    for (++at; at < lines.length && !interrupts(lines[at], depth); ++at) paragraph.push(lines[at].trim());
    nodes.push(element("p", {}, ...withBreaks(paragraph)));
  }
  return nodes;
}

function closes(line, fence) {
  const rest = line.trim();
  return rest.length >= fence.length && rest === fence[0].repeat(rest.length);
}

// Whether a line ends the paragraph before it.
function interrupts(line, depth) {
  return line.trim() === "" || FENCE.test(line) || HEADING.test(line) || RULE.test(line) ||
    (depth < MAX_DEPTH && (QUOTE.test(line) || ITEM.test(line)));
}

function code(text, language) {
  const caption = element("figcaption", {}, element("span", {}, language || "text"), copyButton(() => text, "Copy"));
  return element("figure", { class: "code" }, caption,
                 element("pre", { tabindex: "0" }, element("code", {}, text)));
}

// A list beginning at a line: its node, and the line behind it. What is indented below an item
// belongs to it.
function list(lines, at, depth) {
  const [, indent, , number] = ITEM.exec(lines[at]);
  const node = number === undefined ? element("ul") : element("ol", { start: number });
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || item[1].length > indent.length + 1 || item[1].length < indent.length) break;
    if ((item[3] === undefined) !== (number === undefined)) break;
    const body = [item[4]];
    for (++at; at < lines.length; ++at) {
      const line = lines[at];
      const deeper = /^\s*/.exec(line)[0].length > indent.length + 1;
      if (line.trim() === "") {
        const next = lines[at + 1] ?? "";
        if (next.trim() === "" || /^\s*/.exec(next)[0].length <= indent.length + 1) break;
        body.push("");
      } else if (deeper || (!interrupts(line, depth) && body.at(-1) !== "")) {
        body.push(line.replace(new RegExp(`^\\s{0,${indent.length + 3}}`), ""));
      } else {
        break;
      }
    }
    const children = blocks(body, depth + 1);
    // A single paragraph is the item itself.
    const [first, ...rest] = children;
    if (first?.tagName === "P") node.append(element("li", {}, ...first.childNodes, ...rest));
    else node.append(element("li", {}, ...children));
    // Blank lines between items of one list.
    let next = at;
    while (next < lines.length && lines[next].trim() === "") ++next;
    if (next < lines.length && ITEM.exec(lines[next])?.[1].length === indent.length) at = next;
  }
  return [node, at];
}

function cells(line) {
  return line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, at) {
  const aligned = cells(lines[at + 1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left");
  const row = (line, name) => element("tr", {}, ...cells(line).map((cell, i) =>
    element(name, { class: aligned[i] ?? "left" }, ...inline(cell))));
  const head = element("thead", {}, row(lines[at], "th"));
  const body = element("tbody");
  for (at += 2; at < lines.length && lines[at].includes("|"); ++at) body.append(row(lines[at], "td"));
  return [element("div", { class: "table" }, element("table", {}, head, body)), at];
}

function withBreaks(lines) {
  return lines.flatMap((line, i) => i === 0 ? inline(line) : [element("br"), ...inline(line)]);
}

// What may stand inside a line, by how it begins.
const SPANS = [
  { pattern: /(`+)(.+?)\1(?!`)/y, make: (m) => element("code", {}, m[2].trim() || m[2]) },
  { pattern: /\*\*(?=\S)(.+?)(?<=\S)\*\*(?!\*)/y, make: (m, depth) => element("strong", {}, ...inline(m[1], depth)) },
  { pattern: /__(?=\S)(.+?)(?<=\S)__(?!\w)/y, make: (m, depth) => element("strong", {}, ...inline(m[1], depth)), word: true },
  { pattern: /~~(?=\S)(.+?)(?<=\S)~~/y, make: (m, depth) => element("s", {}, ...inline(m[1], depth)) },
  { pattern: /\*(?=[^\s*])(.+?)(?<=[^\s*])\*(?!\*)/y, make: (m, depth) => element("em", {}, ...inline(m[1], depth)) },
  { pattern: /_(?=[^\s_])(.+?)(?<=[^\s_])_(?!\w)/y, make: (m, depth) => element("em", {}, ...inline(m[1], depth)), word: true },
  { pattern: /!?\[([^\]]+)\]\((https?:\/\/[^\s()]+(?:\([^\s()]*\)[^\s()]*)*)\)/y, make: (m) => link(m[2], m[1]) },
  { pattern: /https?:\/\/[^\s<>()"']*[^\s<>()"'.,;:!?*_`]/y, make: (m) => link(m[0], m[0]), word: true },
];
const SPECIAL = /[`*_~![h\\]/g;

function link(address, text) {
  return element("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, text);
}

function inline(text, depth = 0) {
  if (depth >= MAX_DEPTH) return [text];
  const nodes = [];
  let plain = "";
  let at = 0;
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const special = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(at, special);
    at = special;
    if (at >= text.length) break;
    if (text[at] === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    const inWord = at > 0 && /\w/.test(text[at - 1]);
    const found = spanAt(text, at, inWord);
    if (found) {
      if (plain) nodes.push(plain);
      plain = "";
      nodes.push(found.span.make(found.match, depth + 1));
      at += found.match[0].length;
    } else {
      // The whole run, so that "****" is looked at once.
      const run = text[at] === "h" ? 1 : /^(.)\1*/.exec(text.slice(at))[0].length;
      plain += text.slice(at, at + run);
      at += run;
    }
  }
  if (plain) nodes.push(plain);
  return nodes;
}

function spanAt(text, at, inWord) {
  for (const span of SPANS) {
    if (span.word && inWord) continue;
    span.pattern.lastIndex = at;
    const match = span.pattern.exec(text);
    if (match) return { span, match };
  }
  return null;
}
