// A picture of the KV cache at work. Every square is a page, 16 tokens; every row of squares, which
// may run over several lines, is a sequence. Prompts fill as they are computed, then the answer is
// woven on, token by token; what comes from the prefix cache is there at once, as outlines. All of
// it is what /stats reports: only the movement between two reports is made up.

const PAGE_TOKENS = 16;
const SIZES = [20, 17, 14, 12, 10, 8, 7, 6, 5, 4, 3];  // of a square with the gap behind it
const COLUMNS = [1, 2, 3, 4, 6];
const GUTTER = 16;
const LEAST_ACROSS = 8;  // squares in a line, where there are several columns
const HEADROOM_TOKENS = 48;  // a row gets room for so many more, so that it rarely has to move
const GROW_AFTER_MS = 4000;  // squares become larger only once they could have been for so long
const GROW_HEADROOM_TOKENS = 192;
const FADE_MS = 900;
const APPEAR_MS = 300;
const GLOW_MS = 400;
const EASE_MS = 130;
const FRAME_MS = 30;
const GOLDEN_ANGLE = 137.508;

// Where rows stand: columns of lines of squares. A row keeps its place while it lives.
class Grid {
  constructor(width, height, size, columns) {
    this.size = size;
    this.columns = columns;
    this.pitch = size + Math.max(1, Math.round(size * 0.2));
    this.lines = Math.max(1, Math.floor((height + this.pitch - size) / this.pitch));
    this.across = Math.max(1, Math.floor(((width - GUTTER * (columns - 1)) / columns) / size));
    this.taken = Array.from({ length: columns }, () => new Uint8Array(this.lines));
  }

  linesFor(tokens) {
    return Math.max(1, Math.ceil(Math.ceil(tokens / PAGE_TOKENS) / this.across));
  }

  // The first place with so many free lines, taken; or null.
  take(lines) {
    for (let column = 0; column < this.columns; ++column) {
      for (let line = 0, free = 0; line < this.lines; ++line) {
        free = this.taken[column][line] ? 0 : free + 1;
        if (free === lines) {
          this.taken[column].fill(1, line + 1 - lines, line + 1);
          return { column, line: line + 1 - lines, lines };
        }
      }
    }
    return null;
  }

  // Lets a place have more lines behind it; false if they are taken.
  extend(place, lines) {
    const taken = this.taken[place.column];
    const begin = place.line + place.lines, end = place.line + lines;
    if (end > this.lines || taken.subarray(begin, end).includes(1)) return false;
    taken.fill(1, begin, end);
    place.lines = lines;
    return true;
  }

  release(place) {
    this.taken[place.column].fill(0, place.line, place.line + place.lines);
  }

  x(place) {
    return place.column * (this.across * this.size + GUTTER);
  }

  y(place) {
    return place.line * this.pitch;
  }
}

function tokensOf({ target }, headroom) {
  return target.prompt_tokens + target.generated_tokens + (target.running ? headroom : 0);
}

export class Loom {
  #rows = new Map();  // by sequence, in order of appearance
  #grid = null;
  #largerSince = 0;
  #frame = 0;
  #drawn = 0;
  #width = 0;
  #height = 0;
  #hovered = null;

