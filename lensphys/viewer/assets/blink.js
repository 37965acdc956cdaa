// Two panels in turn, in one place: A and B are names of renderers, of which one is visible.
const show = name => {
  for (const [other, renderer] of Object.entries(renderers)) renderer.visible = other === name
  figure.title.text = name
}
clearInterval(window.lensphysBlink)
if (toggle.active) {
  let now = a.value
  window.lensphysBlink = setInterval(() => { now = now === a.value ? b.value : a.value; show(now) }, rate.value)
  toggle.label = "Stop"
} else {
  toggle.label = "Blink"
}
show(a.value)
