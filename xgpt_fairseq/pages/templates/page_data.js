// The page's data, and what is computed of it.
const data = JSON.parse(document.getElementById("data").textContent);
const systems = data.systems;
const metrics = data.metrics.map(([name, scale, digits]) => ({ name, scale, digits }));
const REPEATS = 1, UNUSED = 2, MISSED = 4, UNLIKE = 8; // of a caption's flags

const cards = data.cards.map(([id, position, name, people, said, width, height], listed) => ({
  id, position, listed, people, width, height,
  name: name === 0 ? id : name,
  said: said.map(([text, scores, flags]) => ({ text, scores, flags })),
}));
const byId = new Map(cards.map((card) => [card.id, card]));

// Blocks come behind the script, as the page is read; the first images are on the screen before the last blocks.
const lines = new Map(); // of blocks
const KEPT = 200; // cards whose details are kept
const kept = new Map();
function details(card) {
  let found = kept.get(card);
  if (found === undefined) {
    const number = Math.floor(card.listed / data.block);
    if (!lines.has(number)) {
      const element = document.getElementById(`block-${number}`);
      // without what follows it, a block may not be whole
      if (element === null || element.nextSibling === null) return null;
      lines.set(number, element.textContent.split("\n"));
    }
    found = JSON.parse(lines.get(number)[card.listed % data.block]);
    kept.set(card, found);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  }
  return found;
}

function searched(card) {
  card.text ??= [card.id, card.name, ...card.people, ...card.said.map((said) => said.text)].join("\n").toLowerCase();
  return card.text;
}

function written(metric, value) {
  return value === null ? "–" : (value * metric.scale).toFixed(metric.digits).replace("-", "−");
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}
