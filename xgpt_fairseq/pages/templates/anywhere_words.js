// Tokens → text: fairseq's symbols, joined as runtime/xgpt_runtime/words.py and moses.py join them.
const CJK = [
  [4352, 4607], [11904, 42191], [43072, 43135], [44032, 55215], [63744, 64255], [65072, 65103], [65381, 65500],
  [94208, 101119], [110592, 110895], [110960, 111359], [131072, 196607],
];
const EUROPEAN = [[0, 0x590], [0x1e00, 0x2000], [0x2c60, 0x2c80], [0xa720, 0xa800], [0xab30, 0xab70]];
const HIDDEN = "ɐ"; // stands for a fragile part

function textOf(tokens, words) {
  const pieces = tokens.map((token) => words.symbols[token]);
  if (words.joined === "pieces") return pieces.join("").replaceAll("\u2581", " ").trim();
  const joined = `${pieces.join(" ")} `.replaceAll("@@ ", "").split(/\s+/u).filter(Boolean);
  if (!words.keeps_fragile) return detokenized(joined);
  const parts = [];
  const hidden = joined.map((word) => hide(word, parts));
  return detokenized(hidden).replaceAll(HIDDEN, () => parts.shift());
}

// The word with a letter in place of its fragile part, which is added to the parts.
function hide(word, parts) {
  const characters = Array.from(word);
  const fragile = characters.map(isFragile);
  for (const match of word.matchAll(/<\/?[\p{L}\p{N}][\p{L}\p{N}_-]*\/?>/gu)) {
    const start = Array.from(word.slice(0, match.index)).length;
    fragile.fill(true, start, start + Array.from(match[0]).length);
  }
  let start = fragile.indexOf(true);
  if (start < 0) return word;
  let end = fragile.lastIndexOf(true) + 1;
  const joins = (character) => /[\p{L}\p{N}]/u.test(character);
  while (start && joins(characters[start - 1])) start--;
  while (end < characters.length && joins(characters[end])) end++;
  parts.push(characters.slice(start, end).join(""));
  return [...characters.slice(0, start), HIDDEN, ...characters.slice(end)].join("");
}

function isFragile(character) {
  const code = character.codePointAt(0);
  if (code < 0x80) return false;
  if (character === HIDDEN || /[\p{M}\p{Cf}\p{Cn}\p{Co}]/u.test(character)) return true;
  if (code >= 0x2000 && code < 0x2c00) return code >= 0x2300 && /\p{So}/u.test(character);
  return !EUROPEAN.some(([first, end]) => first <= code && code < end);
}

function isCjk(character) {
  return CJK.some(([first, last]) => first <= character.codePointAt(0) && character.codePointAt(0) <= last);
}

function detokenized(words) {
  const tokens = ` ${words.join(" ")} `.replaceAll(" @-@ ", "-").split(/\s+/u).filter(Boolean);
  const opened = {};
  let text = "";
  let space = " ";
  tokens.forEach((token, place) => {
    const before = place ? tokens[place - 1] : "";
    if (isCjk(Array.from(token)[0])) {
      text += before && isCjk(Array.from(before).at(-1)) ? token : space + token;
      space = " ";
    } else if (/^[\p{Sc}([{¿¡]+$/u.test(token)) {
      text += space + token;
      space = "";
    } else if (/^[,.?!:;\\%}\])]+$/u.test(token) || (before && /^'\p{L}/u.test(token))) {
      text += token;
      space = " ";
    } else if (/^['"„“`]+$/u.test(token)) {
      const kind = /^[„“]+$/u.test(token) ? '"' : token;
      if ((opened[kind] ?? 0) % 2) {
        text += token;
        space = " ";
        opened[kind]++;
      } else if (token === "'" && before.endsWith("s")) {
        text += token;
        space = " ";
      } else {
        text += space + token;
        space = "";
        opened[kind] = (opened[kind] ?? 0) + 1;
      }
    } else {
      text += space + token;
      space = " ";
    }
  });
  return text.trim();
}

// The words of a caption: xgpt_runtime/attention.py. [{start, end, first, last}], places in the text and of subwords.
function wordsOfPieces(pieces, text, joined) {
  const moses = joined !== "pieces";
  const starts = [];
  pieces.forEach((piece, number) => {
    const begins = moses
      ? !(number && pieces[number - 1].endsWith("@@"))
      : piece.startsWith("\u2581") || UNSPACED.test(piece);
    if (begins || !number) starts.push(number);
  });
  const words = [];
  let position = 0;
  starts.forEach((first, place) => {
    const last = starts[place + 1] ?? pieces.length;
    const whole = pieces.slice(first, last).join("");
    const spelled = (moses ? whole.replaceAll("@@", "") : whole).replaceAll("\u2581", "").trim();
    if (!spelled) return;
    const [start, end] = findWord(spelled, text, position);
    words.push({ start, end, first, last });
    position = end;
  });
  return words;
}

// Scripts that are written without spaces between words.
const UNSPACED = /(?=[\p{L}\p{M}])(?![\u303b\u{16fe3}\u{16ff0}\u{16ff1}\u{1b002}-\u{1b11e}])[\u30fc\ua9cf\uff70\uff9e\uff9f\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}\p{sc=Tibetan}\p{sc=Javanese}\p{sc=Balinese}]/u;

// Where the word is in the text from a position on, spaces within it left out; an empty place if it is not next.
function findWord(word, text, position) {
  const isSpace = (place) => place < text.length && /\s/u.test(text[place]);
  let start = position;
  while (isSpace(start)) start++;
  let end = start;
  for (const unit of word.split("")) {
    while (isSpace(end) && !/\s/u.test(unit)) end++;
    if (text[end] !== unit) {
      const found = text.indexOf(word, position);
      return found >= 0 ? [found, found + word.length] : [position, position];
    }
    end++;
  }
  return [start, end];
}
