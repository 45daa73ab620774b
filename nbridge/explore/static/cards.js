// Cards, one per modality: its controls if it is given, and what is imputed if it is not.

import { COUNT, DECODED, GUESSES, MANY_CLASSES, RequestError, SHARE, ask, around, button, changed, div, draw, imputeLater, make, messageOf, page, setText, short, span } from "./page.js"

class Card {
	constructor(modality, number) {
		this.about = modality
		this.name = modality.name
		this.given = number === 0
		this.real = null; // its value in the chosen row
		this.own = false; // whether the given value started as that value
		const id = `modality-${number}`
		this.switch = make("input", { type: "checkbox", role: "switch", id: `${id}-given`, label: `${this.name} given`, onchange: () => this.give(this.switch.checked) })
		this.body = div()
		this.error = make("p", { class: "error", role: "alert", hidden: true })
		const kind = modality.columns ? `${COUNT.format(modality.size)} column${modality.size === 1 ? "" : "s"}` : `${modality.likelihood}, ${modality.shape.join(" × ")}`
		this.node = make(
			"section",
			{ class: "card", "aria-labelledby": id, "data-modality": this.name },
			div({ class: "head" }, make("h2", { id }, this.name), span({ class: "quiet" }, kind), make("label", { class: "switch" }, this.switch, "given")),
			this.body,
			this.error,
		)
	}

	// Switches the modality on or off.
	give(on) {
		this.given = on
		this.render()
		changed()
	}

	pick(value) {
		this.real = value
		setText(this.error, "")
		this.own = value !== null
		if (value === null) this.given = false
		else this.take(value)
		this.render()
	}

	// Classes to name in the status line.
	guesses() {
		return []
	}

	// The true value to compare with the imputed one.
	compared() {
		return page.compared ? this.real : null
	}

	render() {
		this.switch.checked = this.given
		this.node.classList.toggle("given", this.given)
		this.fill()
	}
}

class ClassesCard extends Card {
	constructor(modality, number) {
		super(modality, number)
		this.label = 0
	}

	take(value) {
		this.label = value.label
	}

	sent() {
		return { label: this.label }
	}

	fill() {
		const options = this.about.classes.map((text, place) => make("option", { value: place, selected: place === this.label }, text))
		const pick = (event) => {
			this.label = Number(event.target.value)
			imputeLater()
		}
		this.body.replaceChildren(this.given ? make("select", { label: this.name, onchange: pick }, ...options) : div())
	}

	show(answer) {
		if (!this.given) this.body.replaceChildren(this.bars(answer.probabilities, this.compared()?.label))
	}

	guesses(answer) {
		return [`${this.name}: ${likeliest(this.about.classes, answer.probabilities)}`]
	}

	decoded(answer) {
		return this.bars(answer.probabilities, null)
	}

	bars(shares, real) {
		const note = real === undefined || real === null ? null : make("p", { class: "quiet" }, "◆ the row's own class")
		return div({}, barsOf(this.about.classes, shares, real), note)
	}
}

// The most probable class with its probability.
function likeliest(classes, shares) {
	const best = shares.indexOf(Math.max(...shares))
	return `${classes[best]} ${SHARE.format(shares[best])}`
}

// One bar of all classes, as wide as their probabilities, which sum to 1, with their names; of many classes, the others together.
function barsOf(classes, shares, real) {
	let places = shares.map((_, place) => place), rest = 0
	if (places.length > MANY_CLASSES) {
		places.sort((one, other) => shares[other] - shares[one])
		rest = places.splice(MANY_CLASSES).reduce((sum, place) => sum + shares[place], 0)
	}
	const parts = places.map((place) => ({ text: classes[place], share: shares[place], own: place === real, colour: `var(--c${place % 8})` }))
	if (rest) parts.push({ text: "all others", share: rest, own: false, colour: "var(--line)" })
	const bar = div({ class: "stack", "aria-hidden": "true" }, ...parts.map((part) =>
		span({ title: `${part.text}: ${SHARE.format(part.share)}`, style: { width: `${100 * part.share}%`, background: part.colour } })))
	const names = parts.map((part) => make("li", {}, make("i", { style: { background: part.colour } }),
		span({ class: part.own ? "name isreal" : "name", title: part.text }, part.text + (part.own ? " ◆" : "")), " ", span({ class: "share" }, SHARE.format(part.share))))
	return div({ class: "bars" }, bar, make("ul", {}, ...names))
}

