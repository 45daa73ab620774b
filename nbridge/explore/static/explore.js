// The page of nbridge explore: controls built from /api/spec, and the model's predictions of the modalities that are not given.
// Its state is in `page`. Each change sends a new request, one at a time; outdated responses are dropped.

const WAIT = 30; // milliseconds for collecting changes into one request
const SHARE = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 });
const COUNT = new Intl.NumberFormat("en");
const MANY_CLASSES = 20; // with more classes, only the most probable ones are shown
const GUESSES = 4; // classes of a table named in the status line
const DECODED = 6; // vector elements shown for a decoded point of the map

const page = { spec: null, row: null, seed: 0, version: 0, cards: new Map(), map: null, points: [], compared: false };
const byId = (id) => document.getElementById(id);

// Elements

function make(tag, attributes = {}, ...content) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [rule, text] of Object.entries(value)) node.style.setProperty(rule, text);
    else if (typeof value === "boolean") node[name] = value;
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...content.filter((part) => part !== null));
  return node;
}

function draw(tag, attributes, ...content) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...content);
  return node;
}

function setText(node, text) {
  node.textContent = text;
  node.hidden = !text;
}

const short = (x, digits = 4) => (Number.isInteger(x) && Math.abs(x) < 1e6 ? String(x) : String(Number(x.toPrecision(digits))));

// A mean, rounded to the precision of its standard deviation.
function around(mean, sd) {
  const places = sd > 0 ? Math.min(12, Math.max(0, 1 - Math.floor(Math.log10(sd)))) : 3;
  return `${mean.toFixed(places)} ± ${places ? sd.toFixed(places) : short(sd, 2)}`;
}

// Requests

class RequestError extends Error {}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new RequestError("no response from the server; is nbridge explore still running?");
  }
  const answer = await response.json().catch(() => ({ error: `the server responded with status ${response.status}` }));
  if (!response.ok) throw new RequestError(answer.error);
  return answer;
}

const post = (path, body) => ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

// Sends one request at a time; changes made meanwhile are sent after the response.
function asker(question, answered, failed) {
  let timer = null, busy = false, again = false;
  async function run() {
    timer = null;
    busy = true;
    again = false;
    const version = page.version;
    try {
      const answer = await question();
      if (version === page.version) answered(answer, again);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      if (version === page.version) failed(error.message);
    } finally {
      busy = false;
      if (again || version !== page.version) later();
    }
  }
  function later() {
    if (busy) again = true;
    else if (timer === null) timer = setTimeout(run, WAIT);
  }
  return later;
}

// Called after a change that makes earlier responses outdated.
function changed() {
  page.version += 1;
  imputeLater();
}

const imputeLater = asker(imputed, showImputed, (text) => setText(byId("error"), text));

function given() {
  const found = {};
  for (const [name, card] of page.cards) {
    const value = card.given ? card.sent() : null;
    if (value !== null) found[name] = value;
  }
  return found;
}

function shownElements() {
  const show = {};
  for (const [name, card] of page.cards) if (card.places) show[name] = card.places();
  return show;
}

async function imputed() {
  const started = performance.now();
  const known = given(), show = shownElements(), nothing = !Object.keys(known).length;
  const answer = nothing
    ? await post("api/prior", { prior: byId("prior").value || null, show, seed: page.seed })
    : await post("api/impute", { given: known, show, seed: page.seed });
  return { ...answer, known: Object.keys(known), milliseconds: performance.now() - started };
}

function showImputed(answer, more) {
  setText(byId("error"), "");
  // Predictions from the prior, or from a user's own image, cannot be compared with the chosen row.
  page.compared = answer.known.some((name) => page.cards.get(name).own);
  for (const [name, card] of page.cards) if (answer.modalities[name]) card.show(answer.modalities[name]);
  page.points = answer.map ?? [];
  page.map?.now(page.points);
  byId("priors").hidden = page.spec.priors.length < 2 || answer.known.length > 0;
  if (!more) byId("status").textContent = inWords(answer);
}

function inWords(answer) {
  const names = Object.keys(answer.modalities);
  if (!names.length) return `${columned() ? "Everything is" : "All modalities are"} given. ${hint()} to see it imputed.`;
  const guesses = names.flatMap((name) => page.cards.get(name).guesses(answer.modalities[name]));
  const from = answer.known.length ? `from ${answer.known.join(", ")}` : `from the ${byId("prior").value} prior`;
  const open = names.map((name) => (answer.known.includes(name) ? `the rest of ${name}` : name));
  const text = [`${open.join(", ")} ${from}`, ...guesses].join("; ");
  const bars = names.some((name) => answer.modalities[name].elements) ? `; bars are ${SHARE.format(answer.level)} intervals${page.compared ? ", ◆ the row's own values" : ""}` : "";
  return `${text}. Statistics over ${answer.draws} draws${bars}. ${Math.round(answer.milliseconds)} ms`;
}

