// Photos come by drop, paste or file dialog, and each gets a card. `ask`, of another file, captions them.
const AT_ONCE = 2; // one photo is read while another is captioned
const LONGER_SIDE = 320; // of a picture, in pixels
const COLOURS = 7; // of regions, in gallery.css
const SAID = 50; // captions that are kept for screen readers

const drop = document.getElementById("drop");
const input = document.getElementById("photos");
const beam = document.getElementById("beam");
const cards = document.getElementById("cards");
const count = document.getElementById("count");
const said = document.getElementById("said");
const maxBytes = Number(document.body.dataset.maxBytes);
const waiting = [];
let photos = 0;
let running = 0;

class Card {
  constructor(file) {
    this.file = file;
    this.beam = beam.value;
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    const name = this.find("h2");
    name.textContent = file.name;
    name.id = `photo-${++photos}`;
    this.element.setAttribute("aria-labelledby", name.id);
    const image = this.find("img");
    image.alt = file.name;
    image.addEventListener("load", () => this.resize(image.naturalWidth, image.naturalHeight));
    image.addEventListener("error", () => {
      image.remove();
      this.find("figcaption").hidden = false;
    });
    image.src = URL.createObjectURL(file);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  show(selector, text) {
    const element = this.find(selector);
    element.textContent = text;
    element.hidden = false;
  }

  resize(width, height) {
    const scale = LONGER_SIDE / Math.max(width, height);
    this.width = Math.max(Math.round(width * scale), 1);
    this.height = Math.max(Math.round(height * scale), 1);
    this.find(".picture").style.width = `${this.width}px`;
    this.find(".picture").style.aspectRatio = `${this.width} / ${this.height}`;
  }

  async caption() {
    this.find(".busy span:last-child").textContent = "captioning";
    let text;
    try {
      const answer = await ask(await content(this.file), this.beam);
      text = answer.caption || "(empty)";
      this.showAnswer(answer, text);
    } catch (error) {
      text = error.message;
      this.show(".error", text);
    }
    this.find(".busy").hidden = true;
    this.element.setAttribute("aria-busy", "false");
    const line = document.createElement("p");
    line.textContent = `${this.file.name}: ${text}`;
    said.append(line);
    if (said.childElementCount > SAID) said.firstElementChild.remove();
  }

  showAnswer(answer, text) {
    const [best, ...others] = answer.hypotheses;
    this.show(".caption", text);
    if (answer.note) this.show(".note", answer.note);
    this.show(".scores", `${document.body.dataset.score} ${score(best)} · beam ${this.beam}`);
    if (others.length) {
      this.show("summary", others.length === 1 ? "1 other caption" : `${others.length} other captions`);
      this.find("ol").append(...others.map(listed));
      this.find("details").hidden = false;
    }
    this.find(".warning").hidden = !answer.unlike;
    const image = this.find("img");
    if (image) image.alt = text;
    this.resize(answer.width, answer.height);
    this.boxes = boxesIn(answer.regions, this.width, this.height);
    this.find(".picture").append(drawing(this.boxes, this.width, this.height));
    this.weights = answer.weights;
    this.showWords(text, answer.words);
  }

  // The words of the caption, from which the model's look can be drawn: start, end, start, end …
  showWords(text, words) {
    const caption = this.find(".caption");
    const pieces = [];
    let position = 0;
    for (let i = 0; i < words.length; i += 2) {
      const [start, end] = words.slice(i, i + 2);
      if (start === end) continue;
      const word = document.createElement("span");
      word.className = "word";
      word.dataset.word = i / 2;
      word.textContent = text.slice(start, end);
      pieces.push(text.slice(position, start), word);
      position = end;
    }
    if (!pieces.length) return;
    caption.replaceChildren(...pieces, text.slice(position));
    caption.classList.add("looks");
    caption.tabIndex = 0;
    caption.setAttribute("role", "group");
    caption.setAttribute("aria-label", `${text} (arrow keys go from word to word)`);
    this.find(".looking").hidden = false;
    this.element.card = this;
  }
}

// Draw where the model looks for a word, or with null nothing: `lookFrom` of looks.js.
async function look(caption, word) {
  const element = caption.closest("article");
  if (word === null) {
    clearLook(element);
    return;
  }
  try {
    const weights = await element.card.weights();
    const still = word.classList.contains("now"); // or the pointer has gone on meanwhile
    if (still) drawLook(element, element.card, element.card.boxes, weights[word.dataset.word], word.textContent);
  } catch (error) {
    element.querySelector(".looking").textContent = error.message;
  }
}

function score(hypothesis) {
  return hypothesis.score.toFixed(2).replace("-", "−");
}

function listed(hypothesis) {
  const item = document.createElement("li");
  const text = document.createElement("span");
  text.dir = "auto";
  text.textContent = hypothesis.text || "(empty)";
  const value = document.createElement("span");
  value.className = "scores";
  value.textContent = score(hypothesis);
  item.append(text, " ", value);
  return item;
}

// The regions in a picture of this size.
function boxesIn(regions, width, height) {
  return regions.map(([x1, y1, x2, y2], number) => ({
    number, label: "", name: `region ${number}, ${place(x1, y1, x2, y2)}`,
    x: x1 * width, y: y1 * height, width: (x2 - x1) * width, height: (y2 - y1) * height,
  }));
}

// The regions over a picture of this size, the largest first, so that smaller ones are on top.
function drawing(boxes, width, height) {
  const svg = makeSvg("svg", {
    class: "regions", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${boxes.length} regions`,
  });
  for (const box of boxes.toSorted((a, b) => b.width * b.height - a.width * a.height)) {
    const title = makeSvg("title", {}, `region ${box.number}`);
    svg.append(makeSvg("g", { class: `c${box.number % COLOURS}` }, title, rectangle(box)));
  }
  return svg;
}

async function content(file) {
  if (file.size > maxBytes) throw new Error(`the file has more than ${maxBytes / 1e6} MB`);
  try {
    return await file.arrayBuffer();
  } catch {
    throw new Error("the browser cannot read it: is it a folder?");
  }
}

function add(files) {
  const fresh = Array.from(files, (file) => new Card(file));
  cards.prepend(...fresh.map((card) => card.element));
  waiting.push(...fresh);
  next();
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    running++;
    waiting.shift().caption().finally(() => {
      running--;
      next();
    });
  }
  const left = running + waiting.length;
  if (photos) count.textContent = `${photos} photo${photos === 1 ? "" : "s"}${left ? `, ${left} to come` : ""}`;
}

function hasFiles(event) {
  return event.dataTransfer.types.includes("Files");
}

// Anywhere on the page: a file that is dropped beside the frame would replace the page.
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  add(event.clipboardData.files);
});
input.addEventListener("change", () => {
  add(input.files);
  input.value = ""; // so that the same file can be chosen again
});
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey || event.altKey) && wordKey(event)) event.preventDefault();
});
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
