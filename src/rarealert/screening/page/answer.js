// An answer as elements. Words of the visit enter the page as text nodes only.

import { percent, restate } from "/page/dial.js";

const BANDS = {
  alert: "Alert: think of a rare disease now",
  watch: "Watch: keep it in mind, ask on",
  low: "No alert",
};
export const FIELD_NAMES = {
  chief_complaint: "Chief complaint",
  history_of_present_illness: "History",
  physical_examination: "Examination",
  family_history: "Family history",
  past_medical_history: "Past medical history",
  social_history: "Social history",
  vitals: "Vitals",
};

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function bandWords(answer) {
  if (answer.not_english) return "Not read: write the visit in English, in full words";
  const few = (answer.notes ?? []).find((note) => note.code === "few_findings");
  if (few) return `Undecided: ${few.message[0].toLowerCase()}${few.message.slice(1)}`;
  if (answer.abstain) return "Undecided: the model can’t tell this visit apart";
  const count = `${answer.findings} finding${answer.findings === 1 ? "" : "s"}`;
  return answer.band === "low" ? `${BANDS.low}: rests on ${count}` : BANDS[answer.band];
}

// The service notes these too, for those who read its JSON.
const SAID_HERE = ["not_english", "out_of_distribution", "abstain", "few_findings"];

/** What a reader must know before the number; plain sentences, gravest first. */
export function warningsOf(answer) {
  const said = [];
  if (answer.not_english) {
    said.push("This does not read like English. The model reads English only and gives no risk " +
      "for it.");
    return said;
  }
  if (answer.out_of_distribution) {
    said.push("This visit is unlike those that the model was trained on; trust the risk less.");
  }
  const few = (answer.notes ?? []).some((note) => note.code === "few_findings");
  if (answer.abstain && !few) {
    said.push("The model abstains: validation does not let it decide on a visit like this one. " +
      "Ask on.");
  }
  const rest = (answer.notes ?? []).filter((note) => !SAID_HERE.includes(note.code));
  return [...said, ...rest.map((note) => note.message)];
}

export function drawWarnings(list, answer) {
  list.replaceChildren(...warningsOf(answer).map((text) => element("li", text)));
}

function evidenceOf(answer) {
  const found = answer.evidence ?? [];
  return typeof found === "string" ? JSON.parse(found) : found;
}

/** The visit's own text with the weighing words marked, field by field, then the findings. */
export function drawEvidence(list, visit, answer, chips) {
  const found = evidenceOf(answer);
  const parts = [];
  const chosen = new Map(chips.map(({ hpoId }) => [hpoId, null])); // with the evidence of each
  for (const [field, name] of Object.entries(FIELD_NAMES)) {
    const text = visit[field] ?? "";
    const here = found.filter((each) => each.field === field && each.direction !== "not read");
    const inside = here.filter((each) => each.end <= text.length && agrees(text, each));
    const outside = here.filter((each) => !inside.includes(each));
    for (const each of outside) if (chosen.has(each.hpo_id)) chosen.set(each.hpo_id, each);
    const beyond = outside.filter((each) => !chosen.has(each.hpo_id));
    if (!text && !beyond.length) continue;
    const told = element("dd");
    told.append(...marked(text, inside));
    for (const each of beyond) told.append(" ", mark(each.words, each));
    parts.push(element("dt", name), told);
  }
  if (chips.length) parts.push(element("dt", "Findings"), chosenFindings(chips, chosen));
  list.replaceChildren(...parts);
}

function chosenFindings(chips, weighed) {
  const told = element("dd");
  chips.forEach(({ hpoId, words }, place) => {
    const each = weighed.get(hpoId);
    told.append(place ? ", " : "", each ? mark(words, each) : words);
  });
  return told;
}

// Offsets count code points, as Python does; JavaScript's strings count UTF-16 units.
function agrees(text, { start, end, words }) {
  return [...text].slice(start, end).join("") === words;
}

function marked(text, found) {
  const characters = [...text];
  const parts = [];
  let at = 0;
  for (const each of [...found].sort((a, b) => a.start - b.start)) {
    if (each.start < at) continue;
    parts.push(characters.slice(at, each.start).join(""), mark(each.words, each));
    at = each.end;
  }
  parts.push(characters.slice(at).join(""));
  return parts;
}

function mark(words, { direction, label, status }) {
  const made = element("mark", "", direction);
  made.append(element("span", direction === "raises" ? "▲" : "▼", "arrow"), words);
  made.querySelector(".arrow").setAttribute("aria-hidden", "true");
  const state = { excluded: "no ", uncertain: "possible ", past: "past " }[status] ?? "";
  made.append(element("span", ` (${direction} the risk)`, "unseen"));
  made.title = `${state}${label}: ${direction} the risk`;
  return made;
}

export function drawHeads(list, heads) {
  const items = heads.map(({ head, share, diseases }) => {
    const item = element("li");
    const bar = element("span", "", "bar");
    bar.style.inlineSize = `${Math.round(share * 100)}%`; // the object model is not inline style
    bar.setAttribute("aria-hidden", "true");
    const names = diseases.map((each) => each.name).join("; ");
    item.append(element("strong", head), ` ${percent(share)}`, bar, element("small", names));
    return item;
  });
  list.replaceChildren(...items);
  if (!items.length) list.append(element("li", "None: they are listed where findings were recognised and the risk is not low."));
}

/** What the answers would make of the risk; `told` and `now` are the visit's risk there and here. */
function worth({ kind, answers }, told, now) {
  // one visit at two prevalences: the shift between them is every answer's shift too
  const risks = answers.map((each) => restate(each.risk, told, now));
  const chances = answers.map(
    (each) => now * each.chance_if_rare + (1 - now) * each.chance_if_common,
  );
  const change = risks.reduce((sum, risk, i) => sum + chances[i] * Math.abs(risk - now), 0);
  const [least, most] = [percent(Math.min(...risks)), percent(Math.max(...risks))];
  const ends = kind === "field"
    ? `then ${least === most ? `about ${least}` : `${least} to ${most}`}`
    : `if yes ${percent(risks[0])}, if no ${percent(risks[1])}`;
  return `${ends}; expected change ${points(change)}`;
}

function points(change) {
  const told = percent(change).replace("\u00a0%", "");
  return `${told}\u00a0${told === "1" ? "point" : "points"}`;
}

/** Say again what the answers would make of the risk, after the prevalence was moved. */
export function retellWorth(list, questions, told, now) {
  [...list.querySelectorAll("small")].forEach((place, index) => {
    place.textContent = ` ${worth(questions[index], told, now)}`;
  });
}

/** Questions with their buttons; `reply(question, "yes" | "no" | "skip" | "fill")` is called. */
export function drawQuestions(list, questions, reply) {
  list.replaceChildren(
    ...questions.map((question) => {
      const item = element("li");
      const text = element("span", question.text, "question");
      text.id = `question-${question.key.replace(/\W/g, "-")}`;
      const kinds = question.kind === "field" ? ["fill"] : ["yes", "no", "skip"];
      const buttons = element("span", "", "replies");
      for (const kind of kinds) {
        const button = element("button", { fill: "Fill in", skip: "Not known" }[kind] ?? kind);
        button.type = "button";
        button.setAttribute("aria-describedby", text.id);
        button.addEventListener("click", () => reply(question, kind));
        buttons.append(button);
      }
      const told = element("span", "", "told");
      told.append(text, element("small"));
      item.append(told, buttons);
      return item;
    }),
  );
}
