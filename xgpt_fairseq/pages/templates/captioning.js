"use strict";
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
    this.find(".picture").append(drawing(answer.regions, this.width, this.height));
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

// The regions over a picture of this size, the largest first, so that smaller ones are on top.
function drawing(regions, width, height) {
  const svg = svgElement("svg", { class: "regions", viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label", `${regions.length} regions`);
  const boxes = regions.map(([x1, y1, x2, y2], number) => ({ x1, y1, width: x2 - x1, height: y2 - y1, number }));
  boxes.sort((a, b) => b.width * b.height - a.width * a.height);
  for (const box of boxes) {
    const group = svgElement("g", { class: `c${box.number % COLOURS}` });
    const title = svgElement("title", {});
    title.textContent = `region ${box.number}`;
    const place = { x: box.x1 * width, y: box.y1 * height, width: box.width * width, height: box.height * height };
    group.append(title, svgElement("rect", place));
    svg.append(group);
  }
  return svg;
}

function svgElement(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
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
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
