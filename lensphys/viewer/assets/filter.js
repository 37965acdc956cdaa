// Lines of the catalogue: those of the chosen verdicts whose name or reasons hold the words.
const shown = new Set(switches.active.map(i => words[i]))
const text = search.value_input.toLowerCase()
const {quality, name, reasons} = source.data
chosen.booleans = Array.from(quality, (q, i) =>
  shown.has(q) && `${name[i]} ${reasons[i]}`.toLowerCase().includes(text))
source.change.emit()
