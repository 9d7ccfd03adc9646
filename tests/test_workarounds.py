"""Each fault of fairseq that we work around: that stock fairseq has it still, and that the workaround cures it."""

from __future__ import annotations

import inspect
import io
import math
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from fairseq import options
from fairseq.data import Dictionary
from fairseq.data.data_utils import batch_by_size
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.models import FairseqEncoder, FairseqEncoderDecoderModel, FairseqIncrementalDecoder
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.search import BeamSearch, DiverseBeamSearch
from fairseq.sequence_generator import SequenceGenerator
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from xgpt_fairseq.workarounds import (
    RepeatBlock,
    load_checkpoints_on_all_ranks,
    never_unknown,
    sample_for_search,
    with_last_batch,
)

MENDED = "fairseq has mended this: the workaround can go"

# with_last_batch


def stock_batches(indices: np.ndarray, max_sentences: int, multiple: int) -> list[Any]:
    sizes = np.full(len(indices), 3)
    return batch_by_size(indices, None, sizes, None, max_sentences, multiple)


def items(batches: list[Any]) -> list[int]:
    return [int(i) for batch in batches for i in batch]


def test_stock_fairseq_drops_the_last_batch() -> None:
    indices = np.arange(21)[::-1].copy()
    assert items(stock_batches(indices, 8, 8)) == indices[:16].tolist(), MENDED


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 9), st.randoms(use_true_random=False))
def test_no_item_is_dropped(count: int, max_sentences: int, multiple: int, random: Any) -> None:
    indices = np.arange(count)
    random.shuffle(indices)
    stock = stock_batches(indices, max_sentences, multiple)
    batches = with_last_batch(stock, indices)
    assert items(batches) == indices.tolist()
    assert all(0 < len(batch) <= max_sentences for batch in batches)
    assert [len(batch) for batch in batches[: len(stock)]] == [len(batch) for batch in stock]


# RepeatBlock

PAD = 1


def buffer(texts: list[list[int]], room: int = 5) -> tuple[Tensor, int]:
    """The generator's token buffer: what is generated so far, then padding; and the step."""
    tokens = torch.tensor([text + [PAD] * room for text in texts])
    return tokens, len(texts[0]) - 1


def test_stock_fairseq_blocks_nothing_before_the_end_of_the_buffer() -> None:
    tokens, step = buffer([[2, 5, 6, 7, 5, 6]])
    for size in (1, 2, 3):
        logits = NGramRepeatBlock(size, use_extension=False)(tokens, torch.zeros(1, 9), 1, 1, step)
        assert not logits.isinf().any(), MENDED


def test_stock_fairseq_never_blocks_single_tokens() -> None:
    tokens, step = buffer([[2, 5, 6, 7, 5, 6]], room=0)
    logits = NGramRepeatBlock(1, use_extension=False)(tokens, torch.zeros(1, 9), 1, 1, step)
    assert not logits.isinf().any(), MENDED


@given(
    size=st.integers(1, 4),
    beam=st.integers(1, 3),
    sentences=st.integers(1, 3),
    length=st.integers(0, 9),
    draw=st.data(),
)
def test_repeats_are_banned(size: int, beam: int, sentences: int, length: int, draw: st.DataObject) -> None:
    word = st.integers(3, 7)  # few words, so that they repeat
    texts = [[2, *draw.draw(st.lists(word, min_size=length, max_size=length))] for _ in range(sentences * beam)]
    tokens, step = buffer(texts)
    before = torch.arange(float(sentences * beam * 9)).view(-1, 9)
    after = RepeatBlock(size)(tokens.clone(), before.clone(), sentences, beam, step)
    for row, (_, *text) in enumerate(texts):
        seen = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
        for token in range(9):
            # the token makes an n-gram that the text has already
            banned = len(text) >= size - 1 and tuple([*text, token][len(text) - size + 1 :]) in seen
            assert after[row, token] == (-math.inf if banned else before[row, token]), (text, token)


# sample_for_search


class _Encoder(FairseqEncoder):
    def forward(self, features: Tensor, padding_mask: Tensor) -> dict[str, Tensor]:
        return {"states": features.mean(1)}

    def reorder_encoder_out(self, encoder_out: dict[str, Tensor], new_order: Tensor) -> dict[str, Tensor]:
        return {"states": encoder_out["states"].index_select(0, new_order)}