// Whether single columns can be given.
function columned() {
  return page.spec.modalities.some((modality) => modality.kind === "columns");
}

// What to do to see something imputed.
function hint() {
  const ways = [...(columned() ? ["untick a column"] : []), ...(page.cards.size > 1 ? ["switch a modality off"] : [])];
  const text = ways.join(" or ") || "switch it off";
  return text[0].toUpperCase() + text.slice(1);
}

// Cards: one per modality

class Card {
  constructor(modality, number) {
    this.modality = modality;
    this.name = modality.name;
    this.given = number === 0;
    this.real = null; // its value in the chosen row
    this.own = false; // whether the given value started as that value
    const id = `modality-${number}`;
    this.switch = make("input", { type: "checkbox", role: "switch", id: `${id}-given`, "aria-label": `${this.name} given`, onchange: () => this.give(this.switch.checked) });
    this.body = make("div");
    this.error = make("p", { class: "error", role: "alert", hidden: true });
    const about = modality.columns ? `${COUNT.format(modality.size)} column${modality.size === 1 ? "" : "s"}` : `${modality.likelihood}, ${modality.shape.join(" × ")}`;
    this.node = make(
      "section",
      { class: "card", "aria-labelledby": id, "data-modality": this.name },
      make("div", { class: "head" }, make("h2", { id }, this.name), make("span", { class: "quiet" }, about), make("label", { class: "switch" }, this.switch, "given")),
      this.body,
      this.error,
    );
  }

  // Switches the modality on or off.
  give(on) {
    this.given = on;
    this.render();
    changed();
  }

  pick(value) {
    this.real = value;
    setText(this.error, "");
    this.own = value !== null;
    if (value === null) this.given = false;
    else this.take(value);
    this.render();
  }

  // Classes to name in the status line.
  guesses() {
    return [];
  }

  // The true value to compare with the imputed one.
  compared() {
    return page.compared ? this.real : null;
  }

  render() {
    this.switch.checked = this.given;
    this.node.classList.toggle("given", this.given);
    this.fill();
  }
}

class ClassesCard extends Card {
  constructor(modality, number) {
    super(modality, number);
    this.label = 0;
  }

  take(value) {
    this.label = value.label;
  }

  sent() {
    return { label: this.label };
  }

  fill() {
    const options = this.modality.classes.map((text, place) => make("option", { value: place, selected: place === this.label }, text));
    const pick = (event) => {
      this.label = Number(event.target.value);
      imputeLater();
    };
    this.body.replaceChildren(this.given ? make("select", { "aria-label": this.name, onchange: pick }, ...options) : make("div"));
  }

  show(answer) {
    if (!this.given) this.body.replaceChildren(this.bars(answer.probabilities, this.compared()?.label));
  }

  guesses(answer) {
    return [`${this.name}: ${likeliest(this.modality.classes, answer.probabilities)}`];
  }

  decoded(answer) {
    return this.bars(answer.probabilities, null);
  }

  bars(shares, real) {
    const note = real === undefined || real === null ? null : make("p", { class: "quiet" }, "◆ the row's own class");
    return make("div", {}, barsOf(this.modality.classes, shares, real), note);
  }
}

// The most probable class with its probability.
function likeliest(classes, shares) {
  const best = shares.indexOf(Math.max(...shares));
  return `${classes[best]} (${SHARE.format(shares[best])})`;
}

// A bar for each class, as long as its probability; only the most probable of many.
function barsOf(classes, shares, real) {
  let places = shares.map((_, place) => place);
  if (places.length > MANY_CLASSES) places = places.sort((one, other) => shares[other] - shares[one]).slice(0, MANY_CLASSES);
  const rows = places.flatMap((place) => [
    make("span", { class: place === real ? "name isreal" : "name", title: classes[place] }, classes[place] + (place === real ? " ◆" : "")),
    make("span", { class: "rail", "aria-hidden": "true" }, make("span", { style: { width: `${100 * shares[place]}%` } })),
    make("span", { class: "share" }, SHARE.format(shares[place])),
  ]);
  return make("div", { class: "bars" }, ...rows);
}

