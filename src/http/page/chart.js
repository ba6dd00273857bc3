// A chart of one policy: sample and setpoint above, tasks below, on one time axis.
//
// Zeros are drawn like every other number. Where there is no fresh sample the line has a gap and a cross marks the
// tick; where ticks are missing all lines have a gap.

const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 230;
const LEFT = 52;
const RIGHT = 10;
const UPPER = { top: 16, bottom: 136 };
const LOWER = { top: 156, bottom: 208 };

/** The least time that a chart shows, while there is not more. */
const SHORTEST_MS = 20_000;
/** Round distances between two times on the axis, in seconds. */
const TIME_STEPS = [5, 10, 15, 30, 60, 120, 300];

const compact = new Intl.NumberFormat("en", { maximumSignificantDigits: 6, useGrouping: false });
const huge = new Intl.NumberFormat("en", { notation: "scientific", maximumSignificantDigits: 4 });
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

/** A number as people read it; an absent one is a dash. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size >= 1e9 || size < 1e-6) ? huge.format(value) : compact.format(value);
}

/** The time of day. */
export function timeOfDay(at) {
  return clock.format(at);
}

function element(name, attributes, parent) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent?.append(node);
  return node;
}

export class Chart {
  /** `onCursor` is told the point under the cursor, or null. */
  constructor(svg, onCursor) {
    this.svg = svg;
    this.onCursor = onCursor;
    this.points = [];
    this.cursorAt = null;
    this.width = 0;
    const path = (name) => element("path", { class: name }, svg);
    this.grid = path("grid");
    this.labels = element("g", {}, svg);
    this.running = path("running-area");
    this.wanted = path("wanted-line");
    this.setpoint = path("setpoint-line");
    this.sample = path("sample-line");
    this.bad = path("bad-marks");
    this.acts = path("act-marks");
    this.dot = element("circle", { class: "sample-dot", r: 4 }, svg);
    this.cursor = element("line", { class: "cursor", y1: UPPER.top, y2: LOWER.bottom }, svg);
    this.listen();
  }

