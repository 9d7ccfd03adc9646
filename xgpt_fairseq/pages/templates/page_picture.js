// The picture of a card: the photo, its regions, and where the model looks.
const BOX_SCALE = 10000;
const WEIGHT_SCALE = 65535;
const COLOURS = 7; // of regions, in gallery.css
const LABELLED = 12; // labels written on a picture, those of the most confident regions with so much room:
const LABEL_WIDTH = 50, LABEL_HEIGHT = 13;
const MOST = 3; // regions that are named as a word's

function boxesOf(card, found) {
  const boxes = [];
  for (let i = 0; i < (found.boxes ?? []).length; i += 4) {
    const [x1, y1, x2, y2] = found.boxes.slice(i, i + 4).map((value) => value / BOX_SCALE);
    const number = i / 4;
    const label = found.labels?.[number] ?? "";
    boxes.push({
      number, label,
      x: x1 * card.width, y: y1 * card.height, width: (x2 - x1) * card.width, height: (y2 - y1) * card.height,
      name: label || `region ${number}, ${place(x1, y1, x2, y2)}`,
      score: found.scores?.[number],
    });
  }
  return boxes;
}

// Where a box is, in words.
function place(x1, y1, x2, y2) {
  if ((x2 - x1) * (y2 - y1) > 0.8) return "the whole image";
  const third = (value, names) => names[Math.min(Math.floor(3 * value), 2)];
  const across = third((x1 + x2) / 2, ["left", "", "right"]);
  const down = third((y1 + y2) / 2, ["top", "", "bottom"]);
  return [down, across].filter(Boolean).join(" ") || "centre";
}

function rectangle(box, more = {}) {
  return makeSvg("rect", { x: box.x, y: box.y, width: box.width, height: box.height, ...more });
}

function label(box, card, text, more = {}) {
  const y = Math.min(box.y + 12, Math.max(card.height - 3, 12));
  return makeSvg("text", { x: box.x + 3, y, ...more }, text);
}

// Those of *boxes* whose labels do not lie over the label of one before.
function withRoom(boxes) {
  const placed = [];
  for (const box of boxes) {
    const room = placed.every((o) => Math.abs(o.x - box.x) > LABEL_WIDTH || Math.abs(o.y - box.y) > LABEL_HEIGHT);
    if (room) placed.push(box);
  }
  return placed;
}

// The regions over a picture, the largest first, so that smaller ones are on top.
function regionsDrawing(card, boxes) {
  const names = [...new Set(boxes.map((box) => box.label).filter(Boolean))];
  const described = `${card.name}, ${boxes.length} regions${names.length ? `: ${names.join(", ")}` : ""}`;
  const svg = makeSvg("svg", {
    class: "regions", viewBox: `0 0 ${card.width} ${card.height}`, role: "img", "aria-label": described,
  });
  const named = boxes.filter((box) => box.label && box.x < card.width - LABEL_WIDTH / 2);
  const labelled = withRoom(named).slice(0, LABELLED);
  for (const box of boxes.toSorted((a, b) => b.width * b.height - a.width * a.height)) {
    const title = makeSvg("title", {}, box.score === undefined ? box.name : `${box.name}, ${box.score.toFixed(2)}`);
    svg.append(makeSvg("g", { class: `c${box.number % COLOURS}` }, title, rectangle(box)));
  }
  for (const box of labelled) svg.append(label(box, card, box.label, { class: `c${box.number % COLOURS}` }));
  return svg;
}

function fillPicture(element, card) {
  const found = details(card);
  if (found === null) return;
  const holder = element.querySelector(".picture");
  const boxes = boxesOf(card, found);
  if (found.src) {
    const person = card.people.length ? `: ${card.people[0]}` : "";
    holder.append(make("img", {
      alt: `Photo ${card.name}${person}`, width: card.width, height: card.height, decoding: "async", src: found.src,
    }));
  } else {
    holder.classList.add("drawn");
    const shape = found.square ? ", in a square as the photo's proportions are not known" : "";
    element.querySelector("figure").append(make("figcaption", {}, `no photo; ${boxes.length} regions${shape}`));
  }
  if (boxes.length && (!found.src || document.getElementById("regions"))) holder.append(regionsDrawing(card, boxes));
  if (found.credit) element.querySelector("figure").append(creditLine(found.credit));
}

function creditLine([text, url, licence, licenceUrl]) {
  const link = (words, to) => (to ? make("a", { href: to, rel: "noopener noreferrer" }, words) : words);
  const line = make("p", { class: "credit" }, link(text, url));
  if (licence) line.append(", ", link(licence, licenceUrl));
  return line;
}

// The weights of word *number*, one for each region; they sum to 1.
function weightsOf(said, number, regions) {
  said.bytes ??= Uint8Array.from(atob(said.weights), (character) => character.charCodeAt(0));
  const view = new DataView(said.bytes.buffer);
  return Array.from({ length: regions }, (_, i) => view.getUint16(2 * (number * regions + i), true) / WEIGHT_SCALE);
}

function percent(weight) {
  return `${Math.round(100 * weight)} %`;
}

// Draw where the model looks for a word, over the picture, and say it in words.
function look(element, card, word, said, number) {
  clearLook(element);
  const boxes = boxesOf(card, details(card));
  const weights = weightsOf(said, number, boxes.length);
  const highest = Math.max(...weights);
  const most = boxes.toSorted((a, b) => weights[b.number] - weights[a.number]).slice(0, MOST);
  const svg = makeSvg("svg", {
    class: "attention", viewBox: `0 0 ${card.width} ${card.height}`, "aria-hidden": "true",
    "data-weights": weights.map((weight) => weight.toFixed(5)).join(" "),
  });
  for (const box of boxes) {
    svg.append(rectangle(box, {
      "fill-opacity": (0.6 * weights[box.number] / highest).toFixed(3), class: most.includes(box) ? "most" : "",
    }));
  }
  for (const box of withRoom(most)) svg.append(label(box, card, `${box.label} ${percent(weights[box.number])}`.trim()));
  element.querySelector(".picture").append(svg);
  const names = most.map((box) => `${box.name} ${percent(weights[box.number])}`).join("; ");
  element.querySelector(".looking").replaceChildren(make("b", {}, `“${word}”`), ` looks at ${names}`);
}

function clearLook(element) {
  element.querySelector("svg.attention")?.remove();
  element.querySelector(".looking")?.replaceChildren();
}