class TextCard extends Card {
  constructor(modality, number) {
    super(modality, number);
    this.text = "";
  }

  take(value) {
    this.text = value.text;
  }

  sent() {
    return this.text.trim() ? { text: this.text } : null;
  }

  fill() {
    const write = (event) => {
      this.text = event.target.value;
      changed();
    };
    const field = make("input", { type: "text", "aria-label": `${this.name}, at most ${this.modality.most} ${this.modality.unit}`, oninput: write });
    field.value = this.text;
    this.body.replaceChildren(this.given ? field : make("div"));
  }

  show(answer) {
    if (!this.given) this.body.replaceChildren(this.written(answer, this.compared()?.text));
  }

  decoded(answer) {
    return this.written(answer, null);
  }

  written(answer, real) {
    const draws = make("ul", {}, ...answer.texts.map((text) => make("li", {}, text)));
    const note = real === undefined || real === null ? null : make("p", { class: "quiet" }, `◆ the row's own: ${real}`);
    return make("div", {}, make("p", {}, answer.best), make("p", { class: "quiet" }, "and drawn:"), draws, note);
  }
}

class ImageCard extends Card {
  constructor(modality, number) {
    super(modality, number);
    const [, height, width] = modality.shape;
    this.canvas = make("canvas", { width, height, class: modality.drawable ? "drawable" : "" });
    this.paper = this.canvas.getContext("2d", { willReadFrequently: true });
    this.rubber = false;
    this.clear();
    this.sheet = make("div", { class: "sheet", style: { "--wide": `${Math.max(224, Math.min(256, 14 * Math.max(width, height)) * (width / Math.max(width, height)))}px` } }, this.canvas);
    if (modality.drawable) this.letDraw();
    else this.canvas.setAttribute("role", "img");
    this.nameCanvas();
  }

  nameCanvas(more = "") {
    const how = this.modality.drawable ? "; draw with a pointer, or move with the arrow keys and press Space" : "";
    this.canvas.setAttribute("aria-label", `${this.name}, given image${how}${more}`);
  }

  clear() {
    this.own = false;
    this.paper.fillStyle = "#000";
    this.paper.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.drawn();
  }

  // The image on the canvas is no longer that of a row.
  drawn() {
    this.value = { picture: this.canvas.toDataURL("image/png") };
  }

  take(value) {
    this.value = { row: page.row };
    this.put(value.picture);
  }

  async put(address) {
    const image = new Image();
    image.src = address;
    const value = this.value;
    await image.decode();
    if (value === this.value) this.paper.drawImage(image, 0, 0, this.canvas.width, this.canvas.height);
  }

  sent() {
    return this.value;
  }

  fill() {
    if (!this.given) {
      this.body.replaceChildren();
      return;
    }
    const change = (work) => () => {
      work();
      this.drawn();
      changed();
    };
    const tool = (text, rubber) => {
      const press = (event) => {
        this.rubber = rubber;
        for (const other of event.target.parentNode.querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", String(other === event.target));
      };
      return make("button", { type: "button", "aria-pressed": String(this.rubber === rubber), onclick: press }, text);
    };
    const file = make("input", { type: "file", class: "unseen", accept: "image/*", "aria-label": `Upload a picture for ${this.name}`, onchange: () => this.upload(file) });
    const tools = [
      ...(this.modality.drawable ? [tool("Pen", false), tool("Rubber", true), make("button", { type: "button", onclick: change(() => this.clear()) }, "Clear")] : []),
      make("button", { type: "button", onclick: change(() => this.invert()) }, "Invert"),
      make("span", { class: "button" }, "Upload…", file),
    ];
    this.body.replaceChildren(this.sheet, make("div", { class: "tools" }, ...tools));
  }

  invert() {
    const { width, height } = this.canvas;
    const pixels = this.paper.getImageData(0, 0, width, height);
    for (let place = 0; place < pixels.data.length; place += 1) if (place % 4 !== 3) pixels.data[place] = 255 - pixels.data[place];
    this.paper.putImageData(pixels, 0, 0);
  }

  async upload(input) {
    const file = input.files[0];
    input.value = "";
    if (!file) return;
    setText(this.error, "");
    try {
      if (file.size > page.spec.upload) throw new RequestError(`too large: at most ${page.spec.upload / 2 ** 20} MiB are allowed`);
      const answer = await ask(`api/upload?modality=${encodeURIComponent(this.name)}`, { method: "POST", body: file });
      this.value = { picture: answer.picture };
      this.own = false;
      await this.put(answer.picture);
      changed();
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      setText(this.error, error.message);
    }
  }

  // Drawing

  letDraw() {
    const { canvas } = this;
    let last = null;
    this.at = null;
    this.cursor = make("div", { class: "cursor", hidden: true });
    this.sheet.append(this.cursor);
    canvas.tabIndex = 0;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      last = place(event);
      this.stroke(last, last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (last === null) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) {
        const next = place(one);
        this.stroke(last, next);
        last = next;
      }
    });
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(kind, () => (last = null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => (this.cursor.hidden = true));
  }

