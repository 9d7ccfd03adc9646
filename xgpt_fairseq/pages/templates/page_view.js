// What is shown: order, search, filters, systems and view, which are in the page's address, and the keys.
const controls = {};
for (const id of ["order", "metric", "find", "only", "min", "max", "view"]) controls[id] = document.getElementById(id);
const boxes = Array.from(document.querySelectorAll("#systems input"));
const count = document.getElementById("count");
const collator = new Intl.Collator("en", { numeric: true });
const flags = { repeats: REPEATS, unused: UNUSED, missed: MISSED, unlike: UNLIKE };
const defaults = { order: "listed", metric: metrics[0].name, find: "", only: "", min: "", max: "", view: "list" };
const first = controls.order.options[0];
if (cards.every((card, i) => !i || cards[i - 1].position < card.position)) {
  first.remove();
  defaults.order = "split";
}

function currentMetric() {
  return Math.max(metrics.findIndex((metric) => metric.name === controls.metric?.value), 0);
}

// The system that the order is about, -1 if there is none.
function orderedSystem() {
  return systems.indexOf(controls.order.value.split(" ").slice(1).join(" "));
}

function shownSystems() {
  const shown = boxes.filter((box) => box.checked).map((box) => systems.indexOf(box.value));
  return shown.length ? shown : systems.map((_, number) => number);
}

function stateNow() {
  const state = Object.fromEntries(Object.keys(defaults).map((id) => [id, controls[id]?.value ?? defaults[id]]));
  state.systems = boxes.every((box) => box.checked) ? "" : boxes.filter((box) => box.checked).map((box) => box.value).join("\n");
  return state;
}

// The address of this view, with *changes*; what is as at first is left out.
function addressOf(changes = {}) {
  const state = { ...stateNow(), ...changes };
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value && value !== defaults[name]) parts.set(name, value);
  return `#${parts}`;
}

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  for (const id of Object.keys(defaults)) {
    const control = controls[id];
    if (!control) continue;
    control.value = parts.get(id) ?? defaults[id];
    if (control.selectedIndex === -1) control.value = defaults[id]; // no such choice
  }
  const chosen = parts.get("systems")?.split("\n");
  for (const box of boxes) box.checked = !chosen || chosen.includes(box.value);
  return parts.get("image");
}

function inOrder() {
  const by = controls.order.value.split(" ")[0];
  if (by === "listed") return cards;
  if (by === "id") return cards.toSorted((a, b) => collator.compare(a.name, b.name) || a.listed - b.listed);
  const system = orderedSystem();
  const number = currentMetric();
  const score = (card, which) => card.said[which].scores[number] ?? -Infinity;
  const key = { // the highest first
    split: (card) => -card.position,
    best: (card) => score(card, system),
    worst: (card) => -score(card, system),
    gain: (card) => score(card, system) - score(card, 0),
    loss: (card) => score(card, 0) - score(card, system),
  }[by];
  const keys = cards.map(key);
  return cards.toSorted((a, b) => keys[b.listed] - keys[a.listed] || a.listed - b.listed);
}

function isShown(shown) {
  const words = controls.find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const only = controls.only.value;
  const number = currentMetric();
  const bound = (input, otherwise) => (input.value === "" ? otherwise : Number(input.value));
  const least = bound(controls.min, -Infinity), most = bound(controls.max, Infinity);
  const { scale, digits } = metrics[number];
  return (card) => {
    if (words.length && !words.every((word) => searched(card).includes(word))) return false;
    if (only === "differ" && shown.every((system) => card.said[system].text === card.said[shown[0]].text)) return false;
    if (flags[only] && !shown.some((system) => card.said[system].flags & flags[only])) return false;
    if (least === -Infinity && most === Infinity) return true;
    return shown.some((system) => {
      const score = card.said[system].scores[number];
      if (score === null) return false;
      const seen = Number((score * scale).toFixed(digits)); // as it is written
      return seen >= least && seen <= most;
    });
  };
}

