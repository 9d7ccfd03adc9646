// Cards: an image with its captions in the list, a small one in the grid.

function buildCard(card, shown, view, index, total) {
  const name = `card-${card.listed}`;
  const element = make("article", {
    id: name, tabindex: -1, "aria-labelledby": `${name}-name`, "aria-posinset": index + 1, "aria-setsize": total,
    "data-id": card.id,
  });
  element.card = card;
  const picture = make("div", { class: "picture" });
  picture.style.width = `${card.width}px`;
  picture.style.aspectRatio = `${card.width} / ${card.height}`;
  const link = make("a", { href: addressOf({ image: card.id, view: "list" }) }, card.name);
  const title = make("h2", { id: `${name}-name`, dir: "auto" }, link);
  if (view === "grid") {
    const system = shown.includes(orderedSystem()) ? orderedSystem() : shown[0];
    const caption = make("p", { class: "caption", dir: "auto" }, card.said[system].text || "(empty)");
    element.append(make("figure", {}, picture), title, caption, scoreInGrid(card, system));
  } else {
    element.append(make("figure", {}, picture), make("div", { class: "said" }, title));
  }
  fillCard(element, shown, view);
  return element;
}

function scoreInGrid(card, system) {
  const number = currentMetric();
  return make("p", { class: "scores" }, `${metrics[number].name} ${written(metrics[number], card.said[system].scores[number])}`);
}

// What needs the card's block of data; a card that is built before the block is there gets it later.
function fillCard(element, shown, view) {
  const { card } = element;
  const found = details(card);
  element.waits = found === null;
  if (found === null) return;
  fillPicture(element, card);
  if (view === "grid") return;
  const looks = shown.some((system) => found.said[system].looks?.length);
  if (looks) element.querySelector("figure").append(make("p", { class: "looking", "aria-live": "polite" }));
  const list = make("dl");
  for (const system of shown) {
    const said = found.said[system];
    const parts = [captionElement(card, found, shown, system, systems[system]), scoresElement(card, shown, system)];
    if (card.said[system].flags & UNLIKE) {
      parts.push(make("p", { class: "warning" }, "This image looks unlike those that the model was trained on: the caption is probably wrong."));
    }
    if (said.missed) parts.push(missedElement(said.missed));
    if (said.others) {
      const words = said.others.length === 1 ? "1 other caption" : `${said.others.length} other captions`;
      parts.push(onDemand(words, () => othersElement(said.others)));
    }
    if (said.ngrams) parts.push(onDemand("what CIDEr rewards and costs", () => ngramsElement(said.ngrams)));
    list.append(make("div", {}, make("dt", {}, systems[system]), make("dd", {}, ...parts)));
  }
  const said = element.querySelector(".said");
  said.append(list);
  if (card.people.length) {
    said.append(make("h3", {}, "People"), make("ul", {}, ...card.people.map((text) => make("li", { dir: "auto" }, text))));
  }
}

// Draw where the model looks for a word, or with null nothing: `lookFrom` of looks.js.
function look(caption, word) {
  const element = caption.closest("article");
  if (word === null) return clearLook(element);
  const { card } = element;
  const said = details(card).said[caption.dataset.system];
  const boxes = boxesOf(card, details(card));
  const weights = weightsOf(said, Number(word.dataset.word), boxes.length);
  return drawLook(element, card, boxes, weights, word.textContent);
}
