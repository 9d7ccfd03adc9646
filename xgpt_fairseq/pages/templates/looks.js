// Where a model looks for each word of a caption: the words by pointer, finger or arrow keys, and the drawing. The page's
// own `look(caption, word)` draws for a word, or with null nothing.
const LABEL_WIDTH = 50, LABEL_HEIGHT = 13; // room of a label on a picture
const MOST = 3; // regions that are named as a word's
const feed = document.getElementById("cards");

function makeSvg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
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

function percent(weight) {
  return `${Math.round(100 * weight)} %`;
}

// Draw the weights of *boxes*, in pixels of a picture of this size, over the picture, and say them in words.
function drawLook(element, { width, height }, boxes, weights, word) {
  clearLook(element);
  const highest = Math.max(...weights);
  const most = boxes.toSorted((a, b) => weights[b.number] - weights[a.number]).slice(0, MOST);
  const svg = makeSvg("svg", {
    class: "attention", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true",
    "data-weights": weights.map((weight) => weight.toFixed(5)).join(" "),
  });
  for (const box of boxes) {
    svg.append(rectangle(box, {
      "fill-opacity": (0.6 * weights[box.number] / highest).toFixed(3), class: most.includes(box) ? "most" : "",
    }));
  }
  for (const box of withRoom(most)) {
    svg.append(label(box, { height }, `${box.label} ${percent(weights[box.number])}`.trim()));
  }
  element.querySelector(".picture").append(svg);
  const names = most.map((box) => `${box.name} ${percent(weights[box.number])}`).join("; ");
  element.querySelector(".looking").replaceChildren(boldly(`“${word}”`), ` looks at ${names}`);
}

function boldly(text) {
  const element = document.createElement("b");
  element.textContent = text;
  return element;
}

function clearLook(element) {
  element.querySelector("svg.attention")?.remove();
  element.querySelector(".looking")?.replaceChildren();
}

// The pointer or the arrow keys are on a word: *word* is its element, or null.
function lookFrom(caption, word) {
  caption.querySelector(".now")?.classList.remove("now");
  word?.classList.add("now");
  look(caption, word);
}

function wordAt(target) {
  const word = target.closest?.(".caption.looks .word");
  return word ? [word.closest(".caption"), word] : null;
}

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