  listen() {
    this.svg.addEventListener("pointermove", (event) => {
      const x = event.clientX - this.svg.getBoundingClientRect().left;
      this.moveCursor(nearest(this.visible ?? [], this.timeAt(x)));
    });
    this.svg.addEventListener("pointerleave", () => this.moveCursor(null));
    this.svg.addEventListener("blur", () => this.moveCursor(null));
    this.svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const points = this.visible ?? [];
      if (event.key === "Escape") this.moveCursor(null);
      if (step === undefined || points.length === 0) return;
      event.preventDefault();
      const index = points.findIndex((point) => point.at === this.cursorAt);
      const next = index < 0 ? points.length - 1 : Math.min(Math.max(index + step, 0), points.length - 1);
      this.moveCursor(points[next]);
    });
  }

  moveCursor(point) {
    this.cursorAt = point?.at ?? null;
    this.drawCursor();
    this.onCursor(point ?? null);
  }

  timeAt(x) {
    return this.from + ((x - LEFT) / (this.width - LEFT - RIGHT)) * (this.until - this.from);
  }

  /** Draws the points ({at, kind, value, setpoint, running, in_flight, acted}, oldest first) up to `until`. */
  draw(points, until, longestMs, gapMs) {
    this.width = this.svg.clientWidth || 600;
    // A policy that has just started fills the chart with the little that there is.
    const windowMs = Math.min(Math.max(until - (points[0]?.at ?? 0) + 1000, SHORTEST_MS), longestMs);
    this.from = until - windowMs;
    this.until = until;
    const first = points.findIndex((point) => point.at >= this.from);
    // One point before the window, so that the lines reach its edge.
    const shown = first < 0 ? [] : points.slice(Math.max(first - 1, 0));
    this.visible = first < 0 ? [] : points.slice(first);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);

    const x = (at) => LEFT + ((at - this.from) / windowMs) * (this.width - LEFT - RIGHT);
    const [low, high] = range(shown);
    const y = scale(low, high, UPPER);
    const mostTasks = Math.max(1, ...shown.map((point) => point.running + point.in_flight));
    const tasksY = scale(0, mostTasks, LOWER);
    const runs = split(shown, gapMs);

    this.sample.setAttribute("d", line(split(shown, gapMs, (point) => point.value), x, (p) => y(p.value)));
    this.setpoint.setAttribute("d", steps(split(shown, gapMs, (point) => point.setpoint), x, (p) => y(p.setpoint)));
    this.wanted.setAttribute("d", steps(runs, x, (p) => tasksY(p.running + p.in_flight)));
    this.running.setAttribute("d", area(runs, x, (p) => tasksY(p.running), tasksY(0)));
    this.bad.setAttribute("d", crosses(this.visible.filter((point) => point.value === null), x));
    this.acts.setAttribute("d", triangles(this.visible.filter((point) => point.acted !== 0), x));
    this.drawDot(shown, x, y);
    this.drawAxes(niceTicks(low, high), y, mostTasks, tasksY, x, windowMs);
    this.drawCursor();
    this.describe(windowMs);
  }

  drawDot(shown, x, y) {
    const last = shown.at(-1);
    const there = last !== undefined && last.value !== null;
    this.dot.setAttribute("visibility", there ? "visible" : "hidden");
    if (there) {
      this.dot.setAttribute("cx", x(last.at).toFixed(1));
      this.dot.setAttribute("cy", y(last.value).toFixed(1));
    }
  }

  drawAxes(ticks, y, mostTasks, tasksY, x, windowMs) {
    const right = this.width - RIGHT;
    const labels = [];
    let grid = "";
    const rule = (at) => (grid += `M${LEFT} ${at.toFixed(1)}H${right}`);
    for (const tick of ticks) {
      rule(y(tick));
      labels.push({ x: LEFT - 6, y: y(tick) + 4, anchor: "end", text: figure(tick) });
    }
    for (const tick of [0, mostTasks]) {
      rule(tasksY(tick));
      labels.push({ x: LEFT - 6, y: tasksY(tick) + (tick === 0 ? 4 : 9), anchor: "end", text: figure(tick) });
    }
    labels.push({ x: LEFT - 6, y: LOWER.top - 3, anchor: "end", text: "tasks" });
    const every = 1000 * (TIME_STEPS.find((step) => step * 6000 >= windowMs) ?? TIME_STEPS.at(-1));
    for (let at = Math.ceil(this.from / every) * every; at <= this.until; at += every) {
      grid += `M${x(at).toFixed(1)} ${UPPER.top}V${UPPER.bottom}M${x(at).toFixed(1)} ${LOWER.top}V${LOWER.bottom}`;
      const near = x(at) < LEFT + 26 || x(at) > right - 26;
      if (!near) labels.push({ x: x(at), y: HEIGHT - 6, anchor: "middle", text: timeOfDay(at) });
    }
    this.grid.setAttribute("d", grid);
    this.labels.replaceChildren(
      ...labels.map(({ x: left, y: top, anchor, text }) => {
        const node = element("text", { x: left.toFixed(1), y: top.toFixed(1), "text-anchor": anchor });
        node.textContent = text;
        return node;
      }),
    );
  }

  drawCursor() {
    const shown = this.cursorAt !== null && this.cursorAt >= this.from;
    this.cursor.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    const x = LEFT + ((this.cursorAt - this.from) / (this.until - this.from)) * (this.width - LEFT - RIGHT);
    this.cursor.setAttribute("x1", x.toFixed(1));
    this.cursor.setAttribute("x2", x.toFixed(1));
  }

  /** The chart in words, for those who do not see it. */
  describe(windowMs) {
    const last = this.visible.at(-1);
    const values = this.visible.map((point) => point.value).filter((value) => value !== null);
    const seconds = Math.round(windowMs / 1000);
    const period = seconds < 120 ? `${seconds} seconds` : `${Math.round(seconds / 60)} minutes`;
    const text = last === undefined
      ? `no ticks in the last ${period}`
      : `sample ${last.value === null ? last.kind : figure(last.value)}, setpoint ${figure(last.setpoint)}, ` +
        `${last.running} tasks running; over the last ${period} the sample was between ` +
        `${figure(values.length ? Math.min(...values) : null)} and ${figure(values.length ? Math.max(...values) : null)}`;
    this.svg.setAttribute("aria-label", `Chart: ${text}. Left and right arrow keys read single ticks.`);
    this.svg.dataset.points = this.visible.length;
    this.svg.dataset.last = last === undefined ? "" : String(last.value);
  }
}