let list = [];
function update() {
  const shown = shownSystems();
  list = inOrder().filter(isShown(shown));
  showCards(list, shown, controls.view.value);
  const all = cards.length < data.total ? `${cards.length} of ${data.total}` : `${data.total}`;
  const plural = data.total === 1 ? "" : "s";
  count.textContent = list.length < cards.length ? `${list.length} found among ${all} image${plural}` : `${all} image${plural}`;
  document.getElementById("none").hidden = list.length > 0;
}

// After a change by hand. The address waits until typing pauses: browsers refuse to change it often within seconds.
let addressTimer;
function changed() {
  update();
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    try {
      history.replaceState(null, "", addressOf());
    } catch (error) {
      console.warn(`the address is not that of this view: ${error.message}`);
    }
  }, 200);
}

// After the address has changed: a link, or the browser's history.
function arrived(focused) {
  const image = readAddress();
  update();
  let index = image === null ? -1 : indexOfCard(image);
  if (index < 0 && image !== null && byId.has(image)) { // filtered away
    for (const id of ["find", "only", "min", "max"]) controls[id].value = "";
    update();
    index = indexOfCard(image);
  }
  if (index >= 0) goTo(index, focused);
}

function save(name, type, text) {
  const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// What is shown, as records of names and values.
function records() {
  const shown = shownSystems();
  return list.map((card) => ({
    image_id: card.id,
    name: card.name,
    captions: Object.fromEntries(shown.map((system) => [systems[system], {
      caption: card.said[system].text,
      scores: Object.fromEntries(metrics.map((metric, i) => [metric.name, card.said[system].scores[i]]).filter(([, score]) => score !== null)),
    }])),
    people: card.people,
  }));
}

function csv() {
  const shown = shownSystems();
  const cell = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
  const used = metrics.filter((_, i) => cards.some((card) => card.said.some((said) => said.scores[i] !== null)));
  const head = ["image_id", "name", ...shown.flatMap((s) => [systems[s], ...used.map((m) => `${systems[s]} ${m.name}`)]), "people"];
  const rows = records().map(({ image_id, name, captions, people }) => [
    image_id, name,
    ...Object.values(captions).flatMap(({ caption, scores }) => [caption, ...used.map((m) => scores[m.name])]),
    people.join("\n"),
  ]);
  return [head, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

const fileName = data.title.replace(/[^\p{L}\p{N}]+/gu, "_").replace(/^_+|_+$/g, "") || "captions";
document.getElementById("csv").addEventListener("click", () => save(`${fileName}.csv`, "text/csv", csv()));
document.getElementById("json").addEventListener("click", () =>
  save(`${fileName}.json`, "application/json", `${JSON.stringify(records(), null, 1)}\n`));

const form = document.getElementById("controls");
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", (event) => {
  if (!["regions", "find", "min", "max"].includes(event.target.id)) changed();
});
form.addEventListener("input", (event) => {
  if (["find", "min", "max"].includes(event.target.id)) changed();
});
window.addEventListener("hashchange", () => {
  clearTimeout(addressTimer); // its view would replace this address
  arrived(true);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea, summary, button");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "/") {
    controls.find.focus();
    controls.find.select();
  } else if (!wordKey(event)) {
    const rows = chunks.view === "grid" ? { ArrowDown: columns(), ArrowUp: -columns() } : {};
    const step = { ArrowRight: 1, ArrowLeft: -1, ...rows }[event.key];
    if (event.key === "Enter" && chunks.view === "grid" && event.target.matches("article")) {
      event.target.querySelector("a").click();
    } else if (step === undefined || !list.length) {
      return;
    } else {
      goTo(Math.max(0, Math.min(currentIndex() + step, list.length - 1)));
    }
  }
  event.preventDefault();
});
arrived(false);
// The first search need not wait for the texts to be put together.
setTimeout(() => cards.forEach(searched), 1000);
