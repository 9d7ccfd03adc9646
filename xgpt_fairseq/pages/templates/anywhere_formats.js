// What the bytes of a photo's file say without being decoded: its format, its colours, and how it is to be turned.
function isJpeg(bytes) {
  return bytes[0] === 0xff && bytes[1] === 0xd8;
}

function isWebp(bytes) {
  return textAt(bytes, 0, 4) === "RIFF" && textAt(bytes, 8, 12) === "WEBP";
}

// The segments of a JPEG up to its frame, inclusively: [marker, content].
function* segmentsOf(bytes) {
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; ) {
    const marker = bytes[at + 1];
    if (marker === 0xff || marker === 0x01 || (marker >= 0xd0 && marker <= 0xd9)) {
      at += marker === 0xff ? 1 : 2;
      continue;
    }
    const size = (bytes[at + 2] << 8) + bytes[at + 3];
    yield [marker, bytes.subarray(at + 4, at + 2 + size)];
    if (isFrame(marker)) return;
    at += 2 + size;
  }
}

function isFrame(marker) {
  return marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
}

// Whether the file is a JPEG of four colours, by its frame header.
function isCmyk(bytes) {
  if (!isJpeg(bytes)) return false;
  return [...segmentsOf(bytes)].some(([marker, content]) => isFrame(marker) && content[5] === 4);
}

// The chunks of a PNG or a WebP: [name, content].
function* chunksOf(bytes) {
  const webp = isWebp(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = webp ? 12 : 8; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + (webp ? 4 : 0), webp);
    yield [textAt(bytes, at + (webp ? 0 : 4), at + (webp ? 4 : 8)), bytes.subarray(at + 8, at + 8 + size)];
    at += 8 + size + (webp ? size % 2 : 4); // a PNG has a sum of each
  }
}

// The EXIF orientation of a photo, 1 to 8, and where in the file it is.
function turnOf(bytes) {
  const exif = exifOf(bytes);
  const found = exif ? orientationOf(exif) : { turn: 1 };
  if (!(found.turn > 1 && found.turn <= 8)) return { turn: 1 };
  return { turn: found.turn, at: exif.byteOffset - bytes.byteOffset + found.at };
}

// The EXIF data of a photo, a part of its bytes; undefined: it has none.
function exifOf(bytes) {
  const isExif = ([kind, content]) =>
    kind === "EXIF" || kind === "eXIf" || (kind === 0xe1 && textAt(content, 0, 4) === "Exif"); // of WebP, PNG, JPEG
  const isChunked = isWebp(bytes) || textAt(bytes, 1, 4) === "PNG";
  const parts = isJpeg(bytes) ? segmentsOf(bytes) : isChunked ? chunksOf(bytes) : [];
  return [...parts].find(isExif)?.[1];
}

// The orientation in EXIF data, which are a TIFF, and where in them it is; 1 if there is none.
function orientationOf(exif) {
  const start = textAt(exif, 0, 4) === "Exif" ? 6 : 0;
  try {
    const view = new DataView(exif.buffer, exif.byteOffset + start, exif.length - start);
    const little = view.getUint16(0) === 0x4949;
    const first = view.getUint32(4, little);
    for (let entry = first + 2; entry < first + 2 + 12 * view.getUint16(first, little); entry += 12) {
      if (view.getUint16(entry, little) !== 0x0112) continue;
      return { turn: view.getUint16(entry + 8, little), at: start + entry + 8 };
    }
  } catch {
    // cut: outside of the data
  }
  return { turn: 1 };
}

function textAt(bytes, start, end) {
  return String.fromCharCode(...bytes.subarray(start, end));
}

// Why a browser does not read a file, by its first bytes.
function unreadable(bytes) {
  if (!bytes.length) return "the file is empty";
  const text = (start, end) => textAt(bytes, start, end);
  const brand = text(4, 8) === "ftyp" ? text(8, 12) : "";
  let format = "";
  if (["heic", "heix", "heim", "heis", "hevc", "mif1", "msf1"].includes(brand)) format = "HEIC";
  else if (text(0, 4) === "II*\0" || text(0, 4) === "MM\0*") format = "TIFF";
  else if (text(4, 8) === "jP  " || text(0, 4) === "\xff\x4f\xff\x51") format = "JPEG 2000";
  if (format) return `this browser does not read ${format}: save the photo as JPEG or PNG`;
  return "not a photo that this browser can read, or damaged";
}