// The axis of an element: logarithmic, log(1 + x), for counts over more than a factor of 20.
function axisOf({ low, high, count }) {
	const log = Boolean(count) && low >= 0 && high >= 20 * Math.max(1, low)
	const of = (x) => (log ? Math.log1p(Math.max(0, x)) : x), span = of(high) - of(low)
	return { log, share: (x) => Math.min(1, Math.max(0, (of(x) - of(low)) / span)), value: (share) => (log ? Math.expm1(of(low) + share * span) : low + share * span) }
}

// The ends of an axis, under a slider or an interval.
const endsOf = ({ low, high, count }) =>
	make("small", { class: "ends" }, span({}, short(low, 3)), axisOf({ low, high, count }).log ? span({}, "log") : "", span({}, short(high, 3)))

class TextCard extends Card {
	constructor(modality, number) {
		super(modality, number)
		this.text = ""
	}

	take(value) {
		this.text = value.text
	}

	sent() {
		return this.text.trim() ? { text: this.text } : null
	}

	fill() {
		const write = (event) => {
			this.text = event.target.value
			changed()
		}
		const field = make("input", { type: "text", label: `${this.name}, at most ${this.about.most} ${this.about.unit}`, oninput: write })
		field.value = this.text
		this.body.replaceChildren(this.given ? field : div())
	}

	show(answer) {
		if (!this.given) this.body.replaceChildren(this.written(answer, this.compared()?.text))
	}

	decoded(answer) {
		return this.written(answer, null)
	}

	written(answer, real) {
		const draws = make("ul", {}, ...answer.texts.map((text) => make("li", {}, text)))
		const note = real === undefined || real === null ? null : make("p", { class: "quiet" }, `◆ the row's own: ${real}`)
		return div({}, make("p", {}, answer.best), make("p", { class: "quiet" }, "and drawn:"), draws, note)
	}
}

class ImageCard extends Card {
	constructor(modality, number) {
		super(modality, number)
		const [, height, width] = modality.shape
		this.canvas = make("canvas", { width, height, class: modality.drawable ? "drawable" : "" })
		this.paper = this.canvas.getContext("2d", { willReadFrequently: true })
		this.rubber = false
		this.clear()
		this.sheet = div({ class: "sheet", style: { "--wide": `${Math.max(224, Math.min(256, 14 * Math.max(width, height)) * (width / Math.max(width, height)))}px` } }, this.canvas)
		if (modality.drawable) this.letDraw()
		else this.canvas.setAttribute("role", "img")
		this.nameCanvas()
	}

	nameCanvas(more = "") {
		const how = this.about.drawable ? "; draw with a pointer, or move with the arrow keys and press Space" : ""
		this.canvas.setAttribute("aria-label", `${this.name}, given image${how}${more}`)
	}

	clear() {
		this.own = false
		this.paper.fillStyle = "#000"
		this.paper.fillRect(0, 0, this.canvas.width, this.canvas.height)
		this.drawn()
	}

	// The image on the canvas is no longer that of a row.
	drawn() {
		this.value = { picture: this.canvas.toDataURL("image/png") }
	}

	take(value) {
		this.value = page.uploaded ? { picture: value.picture } : { row: page.row }
		this.put(value.picture)
	}

	async put(address) {
		const image = new Image()
		image.src = address
		const value = this.value
		await image.decode()
		if (value === this.value) this.paper.drawImage(image, 0, 0, this.canvas.width, this.canvas.height)
	}

	sent() {
		return this.value
	}

