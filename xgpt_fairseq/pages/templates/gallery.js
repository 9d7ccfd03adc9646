"use strict";
// Order and search of the cards; without scripts the page shows them all, as listed.
const cards = Array.from(document.querySelectorAll("article"), (element, listed) => ({
  element,
  listed,
  id: element.dataset.id,
  split: Number(element.dataset.split),
  scores: element.dataset.scores.trim().split(" ").map(Number),
  text: [element.dataset.id, ...Array.from(element.querySelectorAll("dd > p:first-child, li"), (p) => p.textContent)]
    .join("\n").toLowerCase(),
}));
const orders = {
  listed: (a, b) => a.listed - b.listed,
  split: (a, b) => a.split - b.split,
  id: (a, b) => a.id.localeCompare(b.id, "en", { numeric: true }),
  best: (a, b, system) => b.scores[system] - a.scores[system],
  worst: (a, b, system) => a.scores[system] - b.scores[system],
  gain: (a, b, system) => b.scores[system] - b.scores[0] - (a.scores[system] - a.scores[0]),
  loss: (a, b, system) => a.scores[system] - a.scores[0] - (b.scores[system] - b.scores[0]),
};
const order = document.getElementById("order");
const find = document.getElementById("find");
const count = document.getElementById("count");
const all = count.textContent;

function arrange() {
  const [by, system] = order.value.split(" ");
  cards.sort((a, b) => orders[by](a, b, system) || a.listed - b.listed);
  document.getElementById("cards").append(...cards.map((card) => card.element));
}

function search() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const card of cards) {
    card.element.hidden = !words.every((word) => card.text.includes(word));
    shown += card.element.hidden ? 0 : 1;
  }
  count.textContent = words.length ? `${shown} found among ${all}` : all;
}

order.addEventListener("change", arrange);
find.addEventListener("input", search);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
document.querySelector(".scripted").hidden = false;
// A reloaded page keeps what was typed.
arrange();
search();
