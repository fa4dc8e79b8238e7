// What a score looks like: number, place in its range, details, and where the time went.

const STAGES = {
  receive: "Receiving the picture",
  decode: "Decoding it",
  submit: "Handing it to the queue",
  queue: "Waiting in the queue",
  batch: "Waiting for the batch",
  inference: "Scoring",
  rest: "Rest of the service",
  network: "Network and browser",
};

/** A new element with text or children. Nothing that was sent is ever read as HTML. */
export function element(name, content = "", classes = "") {
  const made = document.createElement(name);
  made.append(...[content].flat());
  if (classes) made.className = classes;
  return made;
}

/** A score with at most six significant digits. */
export const shownScore = (score) => String(Number(score.toPrecision(6))).replace("-", "−");

/** A fault in a box: the sentence, then what the service calls it. */
export function message(fault) {
  const box = element("div", element("p", sentence(fault.message)), "fault");
  const facts = [
    fault.status ? `HTTP ${fault.status}` : "",
    fault.code,
    fault.retryAfter ? `try again in ${fault.retryAfter} s` : "",
    fault.requestId ? `request ${fault.requestId}` : "",
  ].filter(Boolean);
  if (facts.length) box.append(element("span", facts.join(" · "), "mono"));
  return box;
}

/** Text that begins and ends as a sentence does. */
export function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.?!]$/.test(whole) ? whole : `${whole}.`;
}

/** Everything about one answer of `POST /score` with one picture, as a list of elements. */
export function result(body, info, serverTiming, elapsedMs, shell) {
  const [one] = body.results;
  const parts = one.error ? refused(one.error) : scored(one, body, info);
  parts.push(...timings(stages(serverTiming, elapsedMs), elapsedMs));
  const command = [element("summary", "The same from a terminal"), element("pre", shell, "mono")];
  const trace = [`${body.reward} ${body.version} · request `, element("span", body.request_id, "mono")];
  return [...parts, element("details", command), element("p", trace, "trace")];
}

function refused(error) {
  return [
    element("p", "No score", "score none"),
    message(error),
    ...(error.retryable ? [element("p", "The same picture may be scored later.", "muted")] : []),
  ];
}

function scored(one, body, info) {
  const number = element("p", [shownScore(one.score), " ", element("span", body.units, "units")], "score");
  const direction = body.direction === "maximize" ? "Higher is better" : "Lower is better";
  const parts = [number, element("p", direction, "muted")];
  const [low, high] = info?.range ?? [null, null];
  if (low !== null && high !== null && high > low) parts.push(scale(one.score, low, high));
  const rows = Object.entries(one.details);
  if (String(one.score) !== String(Number(one.score.toPrecision(6)))) rows.unshift(["score, exact", one.score]);
  if (rows.length) parts.push(element("h2", "Details"), table(rows));
  return parts;
}

function scale(score, low, high) {
  const dot = element("span", "", "dot");
  const share = Math.min(1, Math.max(0, (score - low) / (high - low)));
  dot.style.left = `${share * 100}%`;
  const track = element("div", dot, "track");
  track.setAttribute("role", "img");
  track.setAttribute("aria-label", `${shownScore(score)} on the range from ${low} to ${high}`);
  const ends = element("div", [element("span", String(low)), element("span", String(high))], "ends");
  return element("div", [track, ends], "scale");
}

function table(rows) {
  const lines = rows.map(([name, value]) => row(name, element("td", shownDetail(value))));
  return element("table", element("tbody", lines));
}

function row(name, cell) {
  const head = element("th", name);
  head.scope = "row";
  return element("tr", [head, cell]);
}

function shownDetail(value) {
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((each) => typeof each !== "object")) return value.join(", ");
  return JSON.stringify(value, null, 1);
}

/** Milliseconds by stage, from `Server-Timing` and what the browser measured. */
function stages(serverTiming, elapsedMs) {
  const told = {};
  for (const [, name, ms] of serverTiming.matchAll(/(\w+);dur=([\d.]+)/g)) told[name] = Number(ms);
  const { total = 0, ...known } = told;
  const sum = Object.values(known).reduce((left, right) => left + right, 0);
  return { ...known, rest: Math.max(0, total - sum), network: Math.max(0, elapsedMs - Math.max(total, sum)) };
}

function timings(ms, elapsedMs) {
  const bar = element("div", "", "bar");
  bar.setAttribute("aria-hidden", "true"); // the table below says the same
  const lines = [];
  for (const stage of Object.keys({ ...STAGES, ...ms })) {
    if (!(stage in ms)) continue;
    const part = element("span");
    part.dataset.stage = stage;
    part.style.flexGrow = ms[stage];
    if (ms[stage] > 0) bar.append(part);
    const swatch = element("span", "", "swatch");
    swatch.dataset.stage = stage;
    lines.push(row([swatch, STAGES[stage] ?? stage], time(ms[stage])));
  }
  const foot = element("tfoot", row("Together", time(elapsedMs)));
  const whole = element("table", [element("tbody", lines), foot], "timings");
  return [element("h2", "Where the time went"), bar, whole];
}

const time = (ms) => element("td", `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`, "number");
