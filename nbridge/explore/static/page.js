// The state of the page, `page`, and its tools: elements, numbers, requests.
// Each change sends a new request, one at a time; outdated responses are dropped.

const WAIT = 30; // milliseconds for collecting changes into one request
export const SHARE = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 })
export const COUNT = new Intl.NumberFormat("en")
export const MANY_CLASSES = 20; // with more classes, only the most probable ones are shown
export const GUESSES = 4; // classes of a table named in the status line
export const DECODED = 6; // vector elements shown for a decoded point of the map

export const page = { spec: null, row: null, seed: 0, version: 0, cards: new Map(), map: null, points: [], compared: false, levels: {}, fixed: {}, uploaded: null, answer: null, shown: [] }
export const byId = (id) => document.getElementById(id)

// Elements

export function make(tag, attributes = {}, ...content) {
	const node = document.createElement(tag)
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value)
		else if (name === "label") node.setAttribute("aria-label", value)
		else if (name === "style") for (const [rule, text] of Object.entries(value)) node.style.setProperty(rule, text)
		else if (typeof value === "boolean") node[name] = value
		else if (value !== null && value !== undefined) node.setAttribute(name, value)
	}
	node.append(...content.filter((part) => part !== null))
	return node
}

export const div = (...parts) => make("div", ...parts)
export const span = (...parts) => make("span", ...parts)
export const button = (attributes, text) => make("button", { type: "button", ...attributes }, text)

export function draw(tag, attributes, ...content) {
	const node = document.createElementNS("http://www.w3.org/2000/svg", tag)
	for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
	node.append(...content)
	return node
}

export function setText(node, text) {
	node.textContent = text
	node.hidden = !text
}

export const short = (x, digits = 4) => (Number.isInteger(x) && Math.abs(x) < 1e6 ? String(x) : String(Number(x.toPrecision(digits))))

// A mean, rounded to the precision of its standard deviation.
export function around(mean, sd) {
	const places = sd > 0 ? Math.min(12, Math.max(0, 1 - Math.floor(Math.log10(sd)))) : 3
	return `${mean.toFixed(places)} ± ${places ? sd.toFixed(places) : short(sd, 2)}`
}

// Requests

export class RequestError extends Error {}

// The line of a request's error; other errors are thrown on.
export function messageOf(error) {
	if (!(error instanceof RequestError)) throw error
	return error.message
}

export async function ask(path, options = {}) {
	let response
	try {
		response = await fetch(path, options)
	} catch {
		throw new RequestError("no response from the server; is nbridge explore still running? Start it again, and reload this page")
	}
	const answer = await response.json().catch(() => ({ error: `the server responded with status ${response.status}` }))
	if (!response.ok) throw new RequestError(answer.error)
	return answer
}

export const post = (path, body) => ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) })

// Sends one request at a time; changes made meanwhile are sent after the response.
export function asker(question, answered, failed) {
	let timer = null, busy = false, again = false
	async function run() {
		timer = null
		busy = true
		again = false
		const version = page.version
		try {
			const answer = await question()
			if (version === page.version) answered(answer, again)
		} catch (error) {
			if (!(error instanceof RequestError)) throw error
			if (version === page.version) failed(error.message)
		} finally {
			busy = false
			if (again || version !== page.version) later()
		}
	}
	function later() {
		if (busy) again = true
		else if (timer === null) timer = setTimeout(run, WAIT)
	}
	return later
}

// Called after a change that makes earlier responses outdated.
export function changed() {
	page.version += 1
	imputeLater()
}

let failure = ""

export const imputeLater = asker(imputed, showImputed, (text) => setText(byId("error"), failure = text))

function given() {
	const found = {}
	for (const [name, card] of page.cards) {
		const value = card.given ? card.sent() : null
		if (value !== null) found[name] = value
	}
	return found
}

export function shownElements() {
	const show = {}
	for (const [name, card] of page.cards) if (card.places) show[name] = card.places()
	return show
}

// The request for what is shown.
export function question() {
	const body = { show: shownElements(), seed: page.seed, covariates: { ...page.levels }, fixed: { ...page.fixed } }, known = given()
	return Object.keys(known).length ? { ...body, given: known } : { ...body, prior: byId("prior").value || null }
}

async function imputed() {
	const asked = question()
	const answer = await post(asked.given ? "api/impute" : "api/prior", asked)
	return { ...answer, asked, known: Object.keys(asked.given ?? {}) }
}

function showImputed(answer, more) {
	// Errors of other actions stay until the next one.
	if (byId("error").textContent === failure) setText(byId("error"), "")
	// Predictions from the prior, or from a user's own image, cannot be compared with the chosen row.
	page.compared = answer.known.some((name) => page.cards.get(name).own)
	for (const [name, card] of page.cards) if (answer.modalities[name]) card.show(answer.modalities[name])
	page.points = answer.map ?? []
	page.map?.now(page.points)
	page.answer = answer
	for (const show of page.shown) show(answer)
	byId("priors").hidden = page.spec.priors.length < 2 || answer.known.length > 0
	if (!more) byId("status").textContent = inWords(answer)
}

// What an answer is given, in words.
export function setting(answer) {
	const levels = Object.entries(answer.asked.fixed).map(([name, value]) => `${name} = ${value}`)
	return (answer.known.length ? `from ${answer.known.join(", ")}` : `from the ${byId("prior").value} prior`) + (levels.length ? ` as if ${levels.join(", ")}` : "")
}

function inWords(answer) {
	const names = Object.keys(answer.modalities)
	if (!names.length) return `${columned() ? "Everything is" : "All modalities are"} given. ${hint()} to see it imputed.`
	const guesses = names.flatMap((name) => page.cards.get(name).guesses(answer.modalities[name]))
	const from = setting(answer)
	const open = names.map((name) => (answer.known.includes(name) ? `the rest of ${name}` : name))
	const text = [`${open.join(", ")} ${from}`, ...guesses].join("; ")
	const bars = names.some((name) => answer.modalities[name].elements) ? `; bars are ${SHARE.format(answer.level)} intervals${page.compared ? ", ◆ the row's own values" : ""}` : ""
	return `${text}. Statistics over ${answer.draws} draws${bars}.`
}

// Whether single columns can be given.
export function columned() {
	return page.spec.modalities.some((modality) => modality.kind === "columns")
}

// What to do to see something imputed.
export function hint() {
	const ways = [...(columned() ? ["untick a column"] : []), ...(page.cards.size > 1 ? ["switch a modality off"] : [])]
	const text = ways.join(" or ") || "switch it off"
	return text[0].toUpperCase() + text.slice(1)
}