  key(event) {
    const { width, height } = this.canvas;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault();
    this.at ??= [Math.floor(width / 2), Math.floor(height / 2)];
    if (step) this.at = [Math.min(width - 1, Math.max(0, this.at[0] + step[0])), Math.min(height - 1, Math.max(0, this.at[1] + step[1]))];
    else this.stroke([this.at[0] + 0.5, this.at[1] + 0.5], [this.at[0] + 0.5, this.at[1] + 0.5]);
    const box = { left: this.at[0] / width, top: this.at[1] / height, width: 1 / width, height: 1 / height };
    for (const [rule, share] of Object.entries(box)) this.cursor.style.setProperty(rule, `${100 * share}%`);
    this.cursor.hidden = false;
    this.nameCanvas(`; line ${this.at[1] + 1}, column ${this.at[0] + 1}`);
  }

  // Draws a line with soft edges, in a width proportional to the image.
  stroke([x0, y0], [x1, y1]) {
    const { width, height } = this.canvas;
    const radius = Math.max(0.6, Math.max(width, height) / 26);
    const pixels = this.paper.getImageData(0, 0, width, height);
    const length = (x1 - x0) ** 2 + (y1 - y0) ** 2;
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const along = length ? Math.min(1, Math.max(0, ((x + 0.5 - x0) * (x1 - x0) + (y + 0.5 - y0) * (y1 - y0)) / length)) : 0;
        const away = Math.hypot(x + 0.5 - x0 - along * (x1 - x0), y + 0.5 - y0 - along * (y1 - y0));
        const ink = Math.round(255 * Math.min(1, Math.max(0, radius + 0.5 - away)));
        const place = 4 * (y * width + x);
        const value = this.rubber ? Math.min(pixels.data[place], 255 - ink) : Math.max(pixels.data[place], ink);
        pixels.data.fill(value, place, place + 3);
      }
    }
    this.paper.putImageData(pixels, 0, 0);
    this.drawn();
    imputeLater();
  }

  // Imputed values

  show(answer) {
    if (!this.given) this.body.replaceChildren(...this.pictures(answer));
  }

  pictures(answer) {
    const draws = answer.draws.map((address, number) => make("img", { src: address, alt: `draw ${number + 1} of ${this.name}` }));
    const tile = (address, caption, alt) => make("figure", {}, make("img", { src: address, alt }), make("figcaption", {}, caption));
    const figures = [
      tile(answer.mean, "mean", `mean of ${this.name}`),
      tile(answer.sd, `deviation, 0 to ${short(answer.most, 2)}`, `standard deviation of ${this.name}, bright where it is large`),
      this.compared() ? tile(this.real.picture, "◆ the row's own", `${this.name} of the row itself`) : null,
    ];
    return [make("div", { class: "tiles draws" }, ...draws), make("div", { class: "tiles figures" }, ...figures.filter(Boolean))];
  }

  decoded(answer) {
    return make("div", { class: "tiles figures" }, make("img", { src: answer.mean, alt: `${this.name} at this point` }));
  }
}

class VectorCard extends Card {
  constructor(modality, number) {
    super(modality, number);
    this.values = this.initial();
    this.first = 0;
    this.varied = false;
    this.find = "";
    this.list = make("div", { class: "elements" });
    this.tools = modality.size > page.spec.page ? this.paging() : null;
  }

  initial() {
    return [...this.modality.start];
  }

  // The range of an element, and whether it is a whole number.
  bounds(place) {
    const { low, high, whole } = this.modality;
    return { low: low[place], high: high[place], whole };
  }

  take(value) {
    this.values = [...value.values];
  }

  sent() {
    return this.values.some((value) => value !== null) ? { values: this.values } : null;
  }

  // Paging

