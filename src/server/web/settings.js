// How answers are made: the system prompt and the sampling, kept in this browser.

const STORE = "atom.settings";

// An empty field leaves the choice to the server.
const KNOBS = [
  { name: "temperature", label: "Temperature", hint: "0 always takes the likeliest token", min: 0, max: 2, step: 0.05, initial: 0.7 },
  { name: "top_p", label: "Top p", hint: "The likeliest tokens that make up this share", min: 0.01, max: 1, step: 0.01, initial: 0.95 },
  { name: "top_k", label: "Top k", hint: "At most so many tokens to choose from", min: 0, max: 100000, step: 1, initial: "" },
  { name: "min_p", label: "Min p", hint: "At least this share of the likeliest one", min: 0, max: 1, step: 0.01, initial: "" },
  { name: "repetition_penalty", label: "Repetition penalty", hint: "Above 1: repeats become less likely", min: 0.5, max: 2, step: 0.05, initial: "" },
  { name: "max_tokens", label: "Longest answer", hint: "In tokens", min: 1, max: 1000000, step: 1, initial: 512 },
  { name: "seed", label: "Seed", hint: "The same one gives the same answer again", min: 0, max: 2 ** 31, step: 1, initial: "" },
];

const initial = () => ({ system: "", ...Object.fromEntries(KNOBS.map((knob) => [knob.name, knob.initial])) });

let values = initial();
try {
  values = { ...values, ...JSON.parse(localStorage.getItem(STORE) ?? "{}") };
} catch { /* what is stored is not ours */ }

function keep() {
  localStorage.setItem(STORE, JSON.stringify(values));
}

export function systemPrompt() {
  return values.system.trim();
}

// The members of a request.
export function sampling() {
  return Object.fromEntries(KNOBS.map(({ name }) => [name, values[name]]).filter(([, value]) => value !== ""));
}

// Connects the form's fields with the values.
export function bindSettings(dialog) {
  const system = dialog.querySelector("#system");
  const fields = KNOBS.map((knob) => {
    const row = document.createElement("div");
    row.className = "knob";
    const label = document.createElement("label");
    label.htmlFor = `knob-${knob.name}`;
    label.textContent = knob.label;
    const hint = document.createElement("small");
    hint.id = `hint-${knob.name}`;
    hint.textContent = knob.hint;
    const field = document.createElement("input");
    Object.assign(field, { id: label.htmlFor, type: "number", min: knob.min, max: knob.max, step: "any", placeholder: "auto" });
    field.setAttribute("aria-describedby", hint.id);
    field.addEventListener("input", () => {
      if (!field.checkValidity()) return;
      values[knob.name] = field.value === "" ? "" : knob.step === 1 ? Math.round(field.valueAsNumber) : field.valueAsNumber;
      keep();
    });
    row.append(label, hint, field);
    dialog.querySelector("#sampling").append(row);
    return [knob.name, field];
  });
  const show = () => {
    system.value = values.system;
    for (const [name, field] of fields) field.value = values[name];
  };
  system.addEventListener("input", () => {
    values.system = system.value;
    keep();
  });
  dialog.querySelector("#reset-settings").addEventListener("click", () => {
    values = initial();
    keep();
    show();
  });
  show();
}