	fill() {
		if (!this.given) {
			this.body.replaceChildren()
			return
		}
		const change = (work) => () => {
			work()
			this.drawn()
			changed()
		}
		const tool = (text, rubber) => {
			const press = (event) => {
				this.rubber = rubber
				for (const other of event.target.parentNode.querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", String(other === event.target))
			}
			return button({ "aria-pressed": String(this.rubber === rubber), onclick: press }, text)
		}
		const file = make("input", { type: "file", class: "unseen", accept: "image/*", label: `Upload a picture for ${this.name}`, onchange: () => this.upload(file) })
		const tools = [
			...(this.about.drawable ? [tool("Pen", false), tool("Rubber", true), button({ onclick: change(() => this.clear()) }, "Clear")] : []),
			button({ onclick: change(() => this.invert()) }, "Invert"),
			span({ class: "button" }, "Upload…", file),
		]
		this.body.replaceChildren(this.sheet, div({ class: "tools" }, ...tools))
	}

	invert() {
		const { width, height } = this.canvas
		const pixels = this.paper.getImageData(0, 0, width, height)
		for (let place = 0; place < pixels.data.length; place += 1) if (place % 4 !== 3) pixels.data[place] = 255 - pixels.data[place]
		this.paper.putImageData(pixels, 0, 0)
	}

	async upload(input) {
		const file = input.files[0]
		input.value = ""
		if (!file) return
		setText(this.error, "")
		try {
			if (file.size > page.spec.upload) throw new RequestError(`too large: at most ${page.spec.upload / 2 ** 20} MiB are allowed`)
			const answer = await ask(`api/upload?modality=${encodeURIComponent(this.name)}`, { method: "POST", body: file })
			this.value = { picture: answer.picture }
			this.own = false
			await this.put(answer.picture)
			changed()
		} catch (error) {
			setText(this.error, messageOf(error))
		}
	}

	// Drawing

	letDraw() {
		const { canvas } = this
		let last = null
		this.at = null
		this.cursor = div({ class: "cursor", hidden: true })
		this.sheet.append(this.cursor)
		canvas.tabIndex = 0
		const place = (event) => {
			const box = canvas.getBoundingClientRect()
			return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height]
		}
		canvas.addEventListener("pointerdown", (event) => {
			canvas.setPointerCapture(event.pointerId)
			last = place(event)
			this.stroke(last, last)
		})
		canvas.addEventListener("pointermove", (event) => {
			if (last === null) return
			const events = event.getCoalescedEvents?.() ?? []
			for (const one of events.length ? events : [event]) {
				const next = place(one)
				this.stroke(last, next)
				last = next
			}
		})
		for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(kind, () => (last = null))
		canvas.addEventListener("keydown", (event) => this.key(event))
		canvas.addEventListener("blur", () => (this.cursor.hidden = true))
	}

	key(event) {
		const { width, height } = this.canvas
		const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
		if (!step && event.key !== " ") return
		event.preventDefault()
		this.at ??= [Math.floor(width / 2), Math.floor(height / 2)]
		if (step) this.at = [Math.min(width - 1, Math.max(0, this.at[0] + step[0])), Math.min(height - 1, Math.max(0, this.at[1] + step[1]))]
		else this.stroke([this.at[0] + 0.5, this.at[1] + 0.5], [this.at[0] + 0.5, this.at[1] + 0.5])
		const box = { left: this.at[0] / width, top: this.at[1] / height, width: 1 / width, height: 1 / height }
		for (const [rule, share] of Object.entries(box)) this.cursor.style.setProperty(rule, `${100 * share}%`)
		this.cursor.hidden = false
		this.nameCanvas(`; line ${this.at[1] + 1}, column ${this.at[0] + 1}`)
	}

	// Draws a line with soft edges, in a width proportional to the image.
	stroke([x0, y0], [x1, y1]) {
		const { width, height } = this.canvas
		const radius = Math.max(0.6, Math.max(width, height) / 26)
		const pixels = this.paper.getImageData(0, 0, width, height)
		const length = (x1 - x0) ** 2 + (y1 - y0) ** 2
		for (let y = 0; y < height; y += 1) {
			for (let x = 0; x < width; x += 1) {
				const along = length ? Math.min(1, Math.max(0, ((x + 0.5 - x0) * (x1 - x0) + (y + 0.5 - y0) * (y1 - y0)) / length)) : 0
				const away = Math.hypot(x + 0.5 - x0 - along * (x1 - x0), y + 0.5 - y0 - along * (y1 - y0))
				const ink = Math.round(255 * Math.min(1, Math.max(0, radius + 0.5 - away)))
				const place = 4 * (y * width + x)
				const value = this.rubber ? Math.min(pixels.data[place], 255 - ink) : Math.max(pixels.data[place], ink)
				pixels.data.fill(value, place, place + 3)
			}
		}
		this.paper.putImageData(pixels, 0, 0)
		this.drawn()
		imputeLater()
	}

