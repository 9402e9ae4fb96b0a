// The dial: a risk between 0 and 1 on a log-odds scale, so that 1 % and 5 % lie apart.

const SVG = "http://www.w3.org/2000/svg";
const CENTRE = { x: 120, y: 122 };
const RADIUS = 92;
const LOWEST = 0.001;
const HIGHEST = 0.99;
const TICKS = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99];

const logit = (share) => Math.log(share / (1 - share));

/** `risk`, told at prevalence `from`, restated for prevalence `to`; all 0-1, Bayes' rule. */
export function restate(risk, from, to) {
  if (risk <= 0 || risk >= 1) return risk;
  return 1 / (1 + Math.exp(-(logit(risk) + logit(to) - logit(from))));
}

/** Share in per cent with two telling digits, as a clinician reads it; it breaks over no line. */
export function percent(share) {
  const value = share * 100;
  if (value > 99) return ">99\u00a0%";
  if (value < 0.1) return "<0.1\u00a0%";
  const told = value < 10 ? Number(value.toPrecision(value < 1 ? 1 : 2)) : Math.round(value);
  return `${told}\u00a0%`;
}

function angle(risk) {
  const kept = Math.min(HIGHEST, Math.max(LOWEST, risk));
  const span = logit(HIGHEST) - logit(LOWEST);
  return Math.PI * (1 - (logit(kept) - logit(LOWEST)) / span);
}

function point(radians, radius) {
  return [CENTRE.x + radius * Math.cos(radians), CENTRE.y - radius * Math.sin(radians)];
}

function shape(name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

function arc(from, to, kind) {
  const [x1, y1] = point(angle(from), RADIUS);
  const [x2, y2] = point(angle(to), RADIUS);
  return shape("path", { d: `M${x1} ${y1} A${RADIUS} ${RADIUS} 0 0 1 ${x2} ${y2}`, class: kind });
}

/** Draw risk and interval (`low`, `high` may be missing) into the `svg` with its `title`. */
export function drawDial(svg, title, { risk, low, high }) {
  const known = Number.isFinite(low) && Number.isFinite(high);
  title.textContent = known
    ? `Risk ${percent(risk)}, interval ${percent(low)} to ${percent(high)}`
    : `Risk ${percent(risk)}`;
  const parts = [arc(LOWEST, HIGHEST, "track")];
  if (known) parts.push(arc(low, high, "interval"));
  for (const tick of TICKS) {
    const [x, y] = point(angle(tick), RADIUS + 16);
    const side = tick < 0.05 ? "end" : tick > 0.8 ? "start" : "middle";
    const ends = tick === LOWEST || tick === HIGHEST;
    const place = ends ? { x: x + (tick === LOWEST ? 8 : -8), y: y + 18 } : { x, y };
    parts.push(shape("text", { ...place, class: "tick", "text-anchor": ends ? "middle" : side },
      percent(tick)));
  }
  const [x1, y1] = point(angle(risk), RADIUS - 13);
  const [x2, y2] = point(angle(risk), RADIUS + 9);
  parts.push(shape("line", { x1, y1, x2, y2, class: "needle" }));
  const said = { x: CENTRE.x, y: CENTRE.y - 12, class: "value", "text-anchor": "middle" };
  parts.push(shape("text", said, percent(risk)));
  svg.replaceChildren(title, ...parts);
}
