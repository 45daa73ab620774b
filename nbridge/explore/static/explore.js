// The page of nbridge explore: controls built from /api/spec, and the model's predictions of the modalities that are not given.

import { KINDS } from "./cards.js"
import { openMap } from "./map.js"
import { COUNT, RequestError, ask, byId, changed, hint, make, messageOf, page, setText } from "./page.js"
import { offerCovariates, offerSharing, showLevels } from "./sharing.js"

// Rows

let latestRow = 0

async function pickRow(number) {
	latestRow += 1
	const turn = latestRow
	try {
		const found = page.uploaded ? uploadedRow(number) : await ask(`api/row/${number}`)
		if (turn !== latestRow) return
		setText(byId("error"), "")
		page.row = number
		byId("row").value = number
		byId("of").textContent = `of ${COUNT.format(rowCount())}, ${page.uploaded ? page.uploaded.name : `${page.spec.rows.split} split`}${found.id ? `; ${found.id}` : ""}`
		showLevels(found.covariates)
		for (const [name, card] of page.cards) card.pick(found.values[name])
		changed()
	} catch (error) {
		const line = messageOf(error)
		if (turn === latestRow) setText(byId("error"), line)
	}
}

const rowCount = () => page.uploaded?.rows.length ?? page.spec.rows.count

function uploadedRow(number) {
	const found = page.uploaded.rows[number]
	if (!found) throw new RequestError(`row ${number}: no such row; the file has rows 0 to ${rowCount() - 1}`)
	return found
}

// Explores the rows of an uploaded file from now on.
async function exploreFile(name, rows) {
	page.uploaded = { name, rows }
	setText(byId("without"), "")
	byId("rows").hidden = false
	byId("row").max = rowCount() - 1
	await pickRow(0)
}

function offerRows() {
	const step = (by) => () => pickRow((page.row + by + rowCount()) % rowCount())
	byId("previous").addEventListener("click", step(-1))
	byId("next").addEventListener("click", step(1))
	byId("random").addEventListener("click", () => pickRow(Math.floor(Math.random() * rowCount())))
	byId("row").addEventListener("change", () => byId("row").value && pickRow(Number(byId("row").value)))
	byId("rows").addEventListener("submit", (event) => event.preventDefault())
}

// Start

function giveNothing() {
	for (const card of page.cards.values()) {
		card.given = false
		card.render()
	}
	changed()
}

function offerPriors(priors) {
	byId("prior").replaceChildren(...priors.map((name) => make("option", { value: name }, name)))
	byId("prior").addEventListener("change", changed)
}

async function begin() {
	const spec = await ask("api/spec")
	page.spec = spec
	document.title = `${spec.title}: nbridge explore`
	byId("title").textContent = spec.title
	byId("subtitle").textContent = `A ${spec.model} model of ${spec.modalities.length === 1 ? "one modality" : `${spec.modalities.length} modalities`}, ${spec.latent_dim} latent dimensions.`
	spec.modalities.forEach((modality, number) => page.cards.set(modality.name, new KINDS[modality.kind](modality, number)))
	byId("modalities").replaceChildren(...[...page.cards.values()].map((card) => card.node))
	byId("subtitle").append(` ${hint()} to see it imputed from what is given.`)
	for (const card of page.cards.values()) card.render()
	offerPriors(spec.priors)
	offerCovariates(spec.covariates)
	offerSharing(exploreFile)
	offerRows()
	byId("again").addEventListener("click", () => {
		page.seed += 1
		changed()
	})
	byId("nothing").addEventListener("click", giveNothing)
	if (spec.rows) {
		byId("rows").hidden = false
		byId("row").max = rowCount() - 1
		await pickRow(0)
	} else {
		setText(byId("without"), `No rows to choose from: ${spec.without_rows}. Draw, upload or enter values.`)
		changed()
	}
	await openMap()
}

begin().catch((error) => {
	setText(byId("error"), error.message)
	throw error
})