function nearest(points, at) {
  let best = null;
  for (const point of points) {
    if (best === null || Math.abs(point.at - at) < Math.abs(best.at - at)) best = point;
  }
  return best;
}

/** The range of the upper panel: from zero unless the figures are far away from it, with room at both ends. */
function range(points) {
  const values = points.flatMap((point) => [point.value, point.setpoint]).filter((value) => value !== null);
  if (values.length === 0) return [0, 1];
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (low > 0 && low < 0.7 * high) low = 0;
  if (high < 0 && high > 0.7 * low) high = 0;
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

function scale(low, high, panel) {
  const factor = (panel.bottom - panel.top) / (high - low);
  return (value) => panel.bottom - (value - low) * factor;
}

/** Two to five round numbers within a range. */
function niceTicks(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high && ticks.length < 8; n += 1) {
    ticks.push(Number((n * step).toPrecision(12)));
  }
  return ticks;
}

/** Runs of points without a gap in time, or in what `value` gives. */
function split(points, gapMs, value = () => 0) {
  const runs = [];
  let run = [];
  for (const point of points) {
    const broken = run.length > 0 && point.at - run.at(-1).at > gapMs;
    const absent = value(point) === null;
    if ((broken || absent) && run.length > 0) {
      runs.push(run);
      run = [];
    }
    if (!absent) run.push(point);
  }
  if (run.length > 0) runs.push(run);
  return runs;
}

function line(runs, x, y) {
  // The zero-length tail makes a lone point a dot, by its round cap.
  return runs
    .map((run) => run.map((p, i) => `${i ? "L" : "M"}${x(p.at).toFixed(1)} ${y(p).toFixed(1)}`).join("") + "h0.01")
    .join("");
}

function steps(runs, x, y) {
  return runs
    .map((run) => run.map((p, i) => (i ? `H${x(p.at).toFixed(1)}V${y(p).toFixed(1)}` : `M${x(p.at).toFixed(1)} ${y(p).toFixed(1)}`)).join("") + "h1")
    .join("");
}

function area(runs, x, y, base) {
  return runs
    .map((run) => {
      const top = run.map((p, i) => `${i ? `H${x(p.at).toFixed(1)}` : ""}V${y(p).toFixed(1)}`).join("");
      return `M${x(run[0].at).toFixed(1)} ${base.toFixed(1)}${top}h1V${base.toFixed(1)}Z`;
    })
    .join("");
}

function crosses(points, x) {
  const y = UPPER.top - 11;
  return points.map((point) => `M${(x(point.at) - 4).toFixed(1)} ${y}l8 8m0 -8l-8 8`).join("");
}

/** Upwards for launches, downwards for kills. */
function triangles(points, x) {
  const top = LOWER.top - 9;
  return points
    .map((point) => {
      const left = (x(point.at) - 4).toFixed(1);
      return point.acted > 0 ? `M${left} ${top + 7}h8l-4 -7Z` : `M${left} ${top}h8l-4 7Z`;
    })
    .join("");
}
