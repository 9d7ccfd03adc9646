// The pixels of a photo as it is stored: RGB, or RGBA with colours multiplied by the alpha (`bands` is 3 or 4); its EXIF
// orientation, 1 to 8 (`turn`), and its width and height when it is turned upright. Pillow resizes before it turns, and
// so must we: a browser that has turned a photo by a quarter has other pixels, by a grey level. Browsers turn JPEG and PNG
// whatever they are asked for (`imageOrientation`), so that they get files without the turn.
const STRIP = 2 ** 22; // pixels that are read from a canvas at once: some browsers have no larger ones than 16 million

async function pixelsOf(body) {
  const bytes = new Uint8Array(body);
  const { turn, at } = turnOf(bytes);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob(turn > 1 ? [bytes.subarray(0, at), UPRIGHT, bytes.subarray(at + 2)] : [body]), {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new Error(unreadable(bytes));
  }
  const { width, height } = bitmap;
  const most = Number(document.body.dataset.maxPixels);
  if (width * height > most) {
    bitmap.close();
    throw new Error(`the photo has ${width} x ${height} pixels; at most ${most / 1e6} megapixels are read`);
  }
  const { data, bands } = valuesOf(bitmap, isJpeg(bytes));
  bitmap.close();
  const note = isCmyk(bytes) ? CMYK : turn > 1 && isWebp(bytes) ? SHOWN_UNTURNED : "";
  const [right, down] = turn > 4 ? [height, width] : [width, height];
  return { data, bands, turn, width: right, height: down, note };
}

const UPRIGHT = new Uint8Array(2); // no orientation, in either order of bytes; a PNG's sum is wrong then, and its EXIF data are ignored
const CMYK = "A CMYK photo: each browser makes its own colours of it, so that other programs may caption it otherwise.";
const SHOWN_UNTURNED = "A WebP photo that is to be turned, by its EXIF data: it is captioned upright, and shown as it is stored.";

function valuesOf(bitmap, opaque) {
  const { width, height } = bitmap;
  let bands = 3;
  if (!opaque) {
    strips(bitmap, (data) => {
      for (let at = 3; at < data.length; at += 4) {
        if (data[at] !== 255) {
          bands = 4;
          return true;
        }
      }
    });
  }
  const values = new Uint8Array(width * height * bands);
  let to = 0;
  strips(bitmap, (data) => {
    for (let from = 0; from < data.length; from += 4) {
      const alpha = data[from + 3];
      for (let band = 0; band < 3; band++) values[to++] = bands === 3 ? data[from + band] : multiplied(data[from + band], alpha);
      if (bands === 4) values[to++] = alpha;
    }
  });
  return { data: values, bands };
}

// A colour times the alpha, both of 0 to 255, rounded. A canvas keeps such products, and divides when it is read.
function multiplied(colour, alpha) {
  const product = colour * alpha + 128;
  return (product + (product >> 8)) >> 8;
}

// Read the pixels of a bitmap strip by strip, until `take` returns true.
function strips(bitmap, take) {
  const { width, height } = bitmap;
  const rows = Math.max(Math.min(Math.floor(STRIP / width), height), 1);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height: rows });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += rows) {
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    if (take(context.getImageData(0, 0, width, Math.min(rows, height - top)).data)) return;
  }
}

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
  let exif = null;
  if (isJpeg(bytes)) exif = [...segmentsOf(bytes)].find(([marker, content]) => marker === 0xe1 && textAt(content, 0, 4) === "Exif");
  else if (isWebp(bytes)) exif = [...chunksOf(bytes)].find(([name]) => name === "EXIF");
  else if (textAt(bytes, 1, 4) === "PNG") exif = [...chunksOf(bytes)].find(([name]) => name === "eXIf");
  const found = exif ? orientationOf(exif[1]) : { turn: 1 };
  if (!(found.turn > 1 && found.turn <= 8)) return { turn: 1 };
  return { turn: found.turn, at: exif[1].byteOffset - bytes.byteOffset + found.at };
}

// The orientation in EXIF data, which are a TIFF, and where in them it is; 1 if there is none.
function orientationOf(exif) {
  const start = textAt(exif, 0, 4) === "Exif" ? 6 : 0;
  try {
    const view = new DataView(exif.buffer, exif.byteOffset + start, exif.length - start);
    const little = view.getUint16(0) === 0x4949;
    const first = view.getUint32(4, little);
    for (let entry = first + 2; entry < first + 2 + 12 * view.getUint16(first, little); entry += 12) {
      if (view.getUint16(entry, little) === 0x0112) return { turn: view.getUint16(entry + 8, little), at: start + entry + 8 };
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
