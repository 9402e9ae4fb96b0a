// The page at work: form to visit, visit to answer. No text is stored outside this page's memory.

import { bandWords, drawEvidence, drawHeads, drawQuestions, drawWarnings, FIELD_NAMES,
  retellWorth } from "/page/answer.js";
import { drawDial, percent, restate } from "/page/dial.js";
import { FindingPicker } from "/page/findings.js";

const TIMEOUT_MS = 60_000;
const FIELDS = Object.keys(FIELD_NAMES);
const LOWEST_PREVALENCE = 0.001; // the slider is logarithmic from here to a half
const byId = (id) => document.getElementById(id);
const form = byId("visit");

let asked = new Set();
let current = null; // {visit, answer, at, next}: what is shown, and the prevalence it was told at
let turn = 0;

const picker = new FindingPicker({
  input: byId("finding"),
  list: byId("finding-list"),
  chips: byId("chips"),
  search: async (query) => {
    try {
      return (await call(`/v1/findings?q=${encodeURIComponent(query.slice(0, 100))}`)).findings;
    } catch (error) {
      fail(error);
      return [];
    }
  },
  changed: markStale,
});

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? "The service refused the visit.");
    this.status = status;
    this.errors = problem.errors ?? [];
  }
}

async function call(path, body) {
  const headers = { Accept: "application/json" };
  if (byId("token").value) headers.Authorization = `Bearer ${byId("token").value}`;
  const options = { headers, signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" };
  if (body) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const response = await fetch(path, options);
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, told);
  return told;
}

function readVisit() {
  const visit = {};
  for (const field of FIELDS) {
    const text = byId(field).value.trim();
    if (text) visit[field] = text;
  }
  const onset = byId("onset").value.trim();
  if (onset) {
    const history = visit.history_of_present_illness;
    visit.history_of_present_illness = `${history ? `${history} ` : ""}Onset: ${onset}.`;
  }
  const sex = form.elements.sex.value;
  if (sex) visit.sex = sex;
  const age = byId("age").value.trim().replace(",", ".");
  if (age) visit.age_years = Number(age) / Number(byId("age-unit").value);
  const { present, excluded } = picker.findings;
  if (present.length) visit.findings_present = present;
  if (excluded.length) visit.findings_excluded = excluded;
  return visit;
}

function check(visit) {
  if (Number.isNaN(visit.age_years)) return [{ field: "age_years", reason: "not a number" }];
  if (visit.age_years < 0 || visit.age_years > 120) {
    return [{ field: "age_years", reason: "give an age from 0 to 120 years" }];
  }
  const told = FIELDS.some((field) => visit[field]) || visit.findings_present ||
    visit.findings_excluded;
  return told ? [] : [{ field: "chief_complaint", reason: "write why the patient came" }];
}

async function screen() {
  const mine = ++turn;
  clearErrors();
  const visit = readVisit();
  const wrong = check(visit);
  if (wrong.length) {
    showErrors(wrong);
    return;
  }
  busy(true);
  try {
    const at = prevalence();
    const told = await call("/v1/screen", { visits: [visit], prevalence: at });
    if (mine !== turn) return;
    current = { visit, answer: told.answers[0], at };
    showAnswer();
    if (JSON.stringify(readVisit()) !== JSON.stringify(visit)) markStale(); // edited meanwhile
    if (!current.answer.not_english) await askNext(mine);
  } catch (error) {
    if (mine === turn) fail(error);
  } finally {
    if (mine === turn) busy(false);
  }
}

async function askNext(mine) {
  byId("ask-status").textContent = "Weighing questions …";
  byId("questions").replaceChildren();
  byId("unfilled").hidden = true;
  byId("heads").replaceChildren();
  try {
    const told = await call("/v1/next", {
      visit: current.visit, asked: [...asked], prevalence: current.at,
    });
    if (mine !== turn) return;
    byId("ask-status").textContent = told.questions.length ? "" : "Nothing more to ask.";
    current.next = told;
    drawQuestions(byId("questions"), told.questions, reply);
    drawQuestions(byId("fields"), told.absent_fields, reply);
    byId("unfilled").hidden = !told.absent_fields.length;
    showRisk();
    drawHeads(byId("heads"), told.heads);
  } catch (error) {
    byId("ask-status").textContent = "No questions now: the service did not answer in time.";
    if (!(error instanceof Refused)) throw error;
  }
}

function reply(question, said) {
  if (said === "fill") {
    const field = byId({ age_years: "age" }[question.key] ?? question.key)
      ?? form.querySelector(`[name="${question.key}"]`);
    if (field.closest("details")) field.closest("details").open = true;
    field.focus();
    return;
  }
  asked.add(question.key);
  if (said !== "skip") {
    picker.add(question.key, question.wording, said === "yes");
    markStale(); // should the service not answer
  }
  byId("ask-title").scrollIntoView({ block: "nearest" });
  screen().then(() => byId("questions").querySelector("button")?.focus());
}

async function explain() {
  const mine = turn;
  byId("explain").disabled = true;
  byId("rationale").textContent = "Writing …";
  try {
    const { visit, at } = current;
    const told = await call("/v1/screen", { visits: [visit], prevalence: at, rationale: "all" });
    if (mine !== turn) return;
    const [{ rationale, notes }] = told.answers;
    const late = notes?.find((note) => note.code === "rationale_late");
    byId("rationale").textContent = rationale ?? late?.message ?? "";
    byId("explain").disabled = !late;
  } catch (error) {
    if (mine !== turn) return;
    byId("rationale").textContent = "";
    byId("explain").disabled = false;
    fail(error);
  }
}