  // detail: where the sequence under the pointer is described.
  constructor(canvas, detail) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.detail = detail;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.#resize()).observe(canvas);
    canvas.addEventListener("pointermove", (event) => this.#point(event));
    canvas.addEventListener("pointerdown", (event) => this.#point(event));
    canvas.addEventListener("pointerleave", () => { this.#hovered = null; this.#describe(); });
    this.#describe();
  }

  // How many sequences the picture has no room for.
  get hidden() {
    return [...this.#rows.values()].filter((row) => !row.ended && !row.place).length;
  }

  // Takes the sequences of a report.
  update(sequences) {
    const now = performance.now();
    const present = new Set();
    for (const sequence of sequences) {
      const key = `${sequence.request}.${sequence.choice}`;
      present.add(key);
      let row = this.#rows.get(key);
      if (!row || row.ended) {
        const start = sequence.running ? sequence.cached_tokens : 0;
        row = { hue: (sequence.request * GOLDEN_ANGLE + sequence.choice * 40) % 360, born: now, moved: 0, ended: 0,
                pulse: 0, computed: start, generated: 0, place: null };
        if (this.#rows.get(key)?.place) this.#grid.release(this.#rows.get(key).place);
        this.#rows.set(key, row);
      }
      if (row.target && sequence.generated_tokens > row.target.generated_tokens) row.pulse = now;
      row.target = sequence;
    }
    for (const [key, row] of this.#rows) {
      if (!present.has(key) && !row.ended) row.ended = now;
    }
    this.#layout(now);
    this.#describe();
    this.#wake();
  }

  // Draws anew, for instance in other colours.
  redraw() {
    this.#drawn = 0;
    this.#wake();
  }

  #resize() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const scale = devicePixelRatio || 1;
    this.#width = width;
    this.#height = height;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.#grid = null;
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.#layout(performance.now());
    this.redraw();
  }

  // Gives every row a place: in the grid there is, or in one that holds all of them.
  #layout(now) {
    if (this.#width < 1) return;
    const rows = [...this.#rows.values()].filter((row) => !row.ended);
    const grid = this.#grid;
    const larger = !grid || this.#rows.size === 0 ? SIZES[0] : this.#sizeFor(rows, GROW_HEADROOM_TOKENS).size;
    if (grid && larger <= grid.size) this.#largerSince = 0;
    else this.#largerSince ||= now;
    const grow = !grid || this.#rows.size === 0 || (this.#largerSince > 0 && now - this.#largerSince > GROW_AFTER_MS);
    if (!grow && rows.every((row) => this.#settle(row, now))) return;
    this.#largerSince = 0;
    this.#grid = this.#sizeFor(rows, HEADROOM_TOKENS);
    for (const [key, row] of this.#rows) {
      if (row.ended) this.#rows.delete(key);
      else row.place = null;
    }
    for (const row of rows) this.#settle(row, now);
  }

  // The grid with the largest squares that has room for all rows; else the one with the smallest.
  #sizeFor(rows, headroom) {
    let grid = null;
    for (const size of SIZES) {
      for (const columns of COLUMNS) {
        const candidate = new Grid(this.#width, this.#height, size, columns);
        if (columns > 1 && candidate.across < LEAST_ACROSS) break;
        grid = candidate;
        if (rows.every((row) => grid.take(grid.linesFor(tokensOf(row, headroom))))) {
          return new Grid(this.#width, this.#height, size, columns);
        }
      }
    }
    return new Grid(this.#width, this.#height, grid.size, grid.columns);
  }

  // Sees to it that a row has room in the grid; false if there is none.
  #settle(row, now) {
    const lines = this.#grid.linesFor(tokensOf(row, row.place ? 1 : HEADROOM_TOKENS));
    if (row.place && (row.place.lines >= lines || this.#grid.extend(row.place, lines))) return true;
    if (row.place) this.#grid.release(row.place);
    row.place = this.#grid.take(this.#grid.linesFor(tokensOf(row, HEADROOM_TOKENS)));
    row.moved = now;
    return row.place !== null;
  }

  #wake() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame((now) => this.#animate(now));
  }

  #animate(now) {
    this.#frame = 0;
    if (now - this.#drawn < FRAME_MS && !this.still.matches) return this.#wake();
    const share = this.still.matches || this.#drawn === 0 ? 1 : 1 - Math.exp(-(now - this.#drawn) / EASE_MS);
    this.#drawn = now;
    let moving = false;
    const towards = (from, to) => {
      if (Math.abs(to - from) < 0.05) return to;
      moving = true;
      return from + (to - from) * share;
    };
    for (const [key, row] of this.#rows) {
      if (row.ended && (this.still.matches || now - row.ended > FADE_MS)) {
        if (row.place) this.#grid.release(row.place);
        this.#rows.delete(key);
        continue;
      }
      const { target } = row;
      row.computed = towards(Math.min(row.computed, target.computed_tokens), Math.min(target.computed_tokens, target.prompt_tokens));
      row.generated = towards(Math.min(row.generated, target.generated_tokens), target.generated_tokens);
      moving ||= row.ended > 0 || now - row.pulse < GLOW_MS || now - Math.max(row.born, row.moved) < APPEAR_MS;
    }
    this.#draw(now);
    if (moving && !this.still.matches) this.#wake();
  }

  #draw(now) {
    const { context } = this;
    const dark = getComputedStyle(this.canvas).colorScheme === "dark" ||
      (getComputedStyle(this.canvas).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    const ink = dark ? "255 255 255" : "20 20 24";
    context.clearRect(0, 0, this.#width, this.#height);
    for (const row of this.#rows.values()) {
      if (!row.place) continue;
      const since = (moment) => this.still.matches ? 1 : Math.min(1, (now - moment) / APPEAR_MS);
      const age = since(row.born) * (0.5 + 0.5 * since(row.moved));
      const fade = row.ended ? 1 - (now - row.ended) / FADE_MS : 1;
      const dim = this.#hovered && this.#hovered !== row ? 0.45 : 1;
      this.#drawRow(row, Math.max(0, fade * age * dim), now, dark, ink);
    }
    context.globalAlpha = 1;
  }

  #drawRow(row, alpha, now, dark, ink) {
    const { context } = this;
    const { size, across, pitch } = this.#grid;
    const left = this.#grid.x(row.place), top = this.#grid.y(row.place);
    const inner = size - (size >= 10 ? 3 : size >= 6 ? 2 : 1);
    const radius = size >= 10 ? 2.5 : size >= 7 ? 1.5 : 0;
    const { target } = row;
    const prompt = target.prompt_tokens;
    const total = Math.max(prompt + row.generated, target.pages * PAGE_TOKENS);
    const color = (lightness, opacity) =>
      `oklch(${lightness} ${dark ? 0.115 : 0.135} ${row.hue.toFixed(1)} / ${opacity})`;
    const base = dark ? 0.76 : 0.62;

    // Runs of tokens [begin, end), cut into the squares that they lie in.
    const paint = (begin, end, style, outlined = false) => {
      if (end - begin < 0.01) return;
      context.beginPath();
      for (let page = Math.floor(begin / PAGE_TOKENS); page * PAGE_TOKENS < end; ++page) {
        const from = Math.max(begin - page * PAGE_TOKENS, 0) / PAGE_TOKENS;
        const to = Math.min((end - page * PAGE_TOKENS) / PAGE_TOKENS, 1);
        const x = left + (page % across) * size + from * inner;
        const y = top + Math.floor(page / across) * pitch;
        if (outlined) context.roundRect(x + 0.6, y + 0.6, (to - from) * inner - 1.2, inner - 1.2, radius);
        else if (radius > 0 && from === 0 && to === 1) context.roundRect(x, y, inner, inner, radius);
        else context.rect(x, y, (to - from) * inner, inner);
      }
      if (outlined) {
        context.strokeStyle = style;
        context.lineWidth = 1.2;
        context.stroke();
      } else {
        context.fillStyle = style;
        context.fill();
      }
    };

    context.globalAlpha = alpha;
    const computed = Math.min(prompt, row.computed);
    const cached = Math.min(target.running || row.ended ? target.cached_tokens : 0, computed);
    paint(computed, Math.ceil(total / PAGE_TOKENS) * PAGE_TOKENS, `rgb(${ink} / ${target.running ? 0.1 : 0.07})`);
    if (size >= 6) paint(0, cached, color(base, 0.75), true);
    else paint(0, cached, color(base, 0.25));
    paint(cached, computed, color(base, 0.42));
    paint(prompt, prompt + row.generated, color(base, 1));
    // The page that is being written lights up with each token.
    const glow = this.still.matches ? 0 : Math.max(0, 1 - (now - row.pulse) / GLOW_MS);
    if (row.generated > 0 && !row.ended) {
      const head = Math.max(prompt, Math.floor((prompt + row.generated - 0.01) / PAGE_TOKENS) * PAGE_TOKENS);
      paint(head, prompt + row.generated, color(dark ? 0.9 : 0.5, 0.35 + 0.65 * glow));
    }
  }

  #point(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    const x = event.clientX - left, y = event.clientY - top;
    const grid = this.#grid;
    this.#hovered = [...this.#rows.values()].find((row) => {
      if (row.ended || !row.place) return false;
      const right = grid.x(row.place) + grid.across * grid.size, bottom = grid.y(row.place) + row.place.lines * grid.pitch;
      return x >= grid.x(row.place) && x < right && y >= grid.y(row.place) && y < bottom;
    }) ?? null;
    this.#describe();
    this.redraw();
  }

  #describe() {
    const row = this.#hovered;
    if (!row || row.ended) {
      this.detail.textContent = "A square is a page of 16 tokens, a row a sequence.";
      return;
    }
    const { target } = row;
    const words = [`Prompt of ${target.prompt_tokens}`];
    if (target.cached_tokens > 0) words[0] += ` (${target.cached_tokens} cached)`;
    if (!target.running) words.push("waiting");
    else if (target.generated_tokens > 0) words.push(`${target.generated_tokens} generated`);
    else words.push(`${Math.min(target.computed_tokens, target.prompt_tokens)} computed`);
    words.push(`${target.pages} ${target.pages === 1 ? "page" : "pages"}`);
    this.detail.textContent = words.join(" · ");
  }
}
