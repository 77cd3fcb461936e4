// The page: connects the conversation, the engine's view, the dialogs and the keyboard.

import { apiKey, onKeyWanted, setApiKey } from "./api.js";
import { Conversation } from "./chat.js";
import { EngineView } from "./engine.js";
import { bindSettings } from "./settings.js";

const THEME = "atom.theme";
const find = (id) => document.getElementById(id);

// Light and dark
const stored = localStorage.getItem(THEME);
if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem(THEME, theme);
  engine.redraw();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => engine.redraw());

// The API key
function askForKey() {
  const dialog = find("key-dialog");
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      const key = dialog.returnValue === "ok" ? find("key-entry").value.trim() : "";
      find("key-entry").value = "";
      if (key) useKey(key);
      resolve(key || null);
    }, { once: true });
    dialog.showModal();
  });
}

function useKey(key) {
  setApiKey(key);
  engine.poll();
}
find("key-dialog").querySelector(".cancel").addEventListener("click", () => find("key-dialog").close());
find("api-key").addEventListener("change", (event) => useKey(event.target.value.trim()));

const engine = new EngineView(find, (name) => {
  find("model").textContent = name;
  document.title = `${name} · Atom`;
}, onKeyWanted(askForKey));

// The conversation
const prompt = find("prompt");
const conversation = new Conversation(
  { list: find("messages"), scroll: find("scroll"), welcome: find("welcome"), announce: find("announce") },
  (busy) => {
    find("send").hidden = busy;
    find("stop").hidden = !busy;
    engine.poll();
  });

function fitPrompt() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
  find("send").disabled = prompt.value.trim() === "";
}

function send() {
  const text = prompt.value.trim();
  if (text === "" || conversation.busy) return;
  prompt.value = "";
  fitPrompt();
  conversation.send(text);
}

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
prompt.addEventListener("input", fitPrompt);
prompt.addEventListener("keydown", async (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    send();
  } else if (event.key === "ArrowUp" && prompt.value === "") {
    event.preventDefault();
    prompt.value = await conversation.takeBack();
    fitPrompt();
  }
});
find("stop").addEventListener("click", () => conversation.stop());
for (const button of find("suggestions").querySelectorAll("button")) {
  button.addEventListener("click", () => {
    conversation.send(button.textContent);
    prompt.focus();
  });
}

async function newConversation() {
  await conversation.clear();
  prompt.focus();
}

// The engine on a small screen
function showEngine(shown) {
  find("engine").classList.toggle("open", shown);
  find("show-engine").setAttribute("aria-expanded", String(shown));
  if (shown) engine.redraw();
  (shown ? find("hide-engine") : prompt).focus();
}
find("show-engine").addEventListener("click", () => showEngine(true));
find("hide-engine").addEventListener("click", () => showEngine(false));

// Dialogs
bindSettings(find("settings"));
function openSettings() {
  find("api-key").value = apiKey();
  find("settings").showModal();
}
const openHelp = () => find("help").showModal();
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();  // the backdrop
  });
}
find("open-settings").addEventListener("click", openSettings);
find("open-help").addEventListener("click", openHelp);
find("toggle-theme").addEventListener("click", toggleTheme);
find("new-chat").addEventListener("click", newConversation);

// The keyboard. Letters by the key's place, so that Option on a Mac does not make others of them.
const SHORTCUTS = {
  KeyN: newConversation,
  KeyR: () => conversation.regenerate(),
  KeyS: openSettings,
  KeyT: toggleTheme,
  KeyE: () => showEngine(!find("engine").classList.contains("open")),
};
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const writing = event.target.matches("input, textarea");
  if (event.key === "Escape") {
    if (find("engine").classList.contains("open")) showEngine(false);
    else conversation.stop();
  } else if (event.altKey && !event.ctrlKey && !event.metaKey && SHORTCUTS[event.code]) {
    event.preventDefault();
    SHORTCUTS[event.code]();
  } else if (event.key === "?" && !(writing && event.target.value !== "")) {
    event.preventDefault();
    openHelp();
  }
});

fitPrompt();
