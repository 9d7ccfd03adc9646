"""Searches over the cached decoder against full forward passes."""

from __future__ import annotations

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator

from tests.models.small import (
    HEADS,
    HIDDEN,
    LAYERS,
    build,
    images,
    one,
)
from xgpt_fairseq.models.decoder import CACHE
from xgpt_fairseq.models.xgpt import SHARING_LAYERS


def step_by_step(model, batch, rows_per_image: int, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (rows, T, V) from incremental decoding of *tokens* (rows, T), without reordering."""
    encoder_out = model.encoder(**batch)
    order = torch.arange(batch["features"].size(0)).repeat_interleave(rows_per_image)
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
    state: dict = {}
    steps = [model.decoder(tokens[:, : t + 1], encoder_out, state)[0] for t in range(tokens.size(1))]
    return torch.cat(steps, dim=1)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("rows_per_image", [1, 3])
def test_incremental_decoding_equals_full_decoding_for_1_to_100_regions(rows_per_image, sharing):
    model = build(sharing=sharing)
    counts = [1, 100, 2, 37, 10]
    batch = images(counts)
    tokens = torch.randint(4, 24, (len(counts) * rows_per_image, 9))
    tokens[:, 0] = 2
    with torch.no_grad():
        steps = step_by_step(model, batch, rows_per_image, tokens)
        full, _ = model(**batch, prev_output_tokens=tokens)
    torch.testing.assert_close(steps, full, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_incremental_decoding_equals_full_decoding_under_beam_reorder(sharing):
    """A search that swaps, doubles and drops beams, and ends images early."""
    model = build(sharing=sharing)
    batch = images([4, 1, 9])
    beam, generator = 2, torch.Generator().manual_seed(3)
    with torch.no_grad():
        encoder_out = model.encoder(**batch)
        encoder_out = model.encoder.reorder_encoder_out(encoder_out, torch.arange(3).repeat_interleave(beam))
        alive = [0, 1, 2]
        tokens = torch.full((6, 1), 2)
        state: dict = {}
        for step in range(8):
            logits, _ = model.decoder(tokens, encoder_out, state)
            for position, image in enumerate(alive):
                rows = tokens[position * beam : (position + 1) * beam]
                alone = {name: tensor.repeat_interleave(beam, 0) for name, tensor in one(batch, image).items()}
                expected, _ = model(**alone, prev_output_tokens=rows)
                ours = logits[position * beam : (position + 1) * beam, -1]
                torch.testing.assert_close(ours, expected[:, -1], atol=1e-4, rtol=1e-4)
            keep = list(range(len(alive)))
            if step in (2, 5):
                keep.remove(step % len(alive))  # this image's search has ended
            order = torch.cat([k * beam + torch.randint(beam, (beam,), generator=generator) for k in keep])
            alive = [alive[k] for k in keep]
            tokens = torch.cat([tokens[order], torch.randint(4, 24, (len(order), 1), generator=generator)], dim=1)
            model.decoder.reorder_incremental_state(state, order)
            encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
    assert len(alive) == 1


@pytest.mark.parametrize("sharing", ["enc-dec-share", "enc-dec"])
def test_cross_attention_keys_are_kept_once_an_image(sharing):
    model = build(sharing=sharing)
    encoder_out = model.encoder(**images([4, 6]))
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, torch.arange(2).repeat_interleave(5))
    state: dict = {}
    model.decoder(torch.full((10, 1), 2), encoder_out, state)
    assert encoder_out["memory"].states.size(0) == 2
    kept = [state[CACHE].of_memory(layer, pytest.fail) for layer in range(LAYERS)]
    assert [tuple(k.shape) for k, _ in kept] == [(2, HEADS, 6, HIDDEN // HEADS)] * LAYERS


def test_enc_keeps_an_image_s_keys_once():
    model = build(sharing="enc")
    encoder_out = model.encoder(**images([4, 6]))
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, torch.arange(2).repeat_interleave(5))
    state: dict = {}
    model.decoder(torch.full((10, 1), 2), encoder_out, state)
    assert [tuple(k.shape) for k, _ in encoder_out["memory"].keys_values] == [(2, HEADS, 6, HIDDEN // HEADS)] * LAYERS
    asked = []
    state[CACHE].of_memory(0, lambda: asked.append(0) or (torch.zeros(1), torch.zeros(1)))
    assert asked  # nothing was kept there too


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_batch_order_and_company_never_change_a_caption(beam, sharing):
    model = build(sharing=sharing)
    counts = [4, 1, 100, 9, 30, 2]
    batch = images(counts)
    generator = SequenceGenerator([model], model.decoder.dictionary, beam_size=beam)

    def captions(net_input):
        found = generator.generate([], {"net_input": net_input})
        return [[hypothesis["tokens"].tolist() for hypothesis in hypotheses] for hypotheses in found]

    together = captions(batch)
    assert captions({name: tensor.flip(0) for name, tensor in batch.items()}) == together[::-1]
    assert [captions(one(batch, i))[0] for i in range(len(counts))] == together


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("beam", [1, 3])
def test_beam_search_equals_a_plain_one(beam, sharing):
    """fairseq's search over the cached decoder finds what a search over full forward passes finds."""
    model = build(words=6, sharing=sharing)
    batch = images([3])
    dictionary = model.decoder.dictionary
    found = SequenceGenerator([model], dictionary, beam_size=beam, max_len_b=5).generate([], {"net_input": batch})
    hypotheses, finished = [(0.0, [2])], []
    for step in range(6):
        candidates = []
        for score, tokens in hypotheses:
            with torch.no_grad():
                logits, _ = model(**batch, prev_output_tokens=torch.tensor([tokens]))
            log_probabilities = torch.log_softmax(logits[0, -1], dim=-1)
            for word in range(len(dictionary)):
                ends_too_early = step < 1 and word == 2
                must_end = step == 5 and word != 2
                if word != 1 and not ends_too_early and not must_end:
                    candidates.append((score + float(log_probabilities[word]), [*tokens, word]))
        candidates.sort(key=lambda candidate: -candidate[0])
        finished += [(s / step_length(t), t) for s, t in candidates[:beam] if t[-1] == 2]
        hypotheses = [c for c in candidates[: 2 * beam] if c[1][-1] != 2][:beam]
        if len(finished) >= beam:
            break
    best = max(finished[:beam], key=lambda hypothesis: hypothesis[0])
    assert found[0][0]["tokens"].tolist() == best[1][1:]
    assert float(found[0][0]["score"]) == pytest.approx(best[0], abs=1e-4)


def step_length(tokens: list[int]) -> int:
    return len(tokens) - 1