function prevalence() {
  const place = Number(byId("prevalence").value) / 100;
  return LOWEST_PREVALENCE * (0.5 / LOWEST_PREVALENCE) ** place;
}

function showRisk() {
  byId("prevalence-said").textContent = percent(prevalence());
  byId("prevalence").setAttribute("aria-valuetext", percent(prevalence()));
  if (!current) return;
  const { answer, at } = current;
  const now = (risk) => (Number.isFinite(risk) ? restate(risk, at, prevalence()) : NaN);
  const shown = { risk: now(answer.risk), low: now(answer.risk_low), high: now(answer.risk_high) };
  drawDial(byId("dial"), byId("dial-title"), shown);
  byId("interval").textContent = Number.isFinite(shown.low)
    ? `Interval ${percent(shown.low)} to ${percent(shown.high)}`
    : "";
  if (current.next) {
    const { questions, absent_fields, risk } = current.next;
    retellWorth(byId("questions"), questions, risk, shown.risk);
    retellWorth(byId("fields"), absent_fields, risk, shown.risk);
  }
}

function showAnswer() {
  const { visit, answer } = current;
  byId("failure").hidden = true;
  byId("answer").hidden = false;
  byId("result").classList.remove("stale");
  byId("patient").textContent = [ageWords(visit.age_years), visit.sex].filter(Boolean).join(", ");
  drawWarnings(byId("warnings"), answer);
  // what can't be read has no risk: no number, and nothing that rests on one
  for (const part of document.querySelectorAll("[data-of-risk]")) {
    part.toggleAttribute("hidden", answer.not_english === true);
  }
  byId("band").textContent = bandWords(answer);
  byId("band").dataset.band = answer.abstain || answer.not_english ? "watch" : answer.band;
  showRisk();
  byId("rationale").textContent = answer.rationale ?? "";
  byId("explain").disabled = false;
  drawEvidence(byId("evidence"), visit, answer, picker.told);
  const { name, version, digest } = answer.model;
  const now = new Date().toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  byId("model").textContent =
    `Screened ${now} by model ${name}, version ${version} (${digest.slice(0, 12)})`;
  byId("status").classList.add("unseen"); // the dial shows what a screen reader is told here
  if (matchMedia("(width < 60rem)").matches) byId("result").scrollIntoView();
  const risk = answer.not_english ? "" : `Risk ${percent(answer.risk)}. `;
  byId("status").textContent = `${risk}${bandWords(answer)}. Decision support, not a diagnosis.`;
}

function ageWords(years) {
  if (years === undefined) return "";
  return years < 2 ? `${Math.round(years * 12)} months` : `${Math.floor(years)} years`;
}

function say(text) {
  byId("status").classList.remove("unseen");
  byId("status").textContent = text;
}

function busy(on) {
  byId("result").setAttribute("aria-busy", String(on));
  form.querySelector("[type=submit]").disabled = on;
  if (on) say("Reading the visit …");
}

function markStale() {
  if (!current || byId("result").classList.contains("stale")) return;
  byId("result").classList.add("stale");
  say("The visit has changed since; screen again.");
}

function clearErrors() {
  byId("failure").hidden = true;
  for (const place of form.querySelectorAll(".error")) place.textContent = "";
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

/** Each reason beside its field; true if all found a place. */
function showErrors(errors) {
  let first = null;
  let placed = true;
  for (const { field, reason } of errors) {
    const name = field.split(".").find((part) => byId(`${part}-error`)) ??
      (field.includes("findings_") ? "findings" : "");
    const place = byId(`${name}-error`);
    placed &&= place !== null;
    if (!place) continue;
    place.textContent = `${reason.charAt(0).toUpperCase()}${reason.slice(1)}.`.replace("..", ".");
    const input = byId({ age_years: "age", findings: "finding" }[name] ?? name);
    input?.setAttribute("aria-invalid", "true");
    if (input?.closest("details")) input.closest("details").open = true;
    first ??= input;
  }
  first?.focus();
  say("The visit was not screened: see the marked field.");
  return placed && errors.length > 0;
}

function fail(error) {
  const box = byId("failure");
  box.hidden = false;
  say("Not screened.");
  if (error instanceof Refused) {
    if (error.status === 422 && showErrors(error.errors)) {
      box.hidden = true;
      return;
    }
    if (error.status === 401) byId("token-field").hidden = false;
    const told = {
      401: "This service asks for its access token; enter it below the form.",
      413: "The visit is too long for the service; shorten it.",
    };
    box.textContent = told[error.status] ?? error.message;
    if (error.status === 401) byId("token").focus();
  } else if (error.name === "TimeoutError") {
    box.textContent = "The service did not answer within a minute. Your text is still here: try again.";
  } else {
    box.textContent = "The service can’t be reached; is it running? Your text is still here.";
  }
}

function newVisit() {
  turn++;
  form.reset();
  picker.clear();
  clearErrors();
  asked = new Set();
  current = null;
  byId("answer").hidden = true;
  byId("evidence").replaceChildren();
  byId("result").classList.remove("stale");
  busy(false);
  say("Fill in what you know and press Screen.");
  byId("age").focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  screen();
});
form.addEventListener("input", (event) => {
  if (event.target !== byId("finding")) markStale(); // a search changes nothing yet
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    screen();
  }
});
byId("clear").addEventListener("click", newVisit);
byId("explain").addEventListener("click", explain);
byId("prevalence").addEventListener("input", showRisk);
byId("print").addEventListener("click", () => window.print());
addEventListener("pagehide", newVisit); // who comes back must not find the patient before
showRisk();
