// One policy on the page: chart, figures, decision, errors, tasks, actions.
//
// All text goes in as text nodes: nothing that a script or a task says becomes markup.

import { Chart, figure, timeOfDay } from "/chart.js";
import { call, policyPath } from "/client.js";

const MAX_TASK_ROWS = 50;
const MAX_TICK_ROWS = 30;

const signed = (n) => (n > 0 ? `+${n}` : String(n).replace("-", "−"));

/** Why a policy needs somebody's eyes; empty when it does not. */
export function troubles(policy) {
  const found = [];
  if (policy.ended && (policy.ended.code !== 0 || policy.ended.by === "retired")) found.push(`ended: ${policy.ended.by}`);
  if (policy.stalled) found.push("stalled");
  if (policy.script.refused) found.push("file on disk refused");
  if (policy.script.error) found.push("script error");
  else if (policy.sample.kind === "error" && policy.ticks > 0) found.push("sample failed");
  return found;
}

function badges(policy) {
  const list = troubles(policy).map((text) => ["bad", `⚠ ${text}`]);
  if (policy.paused) list.push(["held", `⏸ paused${ending(policy.paused.until)}`]);
  if (policy.override) list.push(["held", `✋ override${ending(policy.override.until)}`]);
  if (policy.ended?.code === 0 && policy.ended.by !== "retired") list.push(["", `■ ended: ${policy.ended.by}`]);
  if (policy.acted > 0) list.push(["", `▲ launched ${policy.acted}`]);
  if (policy.acted < 0) list.push(["", `▼ killed ${-policy.acted}`]);
  if (list.length === 0) list.push(["", policy.ticks > 0 ? "● holding" : "○ not ticked yet"]);
  return list;
}

function ending(until) {
  return until ? ` until ${timeOfDay(Date.parse(until))}` : "";
}

/** What a decision says, in one line. */
function verdict(decision) {
  if (!decision) return "None yet.";
  const { raw, adjustment, desired } = decision;
  if (raw === 0 && adjustment === 0) return `No change: ${desired} wanted.`;
  const wanted = `the law proposed ${signed(raw)}`;
  return adjustment === 0 ? `Held at ${desired}: ${wanted}.` : `${signed(adjustment)} on ${desired}: ${wanted}.`;
}

