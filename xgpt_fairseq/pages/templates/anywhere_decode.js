// The pixels of a photo as it is stored: RGB, or RGBA with colours multiplied by the alpha (`bands` is 3 or 4); its
// EXIF orientation, 1 to 8 (`turn`), and its width and height when it is turned upright. Pillow resizes before it
// turns, and so must we: a browser that has turned a photo by a quarter has other pixels, by a grey level. Browsers
// turn JPEG and PNG whatever they are asked for (`imageOrientation`), so that they get files without the turn.
const STRIP = 2 ** 22; // pixels that are read from a canvas at once: some browsers have no larger ones than 16 million

async function pixelsOf(body) {
  const bytes = new Uint8Array(body);
  const { turn, at } = turnOf(bytes);
  const parts = turn > 1 ? [bytes.subarray(0, at), UPRIGHT, bytes.subarray(at + 2)] : [body];
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob(parts), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
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

// No orientation, in either order of bytes. The sum of a PNG's EXIF data is wrong then, so that they are ignored.
const UPRIGHT = new Uint8Array(2);
const CMYK = "A CMYK photo: each browser makes its own colours of it, so that other programs may caption it otherwise.";
const SHOWN_UNTURNED =
  "A WebP photo that is to be turned, by its EXIF data: it is captioned upright, and shown as it is stored.";

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
      for (let band = 0; band < 3; band++) {
        const colour = data[from + band];
        values[to++] = bands === 3 ? colour : multiplied(colour, alpha);
      }
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