  paging() {
    const search = make("input", { type: "search", placeholder: "Find", "aria-label": `Find an element of ${this.name}`, oninput: () => this.turn({ find: search.value.trim().toLowerCase(), first: 0 }) });
    const order = make("select", { "aria-label": `Order of ${this.name}`, onchange: () => this.turn({ varied: order.value === "varied", first: 0 }) },
      make("option", { value: "place" }, "in order"), make("option", { value: "varied" }, "most varying"));
    this.count = make("span", { class: "quiet", role: "status" });
    this.back = make("button", { type: "button", "aria-label": `Earlier elements of ${this.name}`, onclick: () => this.turn({ first: this.first - page.spec.page }) }, "‹");
    this.forth = make("button", { type: "button", "aria-label": `Further elements of ${this.name}`, onclick: () => this.turn({ first: this.first + page.spec.page }) }, "›");
    return make("div", { class: "tools" }, search, order, make("span", { class: "pager" }, this.back, this.count, this.forth));
  }

  turn(change) {
    Object.assign(this, change);
    this.fill();
    changed();
  }

  all() {
    const places = this.varied ? this.modality.varied : this.modality.names.map((_, place) => place);
    return this.find ? places.filter((place) => this.modality.names[place].toLowerCase().includes(this.find)) : places;
  }

  places() {
    return this.all().slice(this.first, this.first + page.spec.page);
  }

  fill() {
    const places = this.places();
    if (this.tools) {
      const number = this.all().length;
      this.count.textContent = number ? `${COUNT.format(this.first + 1)}–${COUNT.format(this.first + places.length)} of ${COUNT.format(number)}` : "none";
      this.back.disabled = this.first === 0;
      this.forth.disabled = this.first + page.spec.page >= number;
    }
    this.rows = new Map(places.map((place) => [place, this.element(place)]));
    this.list.replaceChildren(...[...this.rows.values()].flatMap((row) => [row.name, row.track, row.side].filter((part) => part !== null)));
    // Replaced only if needed, because that would move the focus.
    if (this.list.parentNode !== this.body) this.body.replaceChildren(...(this.tools ? [this.tools] : []), this.list);
  }

  // A line of the list: name, track, and an input field or a statistic.
  element(place) {
    const text = this.modality.names[place];
    const row = { name: make("span", { class: "name", title: text }, text), track: make("div", { class: "track" }), side: make("span", { class: "number" }) };
    if (!this.given) return row;
    if (this.modality.binary) return this.toggle(place, row);
    row.side = this.field(place, row);
    if (this.values[place] !== null) row.track.append(this.slider(place, row));
    return row;
  }

  slider(place, row) {
    const { low, high, whole } = this.bounds(place);
    const step = whole ? 1 : (high - low) / 200;
    const slide = () => {
      this.values[place] = Number(slider.value);
      row.side.value = short(this.values[place]);
      imputeLater();
    };
    const slider = make("input", { type: "range", min: low, max: high, step, "aria-label": `${this.name} ${this.modality.names[place]}`, oninput: slide });
    slider.value = this.values[place];
    return slider;
  }

  field(place, row) {
    const type = () => {
      if (field.validity.badInput) return;
      this.values[place] = field.value === "" ? null : Number(field.value);
      const slider = row.track.querySelector("input");
      if (this.values[place] === null || !slider) row.track.replaceChildren(...(this.values[place] === null ? [] : [this.slider(place, row)]));
      else slider.value = this.values[place];
      imputeLater();
    };
    const label = `${this.name} ${this.modality.names[place]}, a number; empty if not observed`;
    const field = make("input", { type: "number", step: this.bounds(place).whole ? 1 : "any", inputmode: "decimal", "aria-label": label, oninput: type });
    if (this.values[place] !== null) field.value = short(this.values[place]);
    return field;
  }

  toggle(place, row) {
    const box = make("input", { type: "checkbox", "aria-label": `${this.name} ${this.modality.names[place]}` });
    box.checked = this.values[place] === 1;
    box.indeterminate = this.values[place] === null;
    row.side.textContent = this.values[place] ?? "";
    box.addEventListener("change", () => {
      this.values[place] = box.checked ? 1 : 0;
      row.side.textContent = this.values[place];
      imputeLater();
    });
    row.track.append(box);
    return row;
  }

  // Imputed values

  show(answer) {
    answer.elements.forEach((place, number) => {
      const row = this.rows.get(place);
      if (!row || (this.given && this.values[place] !== null)) return;
      if (this.given && this.modality.binary) return;
      this.mark(row, place, number, answer, this.compared()?.values[place]);
    });
  }

