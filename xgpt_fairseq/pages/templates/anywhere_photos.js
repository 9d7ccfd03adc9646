// Photos in the size that the network takes, to the pixel as Pillow 13 resizes them: by whole pixels where the photo is
// more than three times as large, then bilinear in fixed-point numbers, within rows and within columns.
const REDUCING_GAP = 3;
const PRECISION = 2 ** 22;

// Python's round: halves to even.
function rounded(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

function sizeOf(width, height, form) {
  if (form.square) return [form.image_size, form.image_size];
  const scale = form.image_size / Math.max(width, height);
  return [width, height].map((side) => Math.max(rounded((side * scale) / form.stride), 1) * form.stride);
}

// The pixels of a photo of `pixelsOf`, resized as it is stored, and turned upright: RGB of the target size.
function fitted({ data, bands, turn, width, height }, target) {
  const [stored, own] = turn > 4 ? [[height, width], [...target].reverse()] : [[width, height], target];
  const pixels = resized(data, ...stored, own, bands);
  return turn > 1 ? turned(pixels, own, turn) : pixels;
}

// RGB pixels of columns x rows, turned and mirrored by an EXIF orientation, 2 to 8.
function turned(pixels, [columns, rows], turn) {
  const [right, down] = turn > 4 ? [rows, columns] : [columns, rows];
  const out = new Uint8Array(pixels.length);
  for (let y = 0, to = 0; y < down; y++) {
    for (let x = 0; x < right; x++) {
      // as it is stored, from the left and from the top, or from the other side
      const [across, along] = turn > 4 ? [y, x] : [x, y];
      const column = [2, 3, 7, 8].includes(turn) ? columns - 1 - across : across;
      const row = [3, 4, 6, 7].includes(turn) ? rows - 1 - along : along;
      const from = (row * columns + column) * 3;
      for (let band = 0; band < 3; band++) out[to++] = pixels[from + band];
    }
  }
  return out;
}

// RGB pixels of width x height → those of the target size; or RGBA ones with colours multiplied by the alpha, which are
// put on white when they are resized.
function resized(data, width, height, [columns, rows], bands = 3) {
  let image = { data, width, height, bands };
  let boxWidth = width;
  let boxHeight = height;
  const factorX = Math.floor(width / columns / REDUCING_GAP) || 1;
  const factorY = Math.floor(height / rows / REDUCING_GAP) || 1;
  if (factorX > 1 || factorY > 1) {
    image = reduced(image, factorX, factorY);
    boxWidth = Math.fround(boxWidth / factorX);
    boxHeight = Math.fround(boxHeight / factorY);
  }
  const passes = [
    [columns, boxWidth, true],
    [rows, boxHeight, false],
  ];
  // Each pass rounds to whole numbers, so that their order counts; Pillow's is the one that takes less work.
  if (image.height - rows > 2 * Math.max(image.width - columns, 0)) passes.reverse();
  for (const [size, length, horizontal] of passes) {
    const own = horizontal ? image.width : image.height;
    if (size !== own || length !== own) image = resampled(image, size, length, horizontal);
  }
  return bands === 4 ? onWhite(image.data) : image.data;
}

// As Pillow divides colours by the alpha again, and composites.
function onWhite(data) {
  const rgb = new Uint8Array((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    const alpha = data[from + 3];
    for (let band = 0; band < 3; band++) {
      const colour = alpha ? Math.min(Math.floor((255 * data[from + band]) / alpha), 255) : 0;
      const sum = (colour * alpha + 255 * (255 - alpha)) * 128 + 128 * 128;
      rgb[to++] = ((sum >> 8) + sum) >> 15;
    }
  }
  return rgb;
}

// The means of blocks of pixels; those at the right and the bottom may be smaller.
function reduced({ data, width, height, bands }, factorX, factorY) {
  const columns = Math.ceil(width / factorX);
  const rows = Math.ceil(height / factorY);
  const out = new Uint8Array(columns * rows * bands);
  for (let row = 0; row < rows; row++) {
    const bottom = Math.min((row + 1) * factorY, height);
    for (let column = 0; column < columns; column++) {
      const right = Math.min((column + 1) * factorX, width);
      const count = (bottom - row * factorY) * (right - column * factorX);
      const share = Math.floor(2 ** 24 / count);
      const sums = new Array(bands).fill(Math.floor(count / 2));
      for (let y = row * factorY; y < bottom; y++) {
        for (let x = column * factorX; x < right; x++) {
          const at = (y * width + x) * bands;
          for (let band = 0; band < bands; band++) sums[band] += data[at + band];
        }
      }
      for (let band = 0; band < bands; band++) {
        out[(row * columns + column) * bands + band] = Math.floor((sums[band] * share) / 2 ** 24);
      }
    }
  }
  return { data: out, width: columns, height: rows, bands };
}

// Resample the columns of all rows, or the rows of all columns; `length`, of the source, may be a fraction.
function resampled({ data, width, height, bands }, size, length, horizontal) {
  const source = horizontal ? width : height;
  const other = horizontal ? height : width;
  const step = horizontal ? bands : width * bands;
  const line = horizontal ? width * bands : bands;
  const out = new Uint8Array(size * other * bands);
  const outStep = horizontal ? bands : other * bands;
  const outLine = horizontal ? size * bands : bands;
  const scale = length / size;
  const support = Math.max(scale, 1);
  for (let place = 0; place < size; place++) {
    const centre = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), source);
    const weights = [];
    let total = 0;
    for (let at = first; at < last; at++) {
      const weight = Math.max(1 - Math.abs((at - centre + 0.5) * (1 / support)), 0);
      weights.push(weight);
      total += weight;
    }
    const fixed = weights.map((weight) => Math.trunc(0.5 + (total ? weight / total : weight) * PRECISION));
    for (let row = 0; row < other; row++) {
      for (let band = 0; band < bands; band++) {
        let sum = PRECISION / 2;
        let from = row * line + first * step + band;
        for (const weight of fixed) {
          sum += data[from] * weight;
          from += step;
        }
        out[row * outLine + place * outStep + band] = Math.min(Math.floor(sum / PRECISION), 255);
      }
    }
  }
  return horizontal ? { data: out, width: size, height, bands } : { data: out, width, height: size, bands };
}
