// Stretch and colours of the light panels: the palette of each mapper is set anew. colours.py does the same.
const t = stretch.value
const base = palettes[colours.value]
const curve = {
  linear: x => x,
  sqrt: Math.sqrt,
  asinh: x => Math.asinh(x / softening.asinh) / Math.asinh(1 / softening.asinh),
  log: x => Math.log1p(x / softening.log) / Math.log1p(1 / softening.log),
}[t]
const palette = Array.from({length: steps}, (_, i) => base[Math.round(curve(i / (steps - 1)) * (base.length - 1))])
for (const mapper of mappers) mapper.palette = palette
