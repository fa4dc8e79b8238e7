// The page at /: choose a picture, ask for its score, show what came back.

import { apiKey, call, Fault } from "./service.js";
import { element, message, result, sentence, shownScore } from "./result.js";

const KEPT = 8; // earlier scores that stay on the page
const LOOK_AGAIN_MS = 2000; // while the service is loading or away
const WAITING = { draining: "shutting down", not_ready: "loading", broker_unavailable: "queue away" };
const at = Object.fromEntries([...document.querySelectorAll("[id]")].map((each) => [each.id, each]));

let info = null;
let picture = null; // { file, url }
let underway = null; // AbortController of the request in flight
let next = 0; // timer of the next look at the service
let clock = 0; // timer that shows how long the request has taken

// What the service says about itself

async function lookAtService() {
  await Promise.all([showPhase(), loadInfo()]);
}

async function showPhase() {
  let phase = "away";
  let words = "not answering";
  let more = "";
  try {
    const { workers, message: said = "" } = await (await call("readyz")).json();
    more = said;
    [phase, words] = workers === 0 ? ["waiting", "no worker"] : ["ready", "ready"];
  } catch (fault) {
    more = fault.message;
    if (fault.status === 503) [phase, words] = ["waiting", WAITING[fault.code] ?? "not ready"];
  }
  at.phase.dataset.phase = phase;
  at.phase.textContent = words;
  at.trouble.textContent = more && sentence(more);
  clearTimeout(next);
  if (phase !== "ready") next = setTimeout(lookAtService, LOOK_AGAIN_MS);
}

async function loadInfo() {
  if (info) return;
  try {
    info = await (await call("info")).json();
  } catch (fault) {
    if (fault.status === 401) askForKey();
    return;
  }
  document.title = `${info.name} · reward service`;
  at.name.textContent = info.name;
  const units = info.units === "score" ? "" : ` in ${info.units}`;
  at.meaning.textContent = `Gives a picture a score${units}; ${better(info.direction)}.`;
  at["prompt-optional"].hidden = info.needs_prompt;
  at["file-hint"].textContent = `PNG, JPEG or WebP, up to ${bytes(info.limits.max_body_bytes)}`;
  at.facts.replaceChildren(...facts().map(([name, value]) => element("div", [element("dt", name), element("dd", value)])));
  at.about.hidden = false;
}

const better = (direction) => (direction === "maximize" ? "higher is better" : "lower is better");

const sameReward = (body) =>
  info?.name === body.reward && ["version", "units", "direction"].every((field) => info[field] === body[field]);

/** Another reward answered than the one that was described: the service was started anew. */
async function renewInfo() {
  info = null;
  await loadInfo();
}

function facts() {
  const [low, high] = info.range;
  return [
    ["Version", info.version],
    ["Units", info.units],
    ["Direction", better(info.direction)],
    ["Range", low === null && high === null ? "no bounds" : `${low ?? "−∞"} to ${high ?? "∞"}`],
    ["Needs a prompt", info.needs_prompt ? "yes" : "no"],
    ["Pictures per batch", String(info.max_batch_size)],
    ["One request", `up to ${info.limits.max_items} pictures, ${bytes(info.limits.max_body_bytes)}`],
    ["Picture size", `up to ${(info.limits.max_pixels / 1e6).toPrecision(3)} megapixels`],
  ];
}

function askForKey() {
  at["key-field"].hidden = false;
  complain(apiKey.get() ? new Fault("The service does not know this API key.", { status: 401 }) : null);
  at.key.focus();
}

function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB"];
  const power = Math.min(3, Math.max(0, Math.floor(Math.log10(count || 1) / 3)));
  return `${Number((count / 1000 ** power).toPrecision(3))}\u00a0${units[power]}`;
}

// The picture

function choose(file) {
  if (!file) return;
  if (picture && !picture.kept) URL.revokeObjectURL(picture.url);
  picture = { file, url: URL.createObjectURL(file), kept: false };
  const facts = [file.name, bytes(file.size)];
  const show = () => (at["file-hint"].textContent = facts.join(" · "));
  at.preview.onload = () => {
    facts.push(`${at.preview.naturalWidth} × ${at.preview.naturalHeight}`);
    at.preview.toggleAttribute("data-small", at.preview.naturalHeight < 200);
    showPreview(true);
    show();
  };
  at.preview.onerror = () => showPreview(false);
  at.preview.alt = `Chosen picture: ${file.name}`;
  at.preview.src = picture.url;
  show();
  complain(null);
}