	// Imputed values

	show(answer) {
		if (!this.given) this.body.replaceChildren(...this.pictures(answer))
	}

	pictures(answer) {
		const draws = answer.draws.map((address, number) => make("img", { src: address, alt: `draw ${number + 1} of ${this.name}` }))
		const tile = (address, caption, alt) => make("figure", {}, make("img", { src: address, alt }), make("figcaption", {}, caption))
		const figures = [
			tile(answer.mean, "mean", `mean of ${this.name}`),
			tile(answer.sd, `deviation, 0 to ${short(answer.most, 2)}`, `standard deviation of ${this.name}, bright where it is large`),
			this.compared() ? tile(this.real.picture, "◆ the row's own", `${this.name} of the row itself`) : null,
		]
		return [div({ class: "tiles draws" }, ...draws), div({ class: "tiles figures" }, ...figures.filter(Boolean))]
	}

	decoded(answer) {
		return div({ class: "tiles figures" }, make("img", { src: answer.mean, alt: `${this.name} at this point` }))
	}
}

class VectorCard extends Card {
	constructor(modality, number) {
		super(modality, number)
		this.values = this.initial()
		this.first = 0
		this.varied = false
		this.find = ""
		this.list = div({ class: "elements" })
		this.tools = modality.size > page.spec.page ? this.paging() : null
	}

	initial() {
		return [...this.about.start]
	}

	// The range of an element, and whether it is a whole number.
	bounds(place) {
		const { low, high, whole, count } = this.about
		return { low: low[place], high: high[place], whole, count }
	}

	take(value) {
		this.values = [...value.values]
	}

	sent() {
		return this.values.some((value) => value !== null) ? { values: this.values } : null
	}

	// Paging

	paging() {
		const search = make("input", { type: "search", placeholder: "Find", label: `Find an element of ${this.name}`, oninput: () => this.turn({ find: search.value.trim().toLowerCase(), first: 0 }) })
		const order = make("select", { label: `Order of ${this.name}`, onchange: () => this.turn({ varied: order.value === "varied", first: 0 }) },
			make("option", { value: "place" }, "in order"), make("option", { value: "varied" }, "most varying"))
		this.count = span({ class: "quiet", role: "status" })
		this.back = button({ label: `Earlier elements of ${this.name}`, onclick: () => this.turn({ first: this.first - page.spec.page }) }, "‹")
		this.forth = button({ label: `Further elements of ${this.name}`, onclick: () => this.turn({ first: this.first + page.spec.page }) }, "›")
		return div({ class: "tools" }, search, order, span({ class: "pager" }, this.back, this.count, this.forth))
	}

	turn(change) {
		Object.assign(this, change)
		this.fill()
		changed()
	}

	all() {
		const places = this.varied ? this.about.varied : this.about.names.map((_, place) => place)
		return this.find ? places.filter((place) => this.about.names[place].toLowerCase().includes(this.find)) : places
	}

	places() {
		return this.all().slice(this.first, this.first + page.spec.page)
	}

	fill() {
		const places = this.places()
		if (this.tools) {
			const number = this.all().length
			this.count.textContent = number ? `${COUNT.format(this.first + 1)}–${COUNT.format(this.first + places.length)} of ${COUNT.format(number)}` : "none"
			this.back.disabled = this.first === 0
			this.forth.disabled = this.first + page.spec.page >= number
		}
		this.rows = new Map(places.map((place) => [place, this.element(place)]))
		this.list.replaceChildren(...[...this.rows.values()].flatMap((row) => [row.name, row.track, row.side].filter((part) => part !== null)))
		// Replaced only if needed, because that would move the focus.
		if (this.list.parentNode !== this.body) this.body.replaceChildren(...(this.tools ? [this.tools] : []), this.list)
	}

	// A line of the list: name, track, and an input field or a statistic.
	element(place) {
		const row = this.line(place)
		if (!this.given) return row
		if (this.about.binary) return this.toggle(place, row)
		row.side = this.field(place, row)
		if (this.values[place] !== null) row.track.append(this.slider(place, row))
		return row
	}