  mark(row, place, number, answer, real) {
    const { low, high } = this.bounds(place);
    const at = (x) => `${Math.min(100, Math.max(0, (100 * (x - low)) / (high - low)))}%`;
    const mark = (kind, x) => make("span", { class: kind, style: { left: at(x) } });
    const from = parseFloat(at(answer.lower[number])), to = parseFloat(at(answer.upper[number]));
    const span = make("span", { class: "span", style: { left: `${from}%`, width: `${Math.max(0.5, to - from)}%` } });
    const known = real === undefined || real === null ? [] : [mark("real", real)];
    row.track.setAttribute("aria-hidden", "true");
    row.track.replaceChildren(span, ...answer.draws[number].map((x) => mark("dot", x)), mark("mean", answer.mean[number]), ...known);
    if (row.side.tagName === "INPUT") {
      row.track.removeAttribute("aria-hidden");
      row.side.placeholder = short(answer.mean[number]);
      return;
    }
    const flag = this.modality.kind === "flags";
    row.side.textContent = flag ? SHARE.format(answer.mean[number]) : this.inNumbers(place, answer.mean[number], answer.sd[number]);
    row.side.title = flag ? "" : `90 % interval from ${short(answer.lower[number])} to ${short(answer.upper[number])}`;
  }

  inNumbers(place, mean, sd) {
    return around(mean, sd);
  }

  decoded(answer) {
    const rows = answer.elements.slice(0, DECODED).map((place, number) => {
      const text = this.modality.names[place];
      const row = { name: make("span", { class: "name", title: text }, text), track: make("div", { class: "track" }), side: make("span", { class: "number" }) };
      this.mark(row, place, number, answer, null);
      return row;
    });
    return make("div", { class: "elements" }, ...rows.flatMap((row) => [row.name, row.track, row.side]));
  }
}

// A table: a number or a choice of classes for each column, each given or not.
class ColumnsCard extends VectorCard {
  constructor(modality, number) {
    super(modality, number);
    this.known = this.values.map(() => true);
  }

  initial() {
    return this.modality.columns.map((column) => column.start);
  }

  bounds(place) {
    return this.modality.columns[place];
  }

  take(value) {
    this.known = value.values.map((one) => one !== null);
    this.values = value.values.map((one, place) => one ?? this.modality.columns[place].start);
  }

  has(place) {
    return this.known[place] && this.values[place] !== null;
  }

  sent() {
    const values = this.values.map((value, place) => (this.has(place) ? value : null));
    return values.some((value) => value !== null) ? { values } : null;
  }

  // A line of the list: a box that says whether the column is given, and its control.
  element(place) {
    const row = this.line(place);
    if (!this.given) return row;
    const text = this.modality.names[place], column = this.modality.columns[place];
    const box = make("input", { type: "checkbox", "aria-label": `${this.name} ${text} given`, onchange: () => this.know(place, box.checked) });
    box.checked = this.known[place];
    row.name = make("label", { class: "name known", title: `${text}: ${column.kind}` }, box, text);
    if (!this.known[place]) return row;
    if (column.classes.length) row.track.replaceChildren(this.choice(place));
    else {
      row.side = this.field(place, row);
      if (this.values[place] !== null) row.track.append(this.slider(place, row));
    }
    return row;
  }

  line(place) {
    const text = this.modality.names[place], column = this.modality.columns[place];
    const name = make("span", { class: "name", title: `${text}: ${column.kind}` }, text);
    if (column.classes.length) return { name, track: make("div", { class: "options" }), side: null };
    return { name, track: make("div", { class: "track" }), side: make("span", { class: "number" }) };
  }

  choice(place) {
    const { classes } = this.modality.columns[place];
    const options = classes.map((text, number) => make("option", { value: number, selected: number === this.values[place] }, text));
    const pick = (event) => {
      this.values[place] = Number(event.target.value);
      imputeLater();
    };
    return make("select", { "aria-label": `${this.name} ${this.modality.names[place]}`, onchange: pick }, ...options);
  }

  know(place, on) {
    this.known[place] = on;
    if (on && this.values[place] === null) this.values[place] = this.modality.columns[place].start;
    const old = this.rows.get(place), row = this.element(place);
    this.rows.set(place, row);
    // Only what changes is replaced, so that the focus stays on the box.
    old.track.replaceWith(row.track);
    if (old.side) old.side.replaceWith(row.side);
    row.name = old.name;
    changed();
  }

  show(answer) {
    answer.elements.forEach((place, number) => {
      const row = this.rows.get(place);
      if (row && !(this.given && this.has(place))) this.put(row, place, answer.columns[number], this.compared()?.values[place]);
    });
  }