class _Decoder(FairseqIncrementalDecoder):
    """Scores that depend on the image and on the last token."""

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__(dictionary)
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(len(dictionary), len(dictionary), generator=generator)

    def forward(self, prev_output_tokens: Tensor, encoder_out: Any = None, **unused: Any) -> tuple[Tensor, Any]:
        scores = self.table[prev_output_tokens[:, -1:]] + encoder_out["states"][:, None, : self.table.size(1)]
        return scores, {"attn": [None]}

    def max_positions(self) -> int:
        return 10


@pytest.fixture(scope="module")
def dictionary() -> Dictionary:
    dictionary = Dictionary()
    for number in range(8):
        dictionary.add_symbol(f"word{number}")
    return dictionary


def generate(dictionary: Dictionary, search: Any, ids: list[int], *, cured: bool) -> list[list[list[int]]]:
    model = FairseqEncoderDecoderModel(_Encoder(dictionary), _Decoder(dictionary))
    generator = SequenceGenerator([model], dictionary, beam_size=4, max_len_a=0, max_len_b=6, search_strategy=search)
    features = torch.randn(len(ids), 3, len(dictionary), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(len(ids), 3, dtype=torch.bool)
    sample = {"id": torch.tensor(ids), "net_input": {"features": features, "padding_mask": mask}}
    hypotheses = generator.generate([model], sample_for_search(sample, generator) if cured else sample)
    return [[hypothesis["tokens"].tolist() for hypothesis in of_image] for of_image in hypotheses]


def diverse(dictionary: Dictionary) -> DiverseBeamSearch:
    return DiverseBeamSearch(dictionary, num_groups=2, diversity_strength=0.5)


def test_stock_diverse_beam_search_fails_on_ids_beyond_the_batch(dictionary: Dictionary) -> None:
    try:
        generate(dictionary, diverse(dictionary), [7, 5, 9], cured=False)
    except IndexError:
        return
    pytest.fail(MENDED)


def test_diverse_beam_search_works_on_any_ids(dictionary: Dictionary) -> None:
    expected = generate(dictionary, diverse(dictionary), [0, 1, 2], cured=False)
    assert generate(dictionary, diverse(dictionary), [7, 5, 9], cured=True) == expected
    assert generate(dictionary, diverse(dictionary), [2, 0, 1], cured=True) == expected
    assert generate(dictionary, BeamSearch(dictionary), [0, 1, 2], cured=False) != expected  # it is diverse


def test_other_searches_get_the_sample_as_it_is(dictionary: Dictionary) -> None:
    sample = {"id": torch.tensor([3])}
    for generator in (None, type("Generator", (), {"search": BeamSearch(dictionary)})()):
        assert sample_for_search(sample, generator) is sample


# never_unknown


def test_stock_fairseq_cannot_suppress_the_unknown_word(dictionary: Dictionary) -> None:
    model = FairseqEncoderDecoderModel(_Encoder(dictionary), _Decoder(dictionary))
    try:
        SequenceGenerator([model], dictionary, tokens_to_suppress=["<unk>"])
    except AssertionError:
        return
    pytest.fail(MENDED)


@pytest.mark.parametrize("others", [[], ["<s>", "word3"]])
def test_the_unknown_word_joins_what_is_suppressed(dictionary: Dictionary, others: list[str]) -> None:
    model = FairseqEncoderDecoderModel(_Encoder(dictionary), _Decoder(dictionary))
    generator = SequenceGenerator([model], dictionary, tokens_to_suppress=others)
    never_unknown(generator)
    expected = [*(dictionary.index(symbol) for symbol in others), dictionary.unk()]
    assert generator.token_indices_to_suppress.tolist() == expected


# load_checkpoints_on_all_ranks


def test_stock_fairseq_cannot_broadcast_a_checkpoint() -> None:
    """What rank 0 would send to the others: a state whose configuration is a DictConfig, read back by torch.load."""
    assert "torch.load(" in inspect.getsource(distributed_utils._broadcast_object_slow), MENDED
    sent = io.BytesIO()
    torch.save({"cfg": OmegaConf.create({"task": {"data": "x"}}, flags={"allow_objects": True})}, sent)
    sent.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="DictConfig"):
        torch.load(sent)


