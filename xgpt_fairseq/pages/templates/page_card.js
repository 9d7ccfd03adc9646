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

// The pointer or the arrow keys are on a word: *word* is its element, or null.
function lookFrom(caption, word) {
  const element = caption.closest("article");
  caption.querySelector(".now")?.classList.remove("now");
  if (word === null) {
    clearLook(element);
    return;
  }
  word.classList.add("now");
  const said = details(element.card).said[caption.dataset.system];
  look(element, element.card, word.textContent, said, Number(word.dataset.word));
}

function wordAt(target) {
  const word = target.closest?.(".caption.looks .word");
  return word ? [word.closest(".caption"), word] : null;
}

const feed = document.getElementById("cards");
feed.addEventListener("pointerover", (event) => {
  const found = wordAt(event.target);
  if (found) lookFrom(...found);
});
feed.addEventListener("pointerout", (event) => {
  const found = wordAt(event.target);
  // what was tapped, or is chosen by the keys, stays
  if (found && event.pointerType === "mouse" && !wordAt(event.relatedTarget ?? feed)) {
    lookFrom(found[0], found[0] === document.activeElement ? found[0].chosen ?? null : null);
  }
});
feed.addEventListener("click", (event) => {
  const found = wordAt(event.target);
  if (!found) return;
  found[0].chosen = found[1];
  found[0].focus({ preventScroll: true });
  lookFrom(...found);
});
feed.addEventListener("focusin", (event) => {
  const caption = event.target;
  if (!caption.classList.contains("looks")) return;
  caption.chosen ??= caption.querySelector(".word");
  lookFrom(caption, caption.chosen);
});
feed.addEventListener("focusout", (event) => {
  const caption = event.target;
  if (!caption.classList.contains("looks")) return;
  caption.chosen = undefined;
  lookFrom(caption, null);
});

// Whether the key went from one word of a caption to another.
function wordKey(event) {
  const caption = document.activeElement;
  if (!caption?.classList.contains("looks")) return false;
  const words = Array.from(caption.querySelectorAll(".word"));
  const at = words.indexOf(caption.chosen);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: words.length - 1 }[event.key];
  if (to === undefined) return false;
  caption.chosen = words[Math.max(0, Math.min(to, words.length - 1))];
  lookFrom(caption, caption.chosen);
  return true;
}
