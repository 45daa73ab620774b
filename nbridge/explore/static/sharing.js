// Covariates, two settings side by side, downloads, and the upload of rows.

import { RequestError, ask, byId, changed, div, draw, make, messageOf, page, post, question, setText, setting, short } from "./page.js"

// Covariates

// A choice of the value of a covariate; for numbers a field.
function levelField(covariate, label, values, empty) {
	const pick = () => {
		if (field.value === "") delete values[covariate.name]
		else values[covariate.name] = covariate.classes.length ? field.value : Number(field.value)
		changed()
	}
	const options = [...(empty ? [make("option", { value: "" }, empty)] : []), ...covariate.classes.map((text) => make("option", { value: text }, text))]
	const field = covariate.classes.length
		? make("select", { label: label, onchange: pick }, ...options)
		: make("input", { type: "number", step: "any", label: label, oninput: pick, placeholder: empty || short(covariate.usual) })
	return field
}

export function offerCovariates(covariates) {
	byId("covariates").hidden = !covariates.length
	page.fields = new Map()
	for (const covariate of covariates) {
		const { name } = covariate
		const value = levelField(covariate, `${name} of the row`, page.levels, ""), fixed = levelField(covariate, `impute as if ${name}`, page.fixed, "the same")
		page.fields.set(name, { covariate, value })
		byId("covariates").append(div({ class: "covariate" }, make("b", {}, name), make("label", {}, "of the row ", value), make("label", {}, "impute as if ", fixed)))
	}
	showLevels()
}

// Shows the covariates of a row, or the usual ones.
export function showLevels(found = {}) {
	for (const [name, { covariate, value }] of page.fields) {
		page.levels[name] = found[name] ?? covariate.usual
		value.value = page.levels[name]
	}
}

// What an answer says of a modality, without what is given of it.
function open(answer, name) {
	const one = answer.modalities[name], known = answer.asked.given?.[name]?.values
	if (!known || !one?.elements) return one
	const left = (list) => list.filter((_, number) => known[one.elements[number]] === null)
	return Object.fromEntries(Object.entries(one).map(([what, list]) => [what, left(list)]))
}

// Two settings

function sideBySide(kept, now) {
	const names = [...page.cards.keys()].filter((name) => kept.modalities[name] || now.modalities[name])
	const cell = (answer, name) => div({}, answer.modalities[name] ? page.cards.get(name).decoded(open(answer, name)) : make("p", { class: "quiet" }, "given"))
	const head = (text, answer) => make("h3", {}, `${text}: ${setting(answer)}`)
	byId("compared").replaceChildren(head("Kept", kept), head("Now", now), ...names.flatMap((name) => [make("h4", {}, name), cell(kept, name), cell(now, name)]))
}

function offerComparison() {
	let kept = null
	const show = (answer) => {
		byId("comparison").hidden = !kept
		if (kept) sideBySide(kept, answer)
	}
	page.shown.push(show)
	byId("keep").addEventListener("click", () => {
		kept = page.answer
		if (kept) show(kept)
	})
	byId("forget").addEventListener("click", () => {
		kept = null
		show()
		byId("keep").focus()
	})
}

// Downloads

function save(name, blob) {
	const link = make("a", { href: URL.createObjectURL(blob), download: name })
	link.click()
	setTimeout(() => URL.revokeObjectURL(link.href), 10000)
}

