// The cards on the screen and near it. The list is cut into chunks, and a chunk has cards only while it is near.
const CHUNK = { list: 5, grid: 60 }; // images; 60 fill rows of 2, 4 and 6
const NEAR = 1000; // pixels above and below the screen
const GUESS = { list: 300, grid: 60 }; // pixels of an image, until some were seen

const chunks = { all: [], of: new Map(), list: [], shown: [], view: "list", pixels: GUESS.list, seen: 0 };
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const chunk = chunks.of.get(target);
    if (chunk === undefined) continue;
    if (isIntersecting) buildChunk(chunk);
    else releaseChunk(chunk);
  }
}, { rootMargin: `${NEAR}px 0px` });

// Show these cards, of these systems, from the beginning.
function showCards(list, shown, view) {
  observer.disconnect();
  if (view !== chunks.view || chunks.width !== innerWidth) Object.assign(chunks, { pixels: GUESS[view], seen: 0 });
  Object.assign(chunks, { all: [], of: new Map(), list, shown, view, width: innerWidth });
  const fragment = document.createDocumentFragment();
  for (let from = 0; from < list.length; from += CHUNK[view]) {
    const to = Math.min(from + CHUNK[view], list.length);
    const element = make("div", { class: `chunk ${view}`, role: "presentation" });
    const chunk = { element, from, to, built: false };
    element.style.height = `${(to - from) * chunks.pixels}px`;
    chunks.all.push(chunk);
    chunks.of.set(element, chunk);
    fragment.append(element);
  }
  feed.replaceChildren(fragment);
  if (chunks.all.length) buildChunk(chunks.all[0]);
  for (const { element } of chunks.all) observer.observe(element);
}

function buildChunk(chunk) {
  if (chunk.built) return;
  chunk.built = true;
  const { list, shown, view } = chunks;
  const built = list.slice(chunk.from, chunk.to).map((card, i) => buildCard(card, shown, view, chunk.from + i, list.length));
  chunk.element.replaceChildren(...built);
  chunk.element.style.height = "";
}

function releaseChunk(chunk) {
  if (!chunk.built || chunks.printing || chunk.element.contains(document.activeElement)) return;
  const { height } = chunk.element.getBoundingClientRect();
  chunk.built = false;
  chunk.element.style.height = `${height}px`;
  chunk.element.replaceChildren();
  // the mean of what was seen is the guess for what was not
  chunks.seen++;
  chunks.pixels += (height / (chunk.to - chunk.from) - chunks.pixels) / chunks.seen;
}

function indexOfCard(id) {
  return chunks.list.findIndex((card) => card.id === id);
}

// The card at this place in the list, built; its element comes into view.
function goTo(index, focused = true) {
  const chunk = chunks.all[Math.floor(index / CHUNK[chunks.view])];
  buildChunk(chunk);
  const element = chunk.element.children[index - chunk.from];
  element.scrollIntoView({ block: chunks.view === "grid" ? "nearest" : "start" });
  if (focused) element.focus({ preventScroll: true });
  return element;
}

// The place of the card with the focus, or of the first one that is wholly on the screen.
function currentIndex() {
  const focused = document.activeElement?.closest("article");
  if (focused) return indexOfCard(focused.card.id);
  const top = document.getElementById("controls").getBoundingClientRect().bottom - 2;
  const first = Array.from(feed.querySelectorAll("article")).find((element) => element.getBoundingClientRect().top >= top);
  return first ? indexOfCard(first.card.id) - 1 : -1;
}

function columns() {
  return chunks.view === "grid" ? getComputedStyle(chunks.all[0].element).gridTemplateColumns.split(" ").length : 1;
}

// Cards that were built before their data had come.
function fillWaiting() {
  for (const element of feed.querySelectorAll("article")) {
    if (element.waits) fillCard(element, chunks.shown, chunks.view);
  }
}
const waiting = setInterval(fillWaiting, 30);
document.addEventListener("DOMContentLoaded", () => {
  clearInterval(waiting);
  fillWaiting();
});
let resized = 0;
window.addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => {
    if (chunks.width === innerWidth) return;
    Object.assign(chunks, { pixels: GUESS[chunks.view], seen: 0, width: innerWidth });
  }, 200);
});
// On paper there is no scrolling: all cards.
window.addEventListener("beforeprint", () => {
  chunks.printing = true;
  chunks.all.forEach(buildChunk);
});
window.addEventListener("afterprint", () => {
  chunks.printing = false;
  for (const chunk of chunks.all) {
    const { top, bottom } = chunk.element.getBoundingClientRect();
    if (bottom < -NEAR || top > innerHeight + NEAR) releaseChunk(chunk);
  }
});
