// Captions by the graphs in the page itself: `ask` of captioning.js, without a server.
const settings = JSON.parse(document.getElementById("data-settings").textContent);
const lenpen = Number(document.body.dataset.lenpen);
let opened = null; // the sessions, once the first photo comes
let last = Promise.resolve(); // photos are captioned one by one

// `packed(name)`, of another file, gives the compressed bytes of a part of the captioner.
async function unpacked(name) {
  const stream = new Blob([await packed(name)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function open() {
  ort.env.wasm.numThreads = 1; // more need headers of a server
  ort.env.wasm.wasmBinary = (await unpacked("wasm")).buffer;
  const weights = await unpacked("weights");
  const session = async (name) =>
    ort.InferenceSession.create(await unpacked(name), {
      executionProviders: ["wasm"],
      externalData: [{ path: "weights.bin", data: weights }],
      logSeverityLevel: 3,
    });
  const graphs = { photo: await session("photo"), regions: await session("regions"), step: await session("step") };
  let look = null; // only once a person asks where the model looks
  const looking = () => {
    look ??= session("look");
    look.catch(() => (look = null)); // asked once more, it tries again
    return look;
  };
  return { ...graphs, look: looking };
}

function opening() {
  opened ??= open();
  opened.catch(() => (opened = null)); // the next photo tries again
  return opened;
}

// The whole photo, and the cells of a grid over it, row by row.
function boxesOf(columns, rows) {
  const boxes = [[0, 0, 1, 1]];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) boxes.push([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows]);
  }
  return boxes;
}

async function captions(photo, beam) {
  const { width, height, note } = photo;
  const graphs = await opening();
  const { photos, words, novelty, layers, heads, headWidth, longest } = settings;
  const target = sizeOf(width, height, photos);
  const pixels = new ort.Tensor("uint8", fitted(photo, target), [1, target[1], target[0], 3]);
  const cells = photos.grid === "tokens" ? target.map((side) => side / photos.stride) : [photos.grid, photos.grid];
  const boxes = boxesOf(...cells);
  const corners = new ort.Tensor("float32", Float32Array.from(boxes.flat()), [1, boxes.length, 4]);
  const { features } = await graphs.photo.run(photos.grid === "tokens" ? { pixels } : { pixels, boxes: corners });
  const real = new ort.Tensor("bool", new Uint8Array(boxes.length).fill(1), [1, boxes.length]);
  const memory = await graphs.regions.run({ features, boxes: corners, real });
  let past = null;
  const numbers = (values, shape) => new ort.Tensor("int64", BigInt64Array.from(values.map(BigInt)), shape);
  const step = async (tokens, position, mask, count) => {
    const feeds = { real, tokens: numbers(tokens, [1, beam]), position: numbers([position], [1]), count: numbers([count], [1]) };
    feeds.mask = new ort.Tensor("bool", Uint8Array.from(mask), [1, 1, beam, (position + 1) * beam]);
    for (let layer = 0; layer < layers; layer++) {
      for (const kind of ["key", "value"]) {
        feeds[`memory_${kind}_${layer}`] = memory[`${kind}_${layer}`];
        feeds[`past_${kind}_${layer}`] =
          past?.[`${kind}_${layer}`] ?? new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, headWidth]);
      }
    }
    past = await graphs.step.run(feeds);
    return { best: past.best.data, ids: Array.from(past.ids.data, Number), end: past.end.data };
  };
  const symbols = words.symbols.length;
  const found = await search(step, { beam, lenpen, longest, minLen: 1, eos: words.eos, symbols });
  const hypotheses = found.map(({ tokens, score }) => ({ text: textOf(tokens, words), score }));
  const unlike = novelty !== null && distance(features, novelty) > novelty.limit;
  const caption = hypotheses[0].text;
  const pieces = found[0].tokens.map((token) => words.symbols[token]);
  const places = wordsOfPieces(pieces, caption, words.joined);
  let looked = null;
  const weights = () => (looked ??= inTurn(() => wordWeights(graphs, { features, boxes: corners, real }, found[0].tokens, places)));
  return {
    caption, hypotheses, unlike, note, width, height, regions: boxes, weights,
    words: places.flatMap(({ start, end }) => [start, end]),
  };
}

// For each word of a caption the weights of the regions: the mean of layers, heads and subwords. The regions' keys are
// computed again: kept for each photo, they would fill the memory.
async function wordWeights(graphs, inputs, tokens, places) {
  const { layers, words } = settings;
  const memory = await graphs.regions.run(inputs);
  const look = await graphs.look();
  const length = tokens.length + 1;
  const ids = BigInt64Array.from([words.eos, ...tokens].map(BigInt));
  const causal = Uint8Array.from({ length: length ** 2 }, (_, at) => Number(at % length <= Math.floor(at / length)));
  const feeds = {
    tokens: new ort.Tensor("int64", ids, [1, length]), mask: new ort.Tensor("bool", causal, [1, 1, length, length]),
    real: inputs.real,
  };
  for (let layer = 0; layer < layers; layer++) {
    for (const kind of ["key", "value"]) feeds[`memory_${kind}_${layer}`] = memory[`${kind}_${layer}`];
  }
  const given = Object.fromEntries(look.inputNames.map((name) => [name, feeds[name]]));
  const { weights } = await look.run(given); // (layers, 1, heads, T, N)
  const count = inputs.real.dims[1];
  const perToken = Array.from({ length }, () => new Array(count).fill(0));
  weights.data.forEach((weight, at) => (perToken[Math.floor(at / count) % length][at % count] += weight));
  for (const row of perToken) {
    const sum = row.reduce((total, weight) => total + weight, 0);
    row.forEach((weight, region) => (row[region] = weight / sum));
  }
  return places.map(({ first, last }) => {
    const rows = perToken.slice(first, last);
    return perToken[0].map((_, region) => rows.reduce((total, row) => total + row[region], 0) / rows.length);
  });
}

// How far a photo is from the training photos: runtime/xgpt_runtime/novelty.py.
function distance(features, { mean, directions, median }) {
  const halves = features.data;
  const value = halves instanceof Uint16Array ? half : (number) => number;
  const width = mean.length;
  const rest = mean.map((own, at) => {
    let sum = 0;
    for (let place = at; place < halves.length; place += width) sum += value(halves[place]);
    return (sum * width) / halves.length - own;
  });
  const shares = directions.map((direction) => direction.reduce((sum, each, at) => sum + each * rest[at], 0));
  directions.forEach((direction, number) => direction.forEach((each, at) => (rest[at] -= shares[number] * each)));
  return Math.sqrt(rest.reduce((sum, each) => sum + each * each, 0)) / median;
}

// The number of the 16 bits of half precision.
function half(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  return bits & 0x8000 ? -size : size;
}

// Run one thing after the other.
function inTurn(run) {
  const done = last.then(run);
  last = done.catch(() => {}).then(() => new Promise((resolve) => setTimeout(resolve))); // let the page draw
  return done;
}

function ask(body, size) {
  return inTurn(async () => captions(await pixelsOf(body), Number(size)));
}