function showPreview(visible) {
  at.preview.hidden = !visible;
  at.invitation.hidden = visible;
  at.drop.toggleAttribute("data-full", visible);
}

// One request

async function ask() {
  const fault = missing();
  if (fault) return complain(fault);
  complain(null);
  const started = { picture, prompt: at.prompt.value.trim() };
  const form = new FormData();
  form.append("images", started.picture.file);
  if (started.prompt || info?.needs_prompt) form.append("prompts", started.prompt);
  underway = new AbortController();
  busy(true);
  const from = performance.now();
  try {
    const answer = await call("score", { method: "POST", body: form, signal: underway.signal });
    const body = await answer.json();
    const elapsedMs = performance.now() - from;
    if (!sameReward(body)) await renewInfo();
    show(started, body, answer.headers.get("Server-Timing") ?? "", elapsedMs);
  } catch (error) {
    at.result.replaceChildren(element("p", error.name === "AbortError" ? "Cancelled." : "No score.", "empty"));
    if (error.name !== "AbortError") refuse(error);
  } finally {
    underway = null;
    busy(false);
  }
}

function missing() {
  if (!at["key-field"].hidden && !at.key.value.trim()) return focused(at.key, "Enter the API key first.");
  if (!picture) return focused(at.file, "Choose a picture first.");
  if (info && picture.file.size > info.limits.max_body_bytes)
    return focused(at.file, `The picture has ${bytes(picture.file.size)}, at most ${bytes(info.limits.max_body_bytes)} are taken.`);
  if (info?.needs_prompt && !at.prompt.value.trim()) return focused(at.prompt, "This reward needs a prompt: say what the picture should show.");
  return null;
}

function focused(field, words) {
  field.focus();
  return new Fault(words);
}

function refuse(fault) {
  if (fault.status === 401) askForKey();
  else complain(fault);
  if (!fault.status || fault.status === 503) showPhase();
}

function busy(is) {
  at.submit.setAttribute("aria-disabled", String(is));
  at.submit.textContent = is ? "Scoring…" : "Score";
  at.cancel.hidden = !is;
  if (is) {
    at.news.textContent = "Scoring.";
    const words = element("p", "Scoring…", "busy");
    at.result.replaceChildren(words);
    let seconds = 0;
    clock = setInterval(() => (words.textContent = `Scoring… ${++seconds} s`), 1000);
  } else {
    clearInterval(clock);
  }
}

function complain(fault) {
  at.complaint.replaceChildren(...(fault ? [message(fault)] : []));
  if (fault) at.news.textContent = "";
}

function show({ picture: of, prompt }, body, timing, elapsedMs) {
  const [one] = body.results;
  const shell = `curl -F images=@${quoted(of.file.name)}${prompt ? ` -F prompts=${quoted(prompt)}` : ""}` +
    `${apiKey.get() ? ' -H "Authorization: Bearer $REWARD_API_KEY"' : ""} ${new URL("score", location.href)}`;
  at.result.replaceChildren(...result(body, info, timing, elapsedMs, shell));
  at.news.textContent = one.error
    ? `No score: ${one.error.message}`
    : `Score ${shownScore(one.score)} ${body.units}, ${better(body.direction)}.`;
  remember(of, prompt, one, body.units);
  if (at.result.getBoundingClientRect().top > innerHeight * 0.8) at.result.scrollIntoView();
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function remember(of, prompt, one, units) {
  of.kept = true;
  const image = element("img", "", "thumb");
  image.addEventListener("error", () => image.replaceWith(element("span", "", "thumb")));
  Object.assign(image, { src: of.url, alt: "" });
  const words = element("div", [
    element("b", one.error ? "No score" : `${shownScore(one.score)} ${units}`),
    element("p", prompt || of.file.name),
  ]);
  at.history.prepend(element("li", [image, words]));
  while (at.history.children.length > KEPT) at.history.lastChild.remove();
  at.earlier.hidden = at.history.children.length < 2;
}

// Events

at.form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!underway) ask();
});
at.cancel.addEventListener("click", () => underway?.abort());
at.file.addEventListener("change", () => choose(at.file.files[0]));
at.prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at.form.requestSubmit();
});
at.key.addEventListener("change", () => {
  apiKey.set(at.key.value);
  complain(null);
  lookAtService();
});
at.key.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault(); // take the key, do not score yet
  at.file.focus();
});
document.addEventListener("visibilitychange", () => document.hidden || lookAtService());
document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // a picture dropped beside the field would replace the page
    at.drop.toggleAttribute("data-over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}
at.name.textContent = location.host;
at.key.value = apiKey.get();
lookAtService();
