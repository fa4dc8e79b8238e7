// What a score looks like: number, place in its range, details, and where the time went.

const STAGES = {
  receive: "Receiving the picture",
  decode: "Decoding it",
  queue: "Waiting in the queue",
  batch: "Waiting for the batch",
  inference: "Scoring",
  rest: "Rest of the service",
  network: "Network and browser",
};

/** A new element with text and classes. Text only: nothing that was sent is ever read as HTML. */
export function element(name, text = "", classes = "") {
  const made = document.createElement(name);
  if (text !== "") made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

/** A score with at most six significant digits. */
export const shownScore = (score) => String(Number(score.toPrecision(6))).replace("-", "−");

/** A fault in a box: the sentence, then what the service calls it. */
export function message(fault) {
  const box = element("div", "", "fault");
  box.append(element("p", fault.message));
  const facts = [
    fault.status ? `HTTP ${fault.status}` : "",
    fault.code,
    fault.retryAfter ? `try again in ${fault.retryAfter} s` : "",
    fault.requestId ? `request ${fault.requestId}` : "",
  ].filter(Boolean);
  if (facts.length) box.append(element("span", facts.join(" · "), "mono"));
  return box;
}

/** Everything about one answer of `POST /score` with one picture, as a list of elements. */
export function result(body, info, serverTiming, elapsedMs, shell) {
  const [one] = body.results;
  const parts = one.error ? refused(one.error) : scored(one, body, info);
  parts.push(...timings(stages(serverTiming, elapsedMs), elapsedMs));
  const command = element("details");
  command.append(element("summary", "The same from a terminal"), element("pre", shell, "mono"));
  const trace = element("p", `${body.reward} ${body.version} · request `, "trace");
  trace.append(element("span", body.request_id, "mono"));
  return [...parts, command, trace];
}

function refused(error) {
  return [
    element("p", "No score", "score"),
    message({
      message: error.message + (error.retryable ? " The same picture may be scored later." : ""),
      code: error.code,
    }),
  ];
}

function scored(one, body, info) {
  const number = element("p", shownScore(one.score), "score");
  number.append(" ", element("span", body.units, "units"));
  const direction = body.direction === "maximize" ? "Higher is better" : "Lower is better";
  const parts = [number, element("p", direction, "muted")];
  const [low, high] = info?.range ?? [null, null];
  if (low !== null && high !== null && high > low) parts.push(scale(one.score, low, high));
  const rows = Object.entries(one.details);
  if (String(one.score) !== String(Number(one.score.toPrecision(6)))) rows.unshift(["exact score", one.score]);
  if (rows.length) parts.push(element("h2", "Details"), table(rows));
  return parts;
}

function scale(score, low, high) {
  const all = element("div", "", "scale");
  const track = element("div", "", "track");
  const dot = element("span", "", "dot");
  const share = Math.min(1, Math.max(0, (score - low) / (high - low)));
  dot.style.left = `${share * 100}%`;
  track.append(dot);
  track.setAttribute("role", "img");
  track.setAttribute("aria-label", `${shownScore(score)} on the range from ${low} to ${high}`);
  const ends = element("div", "", "ends");
  ends.append(element("span", String(low)), element("span", String(high)));
  all.append(track, ends);
  return all;
}

function table(rows) {
  const body = element("tbody");
  for (const [name, value] of rows) {
    const row = element("tr");
    const head = element("th", name);
    head.scope = "row";
    row.append(head, element("td", typeof value === "string" ? value : JSON.stringify(value, null, 1)));
    body.append(row);
  }
  const whole = element("table");
  whole.append(body);
  return whole;
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
  const whole = element("table", "", "timings");
  const body = element("tbody");
  for (const [stage, label] of Object.entries(STAGES)) {
    if (!(stage in ms)) continue;
    const part = element("span");
    part.dataset.stage = stage;
    part.style.flexGrow = ms[stage];
    if (ms[stage] > 0) bar.append(part);
    const swatch = element("span", "", "swatch");
    swatch.dataset.stage = stage;
    body.append(line("th", [swatch, label], ms[stage]));
  }
  const foot = element("tfoot");
  foot.append(line("th", ["Together"], elapsedMs));
  whole.append(body, foot);
  return [element("h2", "Where the time went"), bar, whole];
}

function line(kind, label, ms) {
  const row = element("tr");
  const head = element(kind);
  head.scope = "row";
  head.append(...label);
  row.append(head, element("td", `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`, "number"));
  return row;
}