function node(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Replaces children only when what they would say has changed, so that selections and focus stay. */
function fill(parent, key, make) {
  if (parent.dataset.key === key) return;
  parent.dataset.key = key;
  parent.replaceChildren(...make());
}

export class Card {
  constructor(article, entry, onPolicy) {
    this.article = article;
    this.entry = entry;
    this.onPolicy = onPolicy;
    article.replaceChildren(document.getElementById("card").content.cloneNode(true));
    this.find = (selector) => article.querySelector(selector);
    const heading = this.find("h2");
    heading.textContent = entry.name;
    heading.id = `policy-${entry.serial}`;
    article.setAttribute("aria-labelledby", heading.id);
    article.removeAttribute("aria-label");
    this.chart = new Chart(this.find("svg.chart"), (point) => this.showPoint(point));
    this.wireActions();
    this.find("details.tasks").addEventListener("toggle", () => this.refreshTasks());
    this.find("details.ticks").addEventListener("toggle", () => this.renderTicks());
  }

  /** Shows the entry as it is now. */
  render(now, windowMs) {
    const { policy } = this.entry;
    fill(this.find(".badges"), JSON.stringify(badges(policy)), () => badges(policy).map(([kind, text]) => node("li", text, kind)));
    this.find(".about").textContent = this.about();
    this.renderFigures();
    this.renderDecision();
    this.renderFaults();
    this.find("button.pause").textContent = policy.paused ? "Resume" : "Pause";
    this.find("button.clear").disabled = !policy.override;
    this.find("details.tasks summary").textContent = `Tasks (${policy.tasks.running} running)`;
    this.renderTicks();
    this.renderChart(now, windowMs);
  }

  about() {
    const { spec, generation, ticks, script } = this.entry.policy;
    const kind = spec ? `${spec.backend}, ${spec.law}, every ${figure(spec.interval_seconds)} s` : "no file";
    return `${kind} · ${script.path} · generation ${generation} · tick ${ticks}`;
  }

  renderFigures() {
    const { sample, setpoint, tasks, bounds } = this.entry.policy;
    const shown = sample.kind === "value" ? figure(sample.value) : sample.message ?? sample.kind;
    const rows = [
      ["sample", shown, sample.kind === "value" ? "" : "bad"],
      ["setpoint", figure(setpoint), ""],
      ["running", `${tasks.running}`, ""],
      ["in flight", `${tasks.in_flight}`, ""],
      ["killing", `${tasks.killing}`, ""],
      ["min – max", `${bounds.min} – ${bounds.max}`, ""],
    ];
    fill(this.find(".figures"), JSON.stringify(rows), () =>
      rows.map(([name, text, kind]) => {
        const row = document.createElement("div");
        row.append(node("dt", name), node("dd", text, kind));
        return row;
      }),
    );
  }

  renderDecision() {
    const { decision } = this.entry.policy;
    this.find(".verdict").textContent = verdict(decision);
    const reasons = decision?.reasons ?? [];
    fill(this.find(".reasons"), JSON.stringify(reasons), () =>
      reasons.map((reason) => {
        const item = document.createElement("li");
        item.append(node("b", reason.guard), `: ${reason.text}`);
        return item;
      }),
    );
  }

  renderFaults() {
    const { error, refused } = this.entry.policy.script;
    const faults = [];
    if (refused) faults.push(["The file on disk was refused; the version before it runs", refused.report]);
    if (error) faults.push([this.entry.held ? `Script error; ${this.entry.held}` : "Script error", error.report]);
    const section = this.find(".faults");
    section.hidden = faults.length === 0;
    fill(section, JSON.stringify(faults), () => faults.flatMap(([title, report]) => [node("h3", title), node("pre", report)]));
  }

  renderChart(now, windowMs) {
    const { policy, points } = this.entry;
    const interval = (policy.spec?.interval_max_seconds ?? 15) * 1000;
    this.chart.draw(points, Math.max(now, points.at(-1)?.at ?? 0), windowMs, Math.max(3 * interval, 3000));
  }

  showPoint(point) {
    this.find(".readout").textContent = point === null ? "" :
      `${timeOfDay(point.at)}: sample ${point.value === null ? point.kind : figure(point.value)}, ` +
      `setpoint ${figure(point.setpoint)}, running ${point.running}, in flight ${point.in_flight}`;
  }

  renderTicks() {
    const details = this.find("details.ticks");
    if (!details.open) return;
    const rows = this.entry.points.slice(-MAX_TICK_ROWS).reverse();
    fill(details.querySelector("tbody"), `${rows.length}:${rows[0]?.at}`, () =>
      rows.map((point) =>
        row([
          timeOfDay(point.at),
          point.value === null ? point.kind : figure(point.value),
          figure(point.setpoint),
          `${point.running}`,
          `${point.in_flight}`,
          signed(point.acted),
        ]),
      ),
    );
  }

  /** Reads the tasks again, when somebody looks at them. */
  async refreshTasks() {
    const details = this.find("details.tasks");
    if (!details.open || this.loadingTasks) return;
    this.loadingTasks = true;
    try {
      const { tasks } = await call("GET", `/v1/tasks?policy=${encodeURIComponent(this.entry.name)}`);
      const shown = tasks.slice(0, MAX_TASK_ROWS);
      fill(details.querySelector("tbody"), JSON.stringify(shown), () => shown.map(taskRow));
      const more = tasks.length - shown.length;
      details.querySelector(".rest").textContent = more > 0 ? `and ${more} more` : tasks.length === 0 ? "No tasks." : "";
    } catch (error) {
      details.querySelector(".rest").textContent = `The tasks cannot be read: ${error.message}`;
    } finally {
      this.loadingTasks = false;
    }
  }

  wireActions() {
    const post = (action, body) => call("POST", policyPath(this.entry.name, action), body);
    this.find("button.pause").addEventListener("click", () =>
      this.entry.policy.paused
        ? this.act(() => post("resume", {}), "Resumed.")
        : this.act(() => post("pause", { reason: "paused on the page" }), "Paused. Ended tasks are still replaced."),
    );
    this.find("button.reload").addEventListener("click", () => this.act(() => post("reload", {}), "Read again."));
    this.find("button.evaluate").addEventListener("click", () => this.evaluate(post));
    const form = this.find(".override form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.act(() => post("override", overrideOf(form)), "Override set.");
    });
    form.querySelector(".clear").addEventListener("click", () =>
      this.act(() => call("DELETE", policyPath(this.entry.name, "override")), "Override cleared."),
    );
  }

  /** Carries an action out and says what came of it. */
  async act(action, done) {
    const outcome = this.find(".outcome");
    outcome.className = "outcome";
    outcome.textContent = "…";
    try {
      const policy = await action();
      if (policy?.name) this.onPolicy(policy);
      outcome.textContent = done;
    } catch (error) {
      outcome.className = "outcome bad";
      outcome.textContent = `Not done: ${error.message}`;
    }
  }

  /** Asks what a tick would decide now; nothing is carried out, so the answer does not replace the policy. */
  async evaluate(post) {
    await this.act(async () => {
      const policy = await post("evaluate", {});
      const reasons = (policy?.decision?.reasons ?? []).map((reason) => reason.text).join("; ");
      this.evaluated = `Now it would be: ${verdict(policy?.decision)} ${reasons}`;
      return null;
    }, "");
    const outcome = this.find(".outcome");
    if (!outcome.classList.contains("bad")) outcome.textContent = this.evaluated;
  }
}

function overrideOf(form) {
  const values = new FormData(form);
  const body = {};
  for (const key of ["min", "max"]) if (values.get(key) !== "") body[key] = Number(values.get(key));
  for (const key of ["for", "reason"]) if (values.get(key).trim() !== "") body[key] = values.get(key).trim();
  if (values.get("force") !== null) body.force = true;
  return body;
}

function taskRow(task) {
  const place = [task.host, task.pid === null ? null : `pid ${task.pid}`, task.container?.slice(0, 12)];
  const ports = Object.entries(task.ports).map(([name, port]) => `${name}:${port}`);
  return row([
    task.id,
    task.ready || task.state !== "running" ? task.state : "running, not ready",
    place.filter(Boolean).join(" ") || "–",
    ports.join(" ") || "–",
    task.cpu_percent === null ? "–" : `${task.cpu_percent.toFixed(1)} %`,
    task.memory_bytes === null ? "–" : `${(task.memory_bytes / 2 ** 20).toFixed(1)} MiB`,
    timeOfDay(Date.parse(task.started)),
    task.by,
  ]);
}

function row(cells) {
  const line = document.createElement("tr");
  line.append(...cells.map((text) => node("td", text)));
  return line;
}
