// The page: keeps the policies as the server tells of them, and draws those that are on the screen.
//
// Events only mark policies as changed; drawing happens at most once a frame, for visible cards, so that hundreds of
// policies cost no more than the few that one can see.

import { Card, troubles } from "/card.js";
import { call, follow, policyPath, setToken, takeTokenFromAddress } from "/client.js";
import { timeOfDay } from "/chart.js";

/** Points kept of a policy: ten minutes at one a second, with some to spare. */
const MAX_POINTS = 700;
/** Cards made at once; a button asks for more. */
const PAGE_SIZE = 100;
const SLOW_POLL_MS = 5_000;

const by = (id) => document.getElementById(id);
const main = by("policies");

/** Every policy by name: { name, serial, policy, points, article, card, visible, loaded, held }. */
const entries = new Map();
const changed = new Set();
let limit = PAGE_SIZE;
let serial = 0;
let frame = 0;
let listTimer = 0;
let lastHeard = Date.now();
let lastSync = 0;
let streamOpen = false;
/** How far the server's clock is ahead of ours. */
let skew = 0;

const observer = new IntersectionObserver(onVisible, { rootMargin: "400px" });
const windowMs = () => Number(by("window").value) * 1000;

function pointOf(policy) {
  return {
    at: Date.parse(policy.last_tick),
    kind: policy.sample.kind,
    value: policy.sample.kind === "value" ? policy.sample.value : null,
    setpoint: policy.setpoint,
    running: policy.tasks.running,
    in_flight: policy.tasks.in_flight,
    acted: policy.acted,
  };
}

/** Takes a policy's newest state. */
function take(policy) {
  let entry = entries.get(policy.name);
  if (entry === undefined) {
    serial += 1;
    entry = { name: policy.name, serial, policy, points: [], article: null, card: null, visible: false, loaded: false, held: "" };
    entries.set(policy.name, entry);
    scheduleList();
  }
  entry.policy = policy;
  if (!policy.script.error) entry.held = "";
  changed.add(entry);
  scheduleFrame();
  return entry;
}

function onTick(policy) {
  const entry = take(policy);
  if (!policy.last_tick) return;
  const point = pointOf(policy);
  const offset = point.at - Date.now();
  if (Math.abs(offset - skew) > 3_000) skew = offset;
  addPoints(entry, [point]);
}

function addPoints(entry, points) {
  for (const point of points) {
    const last = entry.points.at(-1);
    if (last === undefined || point.at > last.at) entry.points.push(point);
  }
  if (entry.points.length > MAX_POINTS) entry.points.splice(0, entry.points.length - MAX_POINTS);
}

/** Reads what the server remembers of a policy. */
async function loadHistory(entry) {
  if (entry.loaded) return;
  entry.loaded = true;
  try {
    const { points } = await call("GET", policyPath(entry.name, "history"));
    const remembered = points.map((point) => ({ ...point, at: Date.parse(point.at) }));
    const all = new Map([...remembered, ...entry.points].map((point) => [point.at, point]));
    entry.points = [...all.values()].sort((a, b) => a.at - b.at).slice(-MAX_POINTS);
    changed.add(entry);
    scheduleFrame();
  } catch {
    // The chart then begins with the next tick; a lost connection asks again when it is back.
    entry.loaded = false;
  }
}

function onVisible(records) {
  for (const record of records) {
    const entry = entries.get(record.target.dataset.policy);
    if (entry === undefined || entry.article !== record.target) continue;
    entry.visible = record.isIntersecting;
    if (entry.visible) {
      entry.card ??= new Card(entry.article, entry, take);
      changed.add(entry);
      loadHistory(entry);
    }
  }
  scheduleFrame();
}

function scheduleFrame() {
  if (frame === 0) frame = requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  const now = Date.now() + skew;
  for (const entry of changed) {
    if (entry.visible && entry.card) entry.card.render(now, windowMs());
  }
  changed.clear();
}

const filters = {
  all: () => true,
  attention: (policy) => troubles(policy).length > 0,
  held: (policy) => Boolean(policy.paused || policy.override),
  active: (policy) => policy.acted !== 0 || policy.tasks.in_flight > 0 || policy.tasks.killing > 0,
};

function scheduleList() {
  if (listTimer === 0) listTimer = setTimeout(list, 0);
}

/** Puts the articles of the wanted policies into the page, in the order of their names. */
function list() {
  clearTimeout(listTimer);
  listTimer = 0;
  const text = by("search").value.trim().toLowerCase();
  const wanted = filters[by("filter").value];
  const matching = [...entries.values()]
    .filter((entry) => entry.name.toLowerCase().includes(text) && wanted(entry.policy))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const shown = matching.slice(0, limit);
  const keep = new Set(shown);
  for (const entry of entries.values()) if (entry.article && !keep.has(entry)) dropArticle(entry);
  by("empty").hidden = shown.length > 0;
  by("empty").textContent = entries.size === 0 ? "There are no policies." : "No policy matches.";
  let before = null;
  for (const entry of shown) {
    entry.article ??= makeArticle(entry);
    const place = before === null ? main.firstElementChild : before.nextElementSibling;
    if (place !== entry.article) main.insertBefore(entry.article, place);
    before = entry.article;
  }
  by("shown").textContent = `${matching.length} of ${entries.size} policies`;
  by("more").hidden = matching.length <= limit;
  by("more").textContent = `Show more (${matching.length - shown.length} left)`;
}

