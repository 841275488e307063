/** Runs in the browser: the contrast of each visible text with what is behind it, lowest first. */
;(() => {
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number)
    return [r, g, b, a]
  }
  const over = ([r, g, b, a], [r2, g2, b2]) => [r, g, b].map((c, i) => c * a + [r2, g2, b2][i] * (1 - a))
  const behind = (node) => {
    const layers = []
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor))
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255])
  }
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) =>
      c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4,
    )
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const ratio = (colour, node) => {
    const ground = behind(node)
    const [high, low] = [luminance(over(parse(colour), ground)), luminance(ground)].sort((a, b) => b - a)
    return (high + 0.05) / (low + 0.05)
  }
  const found = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement
    const text = walker.currentNode.textContent.trim()
    if (text === "" || node.closest("script, style, template") || !node.checkVisibility()) continue
    found.push({ text, ratio: ratio(getComputedStyle(node).color, node) })
  }
  for (const input of document.querySelectorAll("input[placeholder]")) {
    found.push({
      text: input.placeholder,
      ratio: ratio(getComputedStyle(input, "::placeholder").color, input),
    })
  }
  return found.sort((a, b) => a.ratio - b.ratio)
})()
