// The picture of a card: the photo, its regions, and where the model looks.
const BOX_SCALE = 10000;
const WEIGHT_SCALE = 65535;
const COLOURS = 7; // of regions, in gallery.css
const LABELLED = 12; // labels written on a picture, those of the most confident regions with room

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
