// Talking to the server: calls, the event stream, and the token for both.
//
// The token comes from the address (`/#token=…`) or from the page's dialog, and stays in this tab.

const TOKEN_KEY = "setpoint.token";
/** The server sends something at least every 10 s; after so long without anything the stream is dead. */
const SILENCE_MS = 30_000;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8_000;

/** An answer that is not a success, in the server's words. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Moves a token from the address into the tab's storage, so that it is neither seen nor bookmarked. */
export function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) {
    setToken(token);
    history.replaceState(null, "", location.pathname + location.search);
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

function headers(extra) {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token === null ? extra : { ...extra, Authorization: `Bearer ${token}` };
}

/** The address of a policy, whose name may have a slash that stays one. */
export function policyPath(name, action = "") {
  const path = name.split("/").map(encodeURIComponent).join("/");
  return `/v1/policies/${path}${action && `/${action}`}`;
}

/** One call; gives the JSON of the answer, or null where there is none. */
export async function call(method, path, body) {
  const changing = method !== "GET";
  const response = await fetch(path, {
    method,
    headers: headers(changing ? { "Content-Type": "application/json" } : {}),
    body: changing && body !== undefined ? JSON.stringify(body) : undefined,
    cache: "no-store",
  });
  const text = await response.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    // A proxy's own error page; the status says enough.
  }
  // /readyz says what is wrong with a status of 503 and a body that is no problem+json.
  if (!response.ok && data?.problems === undefined) {
    throw new ApiError(response.status, data?.detail ?? `${response.status} ${response.statusText}`);
  }
  return data;
}

/**
 * Follows /v1/events for as long as the page lives, coming back after each loss.
 * `EventSource` cannot send a token, so the stream is read by hand.
 */
export async function follow({ onOpen, onEvent, onLost, onTokenNeeded }) {
  let delay = FIRST_RETRY_MS;
  for (;;) {
    let why = "the server closed the stream";
    try {
      await readStream((name, data) => onEvent(name, data), () => {
        delay = FIRST_RETRY_MS;
        onOpen();
      });
    } catch (error) {
      why = error.message;
      if (error.status === 401) {
        await onTokenNeeded(error.message);
        continue;
      }
    }
    onLost(why, delay);
    await new Promise((resolve) => setTimeout(resolve, delay));
    delay = Math.min(delay * 2, LAST_RETRY_MS);
  }
}

async function readStream(onEvent, onOpen) {
  const abort = new AbortController();
  const silence = () => setTimeout(() => abort.abort(new Error("the server went silent")), SILENCE_MS);
  let timer = silence();
  try {
    const response = await fetch("/v1/events", {
      headers: headers({ Accept: "text/event-stream" }),
      cache: "no-store",
      signal: abort.signal,
    });
    if (!response.ok) {
      const problem = await response.json().catch(() => null);
      throw new ApiError(response.status, problem?.detail ?? response.statusText);
    }
    onOpen();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = silence();
      const blocks = (buffer + value).split("\n\n");
      buffer = blocks.pop();
      for (const block of blocks) dispatch(block, onEvent);
    }
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

function dispatch(block, onEvent) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (data.length > 0) onEvent(name, JSON.parse(data.join("\n")));
}