// What is shown as lines: modality, element, class, and figures.
function lines(answer) {
	const head = ["modality", "element", "class", "probability", "mean", "sd", "lower", "upper", "text"]
	const found = []
	const add = (fields) => found.push(head.map((name) => fields[name] ?? ""))
	for (const modality of Object.keys(answer.modalities)) {
		const one = open(answer, modality), { about } = page.cards.get(modality)
		const classes = (names, shares, element = "") => shares.forEach((probability, place) => add({ modality, element, class: names[place], probability }))
		if (one.columns) {
			one.columns.forEach((column, number) => {
				const place = one.elements[number], element = about.names[place]
				if (column.probabilities) classes(about.columns[place].classes, column.probabilities, element)
				else add({ modality, element, ...column })
			})
		} else if (one.probabilities) classes(about.classes, one.probabilities)
		else if (one.texts) one.texts.forEach((text, number) => add({ modality, element: `draw ${number + 1}`, text }))
		else if (one.elements) one.elements.forEach((place, number) => add({ modality, element: about.names[place], mean: one.mean[number], sd: one.sd[number], lower: one.lower[number], upper: one.upper[number] }))
	}
	return [head, ...found]
}

function saveCsv() {
	// A text that begins like a formula is not one in a spreadsheet.
	const quoted = (x) => (typeof x === "number" ? String(x) : `"${x.replace(/^[=+@\t\r-]/, "'$&").replaceAll('"', '""')}"`)
	save("nbridge.csv", new Blob([lines(page.answer).map((line) => line.map(quoted).join(",") + "\n").join("")], { type: "text/csv" }))
}

// The figures and images of the answer as one picture.
async function savePng() {
	const wide = 900, side = 88, rows = lines(page.answer), images = []
	for (const [name, one] of Object.entries(page.answer.modalities)) {
		if (!one.sd || typeof one.sd !== "string") continue
		const loaded = [one.mean, ...one.draws].map((address) => Object.assign(new Image(), { src: address }))
		await Promise.all(loaded.map((image) => image.decode()))
		images.push([name, loaded])
	}
	const canvas = make("canvas", { width: wide, height: 60 + images.length * (side + 40) + rows.length * 24 }), paper = canvas.getContext("2d")
	const style = getComputedStyle(document.body)
	paper.fillStyle = style.backgroundColor
	paper.fillRect(0, 0, canvas.width, canvas.height)
	paper.font = "15px system-ui, sans-serif"
	paper.imageSmoothingEnabled = false
	let y = 30
	const write = (text, x, most) => {
		paper.fillStyle = style.color
		paper.fillText(text, x, y, most)
	}
	write(`${page.spec.title}: ${setting(page.answer)}`, 16, wide - 32)
	y += 30
	for (const [name, loaded] of images) {
		write(`${name}: mean, and draws`, 16)
		loaded.forEach((image, place) => paper.drawImage(image, 16 + place * (side + 8), y + 8, side, (side * image.height) / image.width))
		y += side + 40
	}
	for (const line of rows) {
		write(line.filter((part) => part !== "").map((part) => (typeof part === "number" ? short(part) : part)).join("   "), 16, wide - 32)
		y += 24
	}
	save("nbridge.png", await new Promise((done) => canvas.toBlob(done)))
}

async function savePython() {
	const { python } = await post("api/python", question())
	save("nbridge_draws.py", new Blob([python], { type: "text/x-python" }))
}

// An action whose errors are shown in the page.
const guarded = (work) => async () => {
	try {
		setText(byId("error"), "")
		await work()
	} catch (error) {
		setText(byId("error"), messageOf(error))
	}
}

async function uploadRows(input, explore) {
	const file = input.files[0]
	input.value = ""
	if (!file) return
	if (file.size > page.spec.rows_upload) throw new RequestError(`${file.name}: too large: at most ${page.spec.rows_upload / 2 ** 20} MiB are allowed`)
	const { rows } = await ask("api/rows", { method: "POST", body: file }).catch((error) => {
		throw new RequestError(`${file.name}: ${messageOf(error)}`)
	})
	await explore(file.name, rows)
}

export function offerSharing(explore) {
	offerComparison()
	for (const [name, work] of [["csv", saveCsv], ["png", savePng], ["python", savePython]]) byId(`save-${name}`).addEventListener("click", guarded(async () => page.answer && (await work())))
	const file = byId("rows-file")
	file.addEventListener("change", guarded(() => uploadRows(file, explore)))
}
