// The server's API as this page needs it.

const KEY = "atom.api-key";  // of this tab only
let askForKey = null;

// `ask` is called when the server wants a key; it resolves to one, or to null. Yields a function that
// asks at once.
export function onKeyWanted(ask) {
  let asking = null;  // one question at a time, whoever wants the answer
  askForKey = () => asking ??= ask().finally(() => { asking = null; });
  return askForKey;
}

export function apiKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

// What went wrong, in words for the person at the page.
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function errorOf(response) {
  let message = "";
  try {
    message = (await response.json()).error?.message ?? "";
  } catch { /* a body that is not ours */ }
  if (response.status === 429 || response.status === 503) {
    const seconds = Number(response.headers.get("retry-after"));
    const when = seconds > 0 ? ` Try again in ${seconds} s.` : " Try again in a moment.";
    return new ApiError((message || "The server is busy").replace(/\.?$/, ".") + when, response.status);
  }
  return new ApiError(message || `The server answered with status ${response.status}.`, response.status);
}

// fetch with the key; asks for one and tries again as long as the server refuses it. quiet: a
// refusal is an error at once.
async function request(path, { quiet = false, ...options } = {}) {
  for (;;) {
    const headers = { ...options.headers };
    const key = apiKey();
    if (key) headers.authorization = `Bearer ${key}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (problem) {
      if (problem.name === "AbortError") throw problem;
      throw new ApiError("The server cannot be reached.");
    }
    if (response.ok) return response;
    const problem = await errorOf(response);
    if (response.status !== 401 || quiet || !askForKey) throw problem;
    const entered = await askForKey();
    if (!entered) throw problem;
    setApiKey(entered);
  }
}

export async function getStats(signal) {
  return (await request("/stats", { quiet: true, signal })).json();
}

// The data of the events in a stream of server-sent events. Whoever stops listening ends the stream.
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const ends = /\r?\n\r?\n/g;
      let begin = 0;
      for (let end = ends.exec(text); end; end = ends.exec(text)) {
        const lines = text.slice(begin, end.index).split(/\r?\n/);
        begin = ends.lastIndex;
        const data = lines.filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(line[5] === " " ? 6 : 5));
        if (data.length > 0) yield data.join("\n");
      }
      text = text.slice(begin);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Streams an answer to `messages`. Yields {text} for pieces of it, at the end {usage} and {reason}
// if the server tells them.
export async function* chat(messages, sampling, signal) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages, stream: true, stream_options: { include_usage: true }, ...sampling }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new ApiError(event.error.message ?? "The answer broke off.");
    if (event.usage) yield { usage: event.usage };
    const choice = event.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) yield { reason: choice.finish_reason };
  }
  throw new ApiError("The answer broke off.");
}