  // Shows what is predicted for a column.
  put(row, place, found, real) {
    const { classes } = this.modality.columns[place];
    if (classes.length) row.track.replaceChildren(barsOf(classes, found.probabilities, real));
    else {
      const alone = Object.fromEntries(Object.entries(found).map(([what, figure]) => [what, [figure]]));
      this.mark(row, place, 0, alone, real);
    }
  }

  // Whole numbers stay whole.
  inNumbers(place, mean, sd) {
    return this.bounds(place).whole ? `${Math.round(mean)} ± ${short(sd, 2)}` : around(mean, sd);
  }

  guesses(answer) {
    const open = answer.elements.map((place, number) => [place, answer.columns[number].probabilities]).filter(([place, shares]) => shares && !(this.given && this.has(place)));
    return open.slice(0, GUESSES).map(([place, shares]) => `${this.modality.names[place]}: ${likeliest(this.modality.columns[place].classes, shares)}`);
  }

  decoded(answer) {
    const rows = answer.elements.slice(0, DECODED).map((place, number) => {
      const row = this.line(place);
      this.put(row, place, answer.columns[number], null);
      return row;
    });
    return make("div", { class: "elements" }, ...rows.flatMap((row) => [row.name, row.track, row.side]));
  }
}

const KINDS = { image: ImageCard, classes: ClassesCard, columns: ColumnsCard, text: TextCard, flags: VectorCard, values: VectorCard };

// The latent map