	slider(place, row) {
		const bounds = this.bounds(place), { low, high, whole } = bounds, axis = axisOf(bounds)
		const ends = axis.log ? { min: 0, max: 1, step: 0.005 } : { min: low, max: high, step: whole ? 1 : (high - low) / 200 }
		const say = () => axis.log && slider.setAttribute("aria-valuetext", short(this.values[place]))
		const slide = () => {
			const x = axis.log ? axis.value(Number(slider.value)) : Number(slider.value)
			this.values[place] = whole ? Math.round(x) : x
			say()
			row.side.value = short(this.values[place])
			imputeLater()
		}
		const slider = make("input", { type: "range", ...ends, label: `${this.name} ${this.about.names[place]}`, oninput: slide })
		slider.move = () => {
			slider.value = axis.log ? axis.share(this.values[place]) : this.values[place]
			say()
		}
		slider.move()
		return div({ class: "slide" }, slider, endsOf(bounds))
	}

	field(place, row) {
		const type = () => {
			if (field.validity.badInput) return
			this.values[place] = field.value === "" ? null : Number(field.value)
			const slider = row.track.querySelector("input")
			if (this.values[place] === null || !slider) {
				for (const what of ["tabindex", "role", "aria-label", "data-tip"]) row.track.removeAttribute(what)
				row.track.replaceChildren(...(this.values[place] === null ? [] : [this.slider(place, row)]))
			} else slider.move()
			imputeLater()
		}
		const label = `${this.name} ${this.about.names[place]}, a number; empty if not observed`
		const field = make("input", { type: "number", step: this.bounds(place).whole ? 1 : "any", inputmode: "decimal", label: label, oninput: type })
		if (this.values[place] !== null) field.value = short(this.values[place])
		return field
	}

	toggle(place, row) {
		const box = make("input", { type: "checkbox", label: `${this.name} ${this.about.names[place]}` })
		box.checked = this.values[place] === 1
		box.indeterminate = this.values[place] === null
		row.side.textContent = this.values[place] ?? ""
		box.addEventListener("change", () => {
			this.values[place] = box.checked ? 1 : 0
			row.side.textContent = this.values[place]
			imputeLater()
		})
		row.track.append(box)
		return row
	}

	// Imputed values

	show(answer) {
		answer.elements.forEach((place, number) => {
			const row = this.rows.get(place)
			if (!row || (this.given && this.values[place] !== null)) return
			if (this.given && this.about.binary) return
			this.mark(row, place, number, answer, this.compared()?.values[place])
		})
	}

	mark(row, place, number, answer, real) {
		const bounds = this.bounds(place), axis = axisOf(bounds)
		const at = (x) => `${100 * axis.share(x)}%`
		const mark = (kind, x) => span({ class: kind, style: { left: at(x) } })
		const from = parseFloat(at(answer.lower[number])), to = parseFloat(at(answer.upper[number]))
		const band = span({ class: "span", style: { left: `${from}%`, width: `${Math.max(0.5, to - from)}%` } })
		const known = real === undefined || real === null ? [] : [mark("real", real)]
		const flag = this.about.kind === "flags"
		const middle = flag ? `Probability ${SHARE.format(answer.mean[number])}` : `Mean ${short(answer.mean[number])}; 90 % of the draws are between ${short(answer.lower[number])} (5 % quantile) and ${short(answer.upper[number])} (95 % quantile), dots are single draws`
		const text = `${this.about.names[place]}: ${middle}`
		const focused = document.activeElement === row.track
		for (const [what, value] of Object.entries({ tabindex: 0, role: "img", "aria-label": text, "data-tip": middle })) row.track.setAttribute(what, value)
		row.track.replaceChildren(endsOf(bounds), band, ...answer.draws[number].map((x) => mark("dot", x)), mark("mean", answer.mean[number]), ...known)
		if (focused) row.track.focus()
		if (row.side.tagName === "INPUT") {
			row.side.placeholder = short(answer.mean[number])
			return
		}
		row.side.textContent = flag ? SHARE.format(answer.mean[number]) : this.inNumbers(place, answer.mean[number], answer.sd[number])
	}

	inNumbers(place, mean, sd) {
		return around(mean, sd)
	}

	line(place) {
		const text = this.about.names[place]
		return { name: span({ class: "name", title: text }, text), track: div({ class: "track" }), side: span({ class: "number" }) }
	}

