"""XGPT written plainly: numpy in float64, loops over images, heads and positions, one image and one caption at a time.

An independent statement of the formulas in the paper (section 3, 4.2, 6, appendix A.1), for the tests to compare the
model with. Parameters are looked up by the model's names in a dict of arrays. A "row" is (positions, H): what one
image, one caption or both are embedded as.
"""

from __future__ import annotations

import math

import numpy as np

Parameters = dict[str, np.ndarray]


def parameters_of(model) -> Parameters:
    return {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}


def linear(p: Parameters, name: str, x: np.ndarray) -> np.ndarray:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def layer_norm(p: Parameters, name: str, x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    for i, row in enumerate(x):
        mean = sum(row) / len(row)
        variance = sum((value - mean) ** 2 for value in row) / len(row)
        out[i] = (row - mean) / math.sqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]
    return out


def gelu(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: 0.5 * value * (1 + math.erf(value / math.sqrt(2))))(x)


def softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [value / sum(exponentials) for value in exponentials]


def multi_head(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, causal: bool = False, after: int | None = None
) -> np.ndarray:
    """(T, H), (N, H), (N, H) → (T, H): scaled dot-product attention, head by head, query by query.

    *after*: UniLM's sequence-to-sequence mask. All positions see the first *after*, those behind them also what stands
    before them and themselves.
    """
    width = q.shape[1] // heads
    out = np.zeros_like(q)
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        for i in range(len(q)):
            visible = range(i + 1) if causal else range(len(k))
            if after is not None:
                visible = range(max(after, i + 1))
            weights = softmax([float(q[i, columns] @ k[j, columns]) / math.sqrt(width) for j in visible])
            for weight, j in zip(weights, visible, strict=True):
                out[i, columns] += weight * v[j, columns]
    return out


