// The latent map: a point of it is decoded.

import { COUNT, SHARE, ask, asker, byId, div, draw, make, messageOf, page, post, setText, shownElements } from "./page.js"

class LatentMap {
	constructor(found) {
		this.width = 440
		this.height = 340
		const ends = [0, 1].map((axis) => found.points.map((point) => point[axis]))
		this.low = ends.map((along) => Math.min(...along))
		this.high = ends.map((along) => Math.max(...along))
		for (const axis of [0, 1]) {
			const margin = 0.06 * (this.high[axis] - this.low[axis] || 1)
			this.low[axis] -= margin
			this.high[axis] += margin
		}
		this.here = draw("g", {})
		this.cross = draw("path", { class: "cross", d: "" })
		this.svg = draw("svg", { viewBox: `0 0 ${this.width} ${this.height}`, tabindex: 0, role: "application", "aria-label": "Latent map: the arrow keys move a point, which is decoded" })
		this.svg.append(...this.clouds(found), this.here, this.cross, ...this.names(found), ...this.axes(found))
		this.point = null
		this.later = asker(() => post("api/decode", { point: this.point, show: shownElements(), seed: page.seed }), showDecoded, (text) => setText(byId("map-error"), text))
		let pressed = false
		this.svg.addEventListener("pointerdown", (event) => {
			pressed = true
			this.moveTo(this.under(event))
		})
		this.svg.addEventListener("pointermove", (event) => pressed && this.moveTo(this.under(event)))
		for (const kind of ["pointerup", "pointerleave", "pointercancel"]) this.svg.addEventListener(kind, () => (pressed = false))
		this.svg.addEventListener("keydown", (event) => this.key(event))
	}

	across([x]) {
		return (this.width * (x - this.low[0])) / (this.high[0] - this.low[0])
	}

	down([, y]) {
		return this.height - (this.height * (y - this.low[1])) / (this.high[1] - this.low[1])
	}

	under(event) {
		const box = this.svg.getBoundingClientRect()
		const share = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height]
		return share.map((part, axis) => this.low[axis] + Math.min(1, Math.max(0, part)) * (this.high[axis] - this.low[axis]))
	}

	clouds(found) {
		const dots = (points) => points.map((point) => `M${this.across(point).toFixed(1)} ${this.down(point).toFixed(1)}h0`).join("")
		const of = (wanted) => found.points.filter((_, row) => found.classes[row] === wanted)
		if (!found.classes) return [draw("path", { class: "dots cloud", d: dots(found.points) })]
		const styles = found.names.map((_, number) => [number, `dots c${number % found.colours}${number < found.colours ? "" : " square"}`])
		return [[-1, "dots other"], ...styles].map(([number, style]) => draw("path", { class: style, d: dots(of(number)) }))
	}

	names(found) {
		const middle = (sorted) => sorted[Math.floor((sorted.length - 1) / 2)]
		return (found.names ?? []).flatMap((text, number) => {
			const own = found.points.filter((_, row) => found.classes[row] === number)
			if (!own.length) return []
			const at = [0, 1].map((axis) => middle(own.map((point) => point[axis]).sort((one, other) => one - other)))
			return [draw("text", { x: this.across(at), y: this.down(at) }, text)]
		})
	}

	// The names of the axes, and their ends.
	axes(found) {
		const [first, second] = found.shares.map((share, axis) => `principal component ${axis + 1} (${SHARE.format(share)}), ${this.low[axis].toFixed(1)} to ${this.high[axis].toFixed(1)}`)
		const y = this.height - 9, middle = this.height / 2
		return [draw("text", { class: "axis", x: this.width / 2, y }, `${first} →`), draw("text", { class: "axis", x: 10, y: middle, transform: `rotate(-90 10 ${middle})` }, `${second} →`)]
	}

	// Marks the draws shown in the cards.
	now(points) {
		const inside = (x, size) => Math.min(size - 6, Math.max(6, x))
		const ring = (point) => draw("circle", { class: "now", r: 4, cx: inside(this.across(point), this.width), cy: inside(this.down(point), this.height) })
		this.here.replaceChildren(...points.map(ring))
	}

	key(event) {
		const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key]
		if (!step) return
		event.preventDefault()
		const from = this.point ?? [0, 1].map((axis) => (this.low[axis] + this.high[axis]) / 2)
		const to = from.map((x, axis) => x + 0.03 * step[axis] * (this.high[axis] - this.low[axis]))
		this.moveTo(to.map((x, axis) => Math.min(this.high[axis], Math.max(this.low[axis], x))))
	}

	moveTo(point) {
		this.point = point
		const x = this.across(point), y = this.down(point)
		this.cross.setAttribute("d", `M${x - 9} ${y}h18M${x} ${y - 9}v18`)
		this.later()
	}
}

function showDecoded(answer) {
	setText(byId("map-error"), "")
	const parts = Object.entries(answer.modalities).map(([name, one]) => div({ "data-decoded": name }, make("h3", {}, name), page.cards.get(name).decoded(one)))
	byId("decoded").replaceChildren(...parts)
}

export async function openMap() {
	try {
		const found = await ask("api/latent")
		page.map = new LatentMap(found)
		byId("map").replaceChildren(page.map.svg)
		page.map.now(page.points)
		const [first, second] = found.shares.map((share) => SHARE.format(share))
		const coloured = found.label ? `, coloured by ${found.label}` : ""
		byId("map-note").textContent = `Posterior means of ${COUNT.format(found.points.length)} rows of the ${found.split} split${coloured}, projected on their first two principal components (${first} and ${second} of the variance). Rings are the draws shown above. Click a point to decode it; all other directions stay at their mean.`
	} catch (error) {
		byId("map-note").textContent = messageOf(error)
	}
}
