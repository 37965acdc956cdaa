// What is under the cursor: place on the sky, and the value of each panel; in the source panel, where that light is from.
const place = document.getElementById("place")
const at = (panel, x, y) => {
  const [height, width] = panel.source.data.image[0].shape
  const column = Math.floor((x - panel.x) / panel.dw * width), row = Math.floor((y - panel.y) / panel.dh * height)
  if (column < 0 || row < 0 || column >= width || row >= height) return NaN
  return panel.source.data.image[0][row * width + column]
}
const between = (panel, x, y) => {  // bilinear
  const [height, width] = panel.source.data.image[0].shape
  const dx = panel.dw / width, dy = panel.dh / height
  const u = (x - panel.x) / dx - 0.5, v = (y - panel.y) / dy - 0.5, p = u - Math.floor(u), q = v - Math.floor(v)
  const corner = (i, j) => at(panel, panel.x + (Math.floor(u) + i + 0.5) * dx, panel.y + (Math.floor(v) + j + 0.5) * dy)
  return (1 - q) * ((1 - p) * corner(0, 0) + p * corner(1, 0)) + q * ((1 - p) * corner(0, 1) + p * corner(1, 1))
}
const digits = v => Number.isFinite(v) ? v.toPrecision(4) : "–"
const sexagesimal = (value, decimals) => {
  const unit = 10 ** decimals
  const ticks = Math.round(Math.abs(value) * 3600 * unit)
  const seconds = (ticks % (60 * unit)) / unit, minutes = Math.floor(ticks / (60 * unit)) % 60
  const two = n => String(n).padStart(2, "0")
  return `${two(Math.floor(ticks / (3600 * unit)))}:${two(minutes)}:${seconds.toFixed(decimals).padStart(decimals + 3, "0")}`
}
const {x, y} = cb_obj
const show = (key, value) => { document.getElementById(`value-${key}`).textContent = digits(value) }
const source = panels.find(panel => panel.key === "source")
let text = `x ${x.toFixed(3)}″&ensp;y ${y.toFixed(3)}″`
if (plane === "source") {
  place.innerHTML = `source plane&ensp;${text}`
  for (const panel of panels) show(panel.key, panel === source ? at(panel, x, y) : NaN)
  return
}
if (sky !== null) {  // gnomonic, about the middle of the image
  const degree = Math.PI / 180, [[a, b], [c, d]] = sky.matrix
  const xi = (a * x + b * y) / 3600 * degree, eta = (c * x + d * y) / 3600 * degree
  const sin = Math.sin(sky.dec * degree), cos = Math.cos(sky.dec * degree)
  const ra = sky.ra + Math.atan2(xi, cos - eta * sin) / degree
  const dec = Math.atan2(sin + eta * cos, Math.hypot(xi, cos - eta * sin)) / degree
  text = `<b>${sexagesimal(((ra % 360) + 360) % 360 / 15, 4)}&ensp;${dec < 0 ? "−" : "+"}${sexagesimal(dec, 3)}</b>&ensp;${text}`
}
place.innerHTML = text
for (const panel of panels) if (panel !== source) show(panel.key, at(panel, x, y))
if (alpha !== null) {  // beta = theta - alpha
  const u = x - between(alpha.x, x, y), v = y - between(alpha.y, x, y)
  behind.data = {x: [u], y: [v]}
  if (source !== undefined) show("source", at(source, u, v))
}