def thirds(p: Parameters, name: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The query, key and value parts of a fused projection."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    h = weight.shape[1]
    return tuple((weight[i * h : (i + 1) * h], bias[i * h : (i + 1) * h]) for i in range(3))


def regions(p: Parameters, features: np.ndarray, boxes: np.ndarray, heads: int) -> np.ndarray:
    """Section 3 and appendix A.1: embedded and refined regions (N, H) of one image."""
    rows = []
    for feature, (x1, y1, x2, y2) in zip(features, boxes, strict=True):
        rows.append([*feature, x1, y1, x2, y2, (x2 - x1) * (y2 - y1)])
    prefix = "encoder.regions"
    x = layer_norm(p, f"{prefix}.embedding.norm", linear(p, f"{prefix}.embedding.project", np.array(rows)))
    return refine(p, x, heads)


def refine(p: Parameters, x: np.ndarray, heads: int) -> np.ndarray:
    """Appendix A.1: the refining layers."""
    prefix = "encoder.regions"
    layer = 0
    while f"{prefix}.refiner.{layer}.qkv.weight" in p:
        name = f"{prefix}.refiner.{layer}"
        (wq, bq), (wk, bk), (wv, bv) = thirds(p, f"{name}.qkv")
        query = x @ wq.T + bq
        attended = multi_head(query, x @ wk.T + bk, x @ wv.T + bv, heads)
        h = x.shape[1]
        w1, w2 = p[f"{name}.aoa.weight"][:h, :h], p[f"{name}.aoa.weight"][:h, h:]
        w3, w4 = p[f"{name}.aoa.weight"][h:, :h], p[f"{name}.aoa.weight"][h:, h:]
        b1, b2 = p[f"{name}.aoa.bias"][:h], p[f"{name}.aoa.bias"][h:]
        gate = 1 / (1 + np.exp(-(query @ w1.T + attended @ w2.T + b1)))
        information = query @ w3.T + attended @ w4.T + b2
        x = layer_norm(p, f"{name}.norm", x + gate * information)
        layer += 1
    return x


def feed_forward(p: Parameters, name: str, x: np.ndarray) -> np.ndarray:
    return linear(p, f"{name}.fc2", gelu(linear(p, f"{name}.fc1", x)))


def image_row(p: Parameters, features: np.ndarray, boxes: np.ndarray, heads: int) -> np.ndarray:
    """What an image is embedded as."""
    return regions(p, features, boxes, heads) + segment(p, 1)


def segment(p: Parameters, index: int) -> np.ndarray | float:
    """The embedding of text (0) or regions (1)."""
    return p["encoder.segments.weight"][index] if "encoder.segments.weight" in p else 0.0


def embed_text(p: Parameters, tokens: list[int], positions: list[int] | None = None) -> np.ndarray:
    """Section 3: token, position and segment embeddings (T, H)."""
    x = np.array([p["encoder.text.tokens.weight"][token] for token in tokens])
    x = x + np.array([p["encoder.text.positions.weight"][i] for i in positions or range(len(tokens))])
    return layer_norm(p, "encoder.text.norm", x + segment(p, 0))


def align(p: Parameters, words: np.ndarray, v: np.ndarray) -> np.ndarray:
    """IDA: each word as the regions that it aligns with, its position and segment added back, and normalised."""
    w_v, w_m = p["encoder.alignment.region_weight"], p["encoder.alignment.product_weight"]
    out = []
    for x in words:
        weights = softmax([float(w_v @ v_j + w_m @ (x * v_j)) for v_j in v])
        out.append(sum(weight * v_j for weight, v_j in zip(weights, v, strict=True)))
    aligned = linear(p, "encoder.alignment.project", np.array(out))
    aligned = aligned - aligned.mean(axis=1, keepdims=True)
    aligned = 0.1 * aligned / np.sqrt(aligned.var(axis=1, keepdims=True) + 1e-5)
    x = aligned + p["encoder.text.positions.weight"][: len(words)] + segment(p, 0)
    return layer_norm(p, "encoder.text.norm", x)


def encode_row(p: Parameters, x: np.ndarray, heads: int, layers: int, pre_norm: bool = False) -> np.ndarray:
    """Final encoder states (N, H) of one row of whatever kind."""
    for number in range(layers):
        name = f"encoder.layers.{number}"

        def to_all(y, name=name):
            return attend(p, f"{name}.attention", y, y, heads)

        x = sublayer(p, f"{name}.attention_norm", x, to_all, pre_norm)
        x = sublayer(p, f"{name}.ffn_norm", x, lambda y, n=name: feed_forward(p, n, y), pre_norm)
    return layer_norm(p, "encoder.final_norm", x) if pre_norm else x


def attend(p: Parameters, attention: str, x: np.ndarray, states: np.ndarray, heads: int, **mask):
    """One attention: queries from x, keys and values from states."""
    (wq, bq), (wk, bk), (wv, bv) = thirds(p, f"{attention}.qkv")
    attended = multi_head(x @ wq.T + bq, states @ wk.T + bk, states @ wv.T + bv, heads, **mask)
    return linear(p, f"{attention}.out", attended)


def sublayer(p: Parameters, norm: str, x: np.ndarray, function, pre_norm: bool) -> np.ndarray:
    if pre_norm:
        return x + function(layer_norm(p, norm, x))
    return layer_norm(p, norm, x + function(x))


def decode(
    p: Parameters,
    tokens: list[int],
    source: np.ndarray,
    heads: int,
    layers: int,
    pre_norm: bool = False,
    positions: list[int] | None = None,
    sharing: str = "enc-dec-share",
):
    """Logits (T, V) after each of *tokens*, behind the embedded row *source* of what is encoded."""
    x = decode_row(p, embed_text(p, tokens, positions), source, heads, layers, pre_norm, sharing)
    return x @ p["encoder.text.tokens.weight"].T + p["decoder.output.bias"]


def decode_row(
    p: Parameters,
    x: np.ndarray,
    source: np.ndarray,
    heads: int,
    layers: int,
    pre_norm: bool = False,
    sharing: str = "enc-dec-share",
):
    """Final decoder states (T, H) of one row of whatever kind."""
    if sharing == "enc":
        return joint_row(p, source, x, heads, layers, pre_norm)
    states = encode_row(p, source, heads, layers, pre_norm)
    stack = "decoder" if sharing == "enc-dec" else "encoder"
    cross = "cross_" if sharing == "enc-dec" else ""
    attention = f"{cross}attention"
    for number in range(layers):
        name = f"{stack}.layers.{number}"

        def to_text(y, name=name):
            return attend(p, f"{name}.attention", y, y, heads, causal=True)

        def to_source(y, name=name):
            return attend(p, f"{name}.{attention}", y, states, heads)

        x = sublayer(p, f"{name}.attention_norm", x, to_text, pre_norm)
        x = sublayer(p, f"{name}.{cross or 'attention_'}norm", x, to_source, pre_norm)
        x = sublayer(p, f"{name}.ffn_norm", x, lambda y, n=name: feed_forward(p, n, y), pre_norm)
    return layer_norm(p, f"{stack}.final_norm", x) if pre_norm else x


def joint_row(p: Parameters, source: np.ndarray, x: np.ndarray, heads: int, layers: int, pre_norm: bool = False):
    """Section 6, Enc: [source ; x] through one stack under the sequence-to-sequence mask; the states of x."""
    both = np.concatenate([source, x])
    for number in range(layers):
        name = f"encoder.layers.{number}"

        def to_both(y, name=name):
            return attend(p, f"{name}.attention", y, y, heads, after=len(source))

        both = sublayer(p, f"{name}.attention_norm", both, to_both, pre_norm)
        both = sublayer(p, f"{name}.ffn_norm", both, lambda y, n=name: feed_forward(p, n, y), pre_norm)
    return (layer_norm(p, "encoder.final_norm", both) if pre_norm else both)[len(source) :]


def caption_loss(logits: np.ndarray, target: list[int], label_smoothing: float = 0.0) -> float:
    """-Σ_t Σ_w q_t(w) log p_t(w), q = (1 - ε) on the right word + ε / V on every word; equation 2 with ε = 0."""
    total = 0.0
    for scores, word in zip(logits, target, strict=True):
        log_sum = math.log(sum(math.exp(score - max(scores)) for score in scores)) + max(scores)
        log_probabilities = [score - log_sum for score in scores]
        total -= (1 - label_smoothing) * log_probabilities[word]
        total -= label_smoothing / len(scores) * sum(log_probabilities)
    return total