function makeArticle(entry) {
  const article = document.createElement("article");
  article.dataset.policy = entry.name;
  article.setAttribute("aria-label", entry.name);
  observer.observe(article);
  return article;
}

function dropArticle(entry) {
  observer.unobserve(entry.article);
  entry.article.remove();
  entry.article = null;
  entry.card = null;
  entry.visible = false;
}

/** Reads the whole list: after each connection, and when policies came or went. */
async function readAll() {
  const { policies } = await call("GET", "/v1/policies");
  const names = new Set(policies.map((policy) => policy.name));
  for (const entry of [...entries.values()]) {
    if (names.has(entry.name)) continue;
    if (entry.article) dropArticle(entry);
    entries.delete(entry.name);
  }
  for (const policy of policies) take(policy);
  list();
}

async function readReadiness() {
  try {
    const { status, problems } = await call("GET", "/readyz");
    const texts = Object.entries(problems).map(([name, text]) => `${name}: ${text}`);
    const more = texts.length > 3 ? `; and ${texts.length - 3} more` : "";
    by("readiness").textContent = status === "ready" ? "" : `⚠ ${status}: ${texts.slice(0, 3).join("; ")}${more}`;
  } catch {
    by("readiness").textContent = "";
  }
}

function onOpen() {
  setConnection("live", "Live");
  streamOpen = true;
  lastSync = 0;
  resync();
}

let resyncTimer = 0;
/** Reads everything again, but not more often than every few seconds: a reader that lags has enough to do. */
function resync() {
  const wait = lastSync + SLOW_POLL_MS - Date.now();
  clearTimeout(resyncTimer);
  if (wait > 0) {
    resyncTimer = setTimeout(resync, wait);
    return;
  }
  lastSync = Date.now();
  // What happened meanwhile is in the lists and the history.
  for (const entry of entries.values()) {
    entry.loaded = false;
    if (entry.visible) loadHistory(entry);
  }
  readAll().then(
    () => streamOpen && setConnection("live", "Live"),
    (error) => {
      setConnection("lost", `The policies cannot be read: ${error.message}`);
      if (streamOpen) resyncTimer = setTimeout(resync, SLOW_POLL_MS);
    },
  );
  readReadiness();
}

function onLost(why, delay) {
  streamOpen = false;
  const since = timeOfDay(lastHeard);
  setConnection("lost", `Connection lost (${why}). Figures are from ${since}; next try in ${Math.ceil(delay / 1000)} s.`);
}

function setConnection(state, text) {
  by("connection").dataset.state = state;
  main.classList.toggle("outdated", state === "lost");
  if (by("connection").textContent !== text) by("connection").textContent = text;
}

const handlers = {
  tick: onTick,
  decision: take,
  policy(policy) {
    take(policy);
    readSoon();
  },
  task(task) {
    const entry = entries.get(task.policy);
    if (entry?.visible) entry.card?.refreshTasks();
  },
  reload() {
    readSoon();
  },
  error({ policy, held }) {
    const entry = entries.get(policy);
    if (entry) entry.held = held;
  },
  lagged: resync,
};

let readTimer = 0;
function readSoon() {
  if (readTimer !== 0) return;
  readTimer = setTimeout(() => {
    readTimer = 0;
    // Should this fail, the stream fails too, and its return reads everything.
    readAll().catch(() => {});
    readReadiness();
  }, 300);
}

function onEvent(name, data) {
  lastHeard = Date.now();
  handlers[name]?.(data);
}

/** Asks for the token; resolves once one was given. */
function onTokenNeeded(why) {
  setConnection("lost", `A token is needed: ${why}`);
  const dialog = by("token-dialog");
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    by("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      setToken(by("token").value);
      by("token").value = "";
      dialog.close();
      resolve();
    }, { once: true });
  });
}

by("token-dialog").addEventListener("cancel", (event) => event.preventDefault());
by("controls").addEventListener("submit", (event) => event.preventDefault());
by("search").addEventListener("input", scheduleList);
by("filter").addEventListener("change", scheduleList);
by("window").addEventListener("change", redrawAll);
by("more").addEventListener("click", () => {
  limit += PAGE_SIZE;
  list();
});
addEventListener("resize", redrawAll);

function redrawAll() {
  for (const entry of entries.values()) changed.add(entry);
  scheduleFrame();
}

// The time axis moves on without ticks too.
setInterval(redrawAll, 1_000);
setInterval(() => {
  if (document.hidden) return;
  if (by("filter").value !== "all") list();
  readReadiness();
  for (const entry of entries.values()) if (entry.visible) entry.card?.refreshTasks();
}, SLOW_POLL_MS);

takeTokenFromAddress();
addEventListener("hashchange", takeTokenFromAddress);
follow({ onOpen, onEvent, onLost, onTokenNeeded });