	put(row, place, number, answer) {
		this.mark(row, place, number, answer, null)
	}

	decoded(answer) {
		const rows = answer.elements.slice(0, DECODED).map((place, number) => {
			const row = this.line(place)
			this.put(row, place, number, answer)
			return row
		})
		return div({ class: "elements" }, ...rows.flatMap((row) => [row.name, row.track, row.side].filter(Boolean)))
	}
}

// A table: a number or a choice of classes for each column, each given or not.
class ColumnsCard extends VectorCard {
	constructor(modality, number) {
		super(modality, number)
		this.known = this.values.map(() => true)
	}

	initial() {
		return this.about.columns.map((column) => column.start)
	}

	bounds(place) {
		return this.about.columns[place]
	}

	take(value) {
		this.known = value.values.map((one) => one !== null)
		this.values = value.values.map((one, place) => one ?? this.about.columns[place].start)
	}

	has(place) {
		return this.known[place] && this.values[place] !== null
	}

	sent() {
		const values = this.values.map((value, place) => (this.has(place) ? value : null))
		return values.some((value) => value !== null) ? { values } : null
	}

	// A line of the list: a box that says whether the column is given, and its control.
	element(place) {
		const row = this.line(place)
		if (!this.given) return row
		const text = this.about.names[place], column = this.about.columns[place]
		const box = make("input", { type: "checkbox", label: `${this.name} ${text} given`, onchange: () => this.know(place, box.checked) })
		box.checked = this.known[place]
		row.name = make("label", { class: "name known", title: `${text}: ${column.kind}` }, box, text)
		if (!this.known[place]) return row
		if (column.classes.length) row.track.replaceChildren(this.choice(place))
		else {
			row.side = this.field(place, row)
			if (this.values[place] !== null) row.track.append(this.slider(place, row))
		}
		return row
	}

	line(place) {
		const text = this.about.names[place], column = this.about.columns[place]
		const name = span({ class: "name", title: `${text}: ${column.kind}` }, text)
		if (column.classes.length) return { name, track: div({ class: "options" }), side: null }
		return { name, track: div({ class: "track" }), side: span({ class: "number" }) }
	}

	choice(place) {
		const { classes } = this.about.columns[place]
		const options = classes.map((text, number) => make("option", { value: number, selected: number === this.values[place] }, text))
		const pick = (event) => {
			this.values[place] = Number(event.target.value)
			imputeLater()
		}
		return make("select", { label: `${this.name} ${this.about.names[place]}`, onchange: pick }, ...options)
	}

	know(place, on) {
		this.known[place] = on
		if (on && this.values[place] === null) this.values[place] = this.about.columns[place].start
		const old = this.rows.get(place), row = this.element(place)
		this.rows.set(place, row)
		// Only what changes is replaced, so that the focus stays on the box.
		old.track.replaceWith(row.track)
		if (old.side) old.side.replaceWith(row.side)
		row.name = old.name
		changed()
	}

	show(answer) {
		answer.elements.forEach((place, number) => {
			const row = this.rows.get(place)
			if (row && !(this.given && this.has(place))) this.put(row, place, number, answer, this.compared()?.values[place])
		})
	}

	// Shows what is predicted for a column.
	put(row, place, number, answer, real = null) {
		const found = answer.columns[number], { classes } = this.about.columns[place]
		if (classes.length) row.track.replaceChildren(barsOf(classes, found.probabilities, real))
		else {
			const alone = Object.fromEntries(Object.entries(found).map(([what, figure]) => [what, [figure]]))
			this.mark(row, place, 0, alone, real)
		}
	}

	// Whole numbers stay whole.
	inNumbers(place, mean, sd) {
		return this.bounds(place).whole ? `${Math.round(mean)} ± ${short(sd, 2)}` : around(mean, sd)
	}

	guesses(answer) {
		const open = answer.elements.map((place, number) => [place, answer.columns[number].probabilities]).filter(([place, shares]) => shares && !(this.given && this.has(place)))
		return open.slice(0, GUESSES).map(([place, shares]) => `${this.about.names[place]}: ${likeliest(this.about.columns[place].classes, shares)}`)
	}
}

export const KINDS = { image: ImageCard, classes: ClassesCard, columns: ColumnsCard, text: TextCard, flags: VectorCard, values: VectorCard }
