// A caption with its marks, and what is said about it.

// The words of *spans* (start, end, start, end …) of a text, in small letters.
function wordsOf(text, spans) {
  const words = [];
  for (let i = 0; i < spans.length; i += 2) words.push(text.slice(spans[i], spans[i + 1]).toLowerCase());
  return words;
}

// Which of *ours* a longest common subsequence with *theirs* does not have.
function differing(ours, theirs) {
  const common = Array.from({ length: ours.length + 1 }, () => new Uint16Array(theirs.length + 1));
  for (let i = ours.length - 1; i >= 0; i--) {
    for (let j = theirs.length - 1; j >= 0; j--) {
      common[i][j] = ours[i] === theirs[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const differs = [];
  for (let i = 0, j = 0; i < ours.length; ) {
    if (j < theirs.length && ours[i] === theirs[j]) {
      i++;
      j++;
    } else if (j < theirs.length && common[i][j + 1] >= common[i + 1][j]) {
      j++;
    } else {
      differs.push(i++);
    }
  }
  return differs;
}

// The places of words that differ from the first shown system's caption; of that caption, from any other's.
function differencesOf(card, found, shown, system) {
  if (shown.length < 2) return [];
  const words = (number) => wordsOf(card.said[number].text, found.said[number].words);
  const others = system === shown[0] ? shown.slice(1) : [shown[0]];
  const spans = found.said[system].words;
  const differs = new Set(others.flatMap((other) => differing(words(system), words(other))));
  return [...differs].flatMap((number) => spans.slice(2 * number, 2 * number + 2));
}

// For each character of a text whether it is in one of the spans.
function marked(length, spans = []) {
  const inside = new Uint8Array(length);
  for (let i = 0; i < spans.length; i += 2) inside.fill(1, spans[i], spans[i + 1]);
  return inside;
}

// The text as elements: words that the model looks from, and within them runs of characters with the same marks.
function markedText(text, said, differences) {
  if (!text) return [make("i", {}, "(empty)")];
  const marks = [marked(text.length, said.repeated), marked(text.length, said.unused), marked(text.length, differences)];
  const run = (start, end) => {
    const pieces = [];
    for (let from = start, to = start; from < end; from = to) {
      while (to < end && marks.every((mark) => mark[to] === mark[from])) to++;
      let piece = document.createTextNode(text.slice(from, to));
      if (marks[2][from]) piece = make("b", { class: "differs" }, piece);
      if (marks[1][from]) piece = make("u", { class: "unused", title: "no person used this word" }, piece);
      if (marks[0][from]) piece = make("mark", { title: "this phrase repeats" }, piece);
      pieces.push(piece);
    }
    return pieces;
  };
  const elements = [];
  let position = 0;
  for (let i = 0; i < (said.looks ?? []).length; i += 2) {
    const [start, end] = said.looks.slice(i, i + 2);
    if (start === end) continue;
    elements.push(...run(position, start), make("span", { class: "word", "data-word": i / 2 }, ...run(start, end)));
    position = end;
  }
  return [...elements, ...run(position, text.length)];
}

function captionElement(card, found, shown, system, name) {
  const { text } = card.said[system];
  const said = found.said[system];
  const paragraph = make("p", { class: "caption", dir: "auto" }, ...markedText(text, said, differencesOf(card, found, shown, system)));
  if (said.looks?.length) {
    paragraph.classList.add("looks");
    paragraph.tabIndex = 0;
    paragraph.dataset.system = system;
    paragraph.setAttribute("role", "group");
    paragraph.setAttribute("aria-label", `${name}: ${text} (arrow keys go from word to word)`);
  }
  return paragraph;
}

function scoresElement(card, shown, system) {
  const { scores } = card.said[system];
  const line = make("p", { class: "scores" });
  metrics.forEach((metric, number) => {
    if (scores[number] === null) return;
    const best = shown.length > 1 && shown.every((other) => card.said[other].scores[number] <= scores[number]);
    const words = `${metric.name} ${written(metric, scores[number])}`;
    if (line.childNodes.length) line.append(" · ");
    line.append(number === 0 ? make("b", { class: best ? "highest" : null }, words) : words);
  });
  return line;
}

function missedElement(missed) {
  const line = make("p", { class: "missed" }, "not named: ");
  missed.forEach(([object, byPeople], number) => {
    if (number) line.append(", ");
    line.append(byPeople ? make("b", { title: "a person named it" }, object) : object);
  });
  return line;
}

// What opens on demand; its content is made when it does.
function onDemand(title, fill) {
  const element = make("details", {}, make("summary", {}, title));
  element.addEventListener("toggle", () => {
    if (element.open && element.childElementCount === 1) element.append(fill());
  });
  return element;
}

function ngramsElement(ngrams) {
  const items = ngrams.toSorted((a, b) => Math.abs(b[1] - b[2]) - Math.abs(a[1] - a[2])).map(([ngram, reward, cost]) => {
    const item = make("li", {}, make("span", { dir: "auto" }, ngram));
    if (reward) item.append(make("span", { class: "reward" }, `+${(100 * reward).toFixed(1)}`));
    if (cost > 5e-4) item.append(make("span", { class: "cost" }, `−${(100 * cost).toFixed(1)}`));
    return item;
  });
  const note = "Green adds up to the score. Red: what the other phrases of that length would add more without this one.";
  return make("div", {}, make("p", { class: "scores" }, note), make("ul", { class: "ngrams" }, ...items));
}

function othersElement(others) {
  const items = others.map(([text, score]) =>
    make("li", {}, make("span", { dir: "auto" }, text || "(empty)"), " ",
      make("span", { class: "scores" }, written(metrics[0], score))));
  return make("ol", { start: 2 }, ...items);
}
