// Findings of the visit: a combobox (WAI-ARIA APG, list autocomplete) and the chips it makes.

const WAIT_MS = 120;

/** Holds the chosen findings; `search(query)` gives `{hpo_id, name, wording}[]`. */
export class FindingPicker {
  #input; #list; #chips; #search; #changed;
  #options = [];
  #active = -1;
  #timer = 0;
  #turn = 0;
  #held = new Map();

  constructor({ input, list, chips, search, changed }) {
    [this.#input, this.#list, this.#chips] = [input, list, chips];
    [this.#search, this.#changed] = [search, changed];
    input.addEventListener("input", () => this.#typed());
    input.addEventListener("keydown", (event) => this.#key(event));
    input.addEventListener("blur", () => this.#close());
  }

  /** HPO ids that are present and absent. */
  get findings() {
    const ids = (present) =>
      [...this.#held].filter(([, each]) => each.present === present).map(([id]) => id);
    return { present: ids(true), excluded: ids(false) };
  }

  /** The findings in words, each with its HPO id. */
  get told() {
    return [...this.#held].map(([hpoId, { wording, present }]) =>
      ({ hpoId, words: `${present ? "" : "no "}${wording}` }));
  }

  add(hpoId, wording, present) {
    this.#held.set(hpoId, { wording, present });
    this.#draw();
  }

  clear() {
    this.#held.clear();
    this.#input.value = "";
    this.#close();
    this.#draw();
  }

  get #denied() {
    return /^\s*no\s+/i.test(this.#input.value);
  }

  #typed() {
    clearTimeout(this.#timer);
    const turn = ++this.#turn;
    const query = this.#input.value.replace(/^\s*no\s+/i, "").trim();
    if (query.length < 2) {
      this.#close();
      return;
    }
    this.#timer = setTimeout(async () => {
      const found = await this.#search(query);
      if (turn === this.#turn) this.#open(found);
    }, WAIT_MS);
  }

  #open(found) {
    this.#options = found;
    this.#active = found.length ? 0 : -1;
    const items = found.map((each, place) => {
      const item = document.createElement("li");
      item.id = `finding-${place}`;
      item.setAttribute("role", "option");
      const wording = document.createElement("span");
      wording.textContent = (this.#denied ? "no " : "") + each.wording;
      item.append(wording);
      if (each.name.toLowerCase() !== each.wording.toLowerCase()) {
        const name = document.createElement("small");
        name.textContent = each.name;
        item.append(" ", name);
      }
      // mousedown comes before the blur that closes the list
      item.addEventListener("mousedown", (event) => {
        event.preventDefault();
        this.#choose(place);
      });
      return item;
    });
    if (!items.length) {
      const none = document.createElement("li");
      none.setAttribute("role", "option");
      none.setAttribute("aria-disabled", "true");
      none.textContent = "No such finding; write it in the history instead.";
      items.push(none);
    }
    this.#list.replaceChildren(...items);
    this.#list.hidden = false;
    this.#input.setAttribute("aria-expanded", "true");
    this.#mark();
  }

  #close() {
    clearTimeout(this.#timer);
    this.#turn++;
    this.#options = [];
    this.#active = -1;
    this.#list.hidden = true;
    this.#list.replaceChildren();
    this.#input.setAttribute("aria-expanded", "false");
    this.#input.removeAttribute("aria-activedescendant");
  }

  #mark() {
    [...this.#list.children].forEach((item, place) => {
      item.setAttribute("aria-selected", String(place === this.#active));
      if (place === this.#active) item.scrollIntoView({ block: "nearest" });
    });
    if (this.#active >= 0) {
      this.#input.setAttribute("aria-activedescendant", `finding-${this.#active}`);
    } else {
      this.#input.removeAttribute("aria-activedescendant");
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey) return;
    const count = this.#options.length;
    if (event.key === "Escape") {
      if (this.#list.hidden) this.#input.value = "";
      this.#close();
    } else if (event.key === "Enter") {
      event.preventDefault(); // Enter in a search box must not screen half a visit
      if (this.#active >= 0) this.#choose(this.#active);
    } else if (count && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      this.#active = (this.#active + (event.key === "ArrowDown" ? 1 : -1) + count) % count;
      this.#mark();
    }
  }

  #choose(place) {
    const { hpo_id: hpoId, wording } = this.#options[place];
    const present = !this.#denied;
    this.#input.value = "";
    this.#close();
    this.add(hpoId, wording, present);
    this.#changed();
  }

  #draw() {
    this.#chips.replaceChildren(...[...this.#held].map(([hpoId, each]) => this.#chip(hpoId, each)));
  }

  #chip(hpoId, { wording, present }) {
    const item = document.createElement("li");
    item.className = present ? "present" : "absent";
    const toggle = document.createElement("button");
    toggle.type = "button";
    toggle.textContent = `${present ? "" : "no "}${wording}`;
    toggle.setAttribute("aria-label", `${wording}: ${present ? "present" : "absent"}; change`);
    toggle.addEventListener("click", () => {
      this.add(hpoId, wording, !present);
      this.#changed();
    });
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove ${wording}`);
    remove.addEventListener("click", () => {
      this.#held.delete(hpoId);
      this.#draw();
      this.#changed();
      this.#input.focus();
    });
    item.append(toggle, remove);
    return item;
  }
}