def test_every_rank_reads_checkpoints_itself() -> None:
    root = OmegaConf.create({"task": {}, "checkpoint": {"load_checkpoint_on_all_dp_ranks": False}})
    OmegaConf.set_struct(root, True)  # as fairseq's
    load_checkpoints_on_all_ranks(root.task)
    assert root.checkpoint.load_checkpoint_on_all_dp_ranks is True
    load_checkpoints_on_all_ranks(OmegaConf.create({}))  # a configuration without checkpoints is left alone


# keep_bf16_off_tpus


def bf16_on_a_tpu(*arguments: str) -> tuple[bool, bool]:
    """Whether fairseq's configuration of a command line has bfloat16, and a TPU."""
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, ["data", *arguments])
    common = convert_namespace_to_omegaconf(args).common
    return common.bf16, common.tpu


def test_stock_fairseq_takes_bf16_for_a_tpu() -> None:
    assert bf16_on_a_tpu("--arch", "transformer", "--bf16") == (True, True), MENDED


@pytest.mark.parametrize("option", ["--bf16", "--memory-efficient-bf16"])
@pytest.mark.parametrize("name", ["xgpt", "xgpt_base", "xgpt_tiny", "xgpt_demo"])
def test_bf16_is_for_gpus(name: str, option: str) -> None:
    assert bf16_on_a_tpu("--task", "xgpt_caption", "--arch", name, "--criterion", "xgpt", option) == (True, False)


def test_a_tpu_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fairseq-train", "--tpu"])
    ours = ("--task", "xgpt_caption", "--arch", "xgpt_base", "--criterion", "xgpt")
    assert bf16_on_a_tpu(*ours, "--bf16", "--tpu") == (True, True)


# keep_cpus_to_one_process


def processes(monkeypatch: pytest.MonkeyPatch, gpus: int, *arguments: str) -> int:
    """How many processes fairseq's configuration of a command line has, on a machine with so many GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    command = ["data", *arguments]
    monkeypatch.setattr("sys.argv", ["fairseq-train", *command])
    args = options.parse_args_and_arch(options.get_training_parser(), command)
    return int(convert_namespace_to_omegaconf(args).distributed_training.distributed_world_size)


def test_stock_fairseq_starts_a_process_for_each_gpu_that_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes(monkeypatch, 3, "--arch", "transformer", "--cpu") == 3, MENDED


@pytest.mark.parametrize("name", ["xgpt", "xgpt_demo"])
def test_a_cpu_trains_in_one_process(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ours = ("--task", "xgpt_caption", "--arch", name, "--criterion", "xgpt")
    assert processes(monkeypatch, 3, *ours, "--cpu") == 1
    assert processes(monkeypatch, 3, *ours) == 3
    assert processes(monkeypatch, 3, *ours, "--cpu", "--distributed-world-size", "2") == 2
    assert processes(monkeypatch, 3, *ours, "--cpu", "--distributed-world-size=2") == 2


def test_processes_of_torchrun_train_on_cpus_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with several GPUs, where fairseq looks for what torchrun says."""
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert processes(monkeypatch, 3, "--task", "xgpt_caption", "--arch", "xgpt", "--criterion", "xgpt", "--cpu") > 1


# --amp, which is refused (`tasks/checks.py`)


def test_stock_fairseq_divides_the_gradients_of_amp_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the loss scale: its scaler is told of two optimizers, one within the other, that have the same gradients."""
    monkeypatch.setattr(torch.cuda.amp, "GradScaler", partial(torch.amp.GradScaler, "cpu"))
    common = {"fp16_init_scale": 128, "min_loss_scale": 1e-4, "amp_scale_window": None}
    sgd = {"_name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": [1.0]}
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = AMPOptimizer.build_optimizer(OmegaConf.create({"common": common, "optimizer": sgd}), [weight])
    optimizer.backward(weight @ torch.tensor([3.0, 4.0]))
    assert optimizer.clip_grad_norm(0.0) == 5  # as fairseq's trainer calls it before each step
    optimizer.step()
    assert (-128 * weight).tolist() == [3, 4], MENDED