class LatentMap {
  constructor(found) {
    this.width = 440;
    this.height = 340;
    const ends = [0, 1].map((axis) => found.points.map((point) => point[axis]));
    this.low = ends.map((along) => Math.min(...along));
    this.high = ends.map((along) => Math.max(...along));
    for (const axis of [0, 1]) {
      const margin = 0.06 * (this.high[axis] - this.low[axis] || 1);
      this.low[axis] -= margin;
      this.high[axis] += margin;
    }
    this.here = draw("g", {});
    this.cross = draw("path", { class: "cross", d: "" });
    this.svg = draw("svg", { viewBox: `0 0 ${this.width} ${this.height}`, tabindex: 0, role: "application", "aria-label": "Latent map: the arrow keys move a point, which is decoded" });
    this.svg.append(...this.clouds(found), this.here, this.cross, ...this.names(found));
    this.point = null;
    this.later = asker(() => post("api/decode", { point: this.point, show: shownElements(), seed: page.seed }), showDecoded, (text) => setText(byId("map-error"), text));
    let pressed = false;
    this.svg.addEventListener("pointerdown", (event) => {
      pressed = true;
      this.moveTo(this.under(event));
    });
    this.svg.addEventListener("pointermove", (event) => pressed && this.moveTo(this.under(event)));
    for (const kind of ["pointerup", "pointerleave", "pointercancel"]) this.svg.addEventListener(kind, () => (pressed = false));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  across([x]) {
    return (this.width * (x - this.low[0])) / (this.high[0] - this.low[0]);
  }

  down([, y]) {
    return this.height - (this.height * (y - this.low[1])) / (this.high[1] - this.low[1]);
  }

  under(event) {
    const box = this.svg.getBoundingClientRect();
    const share = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    return share.map((part, axis) => this.low[axis] + Math.min(1, Math.max(0, part)) * (this.high[axis] - this.low[axis]));
  }

  clouds(found) {
    const dots = (points) => points.map((point) => `M${this.across(point).toFixed(1)} ${this.down(point).toFixed(1)}h0`).join("");
    const of = (wanted) => found.points.filter((_, row) => found.classes[row] === wanted);
    if (!found.classes) return [draw("path", { class: "dots cloud", d: dots(found.points) })];
    const styles = found.names.map((_, number) => [number, `dots c${number % found.colours}${number < found.colours ? "" : " square"}`]);
    return [[-1, "dots other"], ...styles].map(([number, style]) => draw("path", { class: style, d: dots(of(number)) }));
  }

  names(found) {
    const middle = (sorted) => sorted[Math.floor((sorted.length - 1) / 2)];
    return (found.names ?? []).flatMap((text, number) => {
      const own = found.points.filter((_, row) => found.classes[row] === number);
      if (!own.length) return [];
      const at = [0, 1].map((axis) => middle(own.map((point) => point[axis]).sort((one, other) => one - other)));
      return [draw("text", { x: this.across(at), y: this.down(at) }, text)];
    });
  }

  // Marks the draws shown in the cards.
  now(points) {
    const inside = (x, size) => Math.min(size - 6, Math.max(6, x));
    const ring = (point) => draw("circle", { class: "now", r: 4, cx: inside(this.across(point), this.width), cy: inside(this.down(point), this.height) });
    this.here.replaceChildren(...points.map(ring));
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const from = this.point ?? [0, 1].map((axis) => (this.low[axis] + this.high[axis]) / 2);
    const to = from.map((x, axis) => x + 0.03 * step[axis] * (this.high[axis] - this.low[axis]));
    this.moveTo(to.map((x, axis) => Math.min(this.high[axis], Math.max(this.low[axis], x))));
  }

  moveTo(point) {
    this.point = point;
    const x = this.across(point), y = this.down(point);
    this.cross.setAttribute("d", `M${x - 9} ${y}h18M${x} ${y - 9}v18`);
    this.later();
  }
}

function showDecoded(answer) {
  setText(byId("map-error"), "");
  const parts = Object.entries(answer.modalities).map(([name, one]) => make("div", { "data-decoded": name }, make("h3", {}, name), page.cards.get(name).decoded(one)));
  byId("decoded").replaceChildren(...parts);
}

async function openMap() {
  try {
    const found = await ask("api/latent");
    page.map = new LatentMap(found);
    byId("map").replaceChildren(page.map.svg);
    page.map.now(page.points);
    const [first, second] = found.shares.map((share) => SHARE.format(share));
    const coloured = found.label ? `, coloured by ${found.label}` : "";
    byId("map-note").textContent = `Posterior means of ${COUNT.format(found.points.length)} rows of the ${found.split} split${coloured}, projected on their first two principal components (${first} and ${second} of the variance). Rings are the draws shown above. Click a point to decode it; all other directions stay at their mean.`;
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    byId("map-note").textContent = error.message;
  }
}

// Rows

let latestRow = 0;

async function pickRow(number) {
  latestRow += 1;
  const turn = latestRow;
  try {
    const found = await ask(`api/row/${number}`);
    if (turn !== latestRow) return;
    setText(byId("error"), "");
    page.row = number;
    byId("row").value = number;
    byId("of").textContent = `of ${COUNT.format(page.spec.rows.count)}, ${page.spec.rows.split} split${found.id ? `; ${found.id}` : ""}`;
    for (const [name, card] of page.cards) card.pick(found.values[name]);
    changed();
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    if (turn === latestRow) setText(byId("error"), error.message);
  }
}

function offerRows(count) {
  const step = (by) => () => pickRow((page.row + by + count) % count);
  byId("rows").hidden = false;
  byId("row").max = count - 1;
  byId("previous").addEventListener("click", step(-1));
  byId("next").addEventListener("click", step(1));
  byId("random").addEventListener("click", () => pickRow(Math.floor(Math.random() * count)));
  byId("row").addEventListener("change", () => byId("row").value && pickRow(byId("row").value));
  byId("rows").addEventListener("submit", (event) => event.preventDefault());
}

// Start

function giveNothing() {
  for (const card of page.cards.values()) {
    card.given = false;
    card.render();
  }
  changed();
}

function offerPriors(priors) {
  byId("prior").replaceChildren(...priors.map((name) => make("option", { value: name }, name)));
  byId("prior").addEventListener("change", changed);
}

async function begin() {
  const spec = await ask("api/spec");
  page.spec = spec;
  document.title = `${spec.title}: nbridge explore`;
  byId("title").textContent = spec.title;
  byId("subtitle").textContent = `A ${spec.model} model of ${spec.modalities.length === 1 ? "one modality" : `${spec.modalities.length} modalities`}, ${spec.latent_dim} latent dimensions.`;
  spec.modalities.forEach((modality, number) => page.cards.set(modality.name, new KINDS[modality.kind](modality, number)));
  byId("modalities").replaceChildren(...[...page.cards.values()].map((card) => card.node));
  byId("subtitle").append(` ${hint()} to see it imputed from what is given.`);
  for (const card of page.cards.values()) card.render();
  offerPriors(spec.priors);
  byId("again").addEventListener("click", () => {
    page.seed += 1;
    changed();
  });
  byId("nothing").addEventListener("click", giveNothing);
  if (spec.rows) {
    offerRows(spec.rows.count);
    await pickRow(0);
  } else {
    setText(byId("without"), `No rows to choose from: ${spec.without_rows}. Draw, upload or enter values.`);
    changed();
  }
  await openMap();
}

begin().catch((error) => {
  setText(byId("error"), error.message);
  throw error;
});
