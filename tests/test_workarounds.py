"""Each fault of fairseq that we work around: that stock fairseq has it still, and that the workaround cures it."""

from __future__ import annotations

import inspect
import io
import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.data.data_utils import batch_by_size
from fairseq.dataclass.configs import CheckpointConfig
from fairseq.distributed import utils as distributed_utils
from fairseq.models import FairseqEncoder, FairseqEncoderDecoderModel, FairseqIncrementalDecoder
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.search import BeamSearch, DiverseBeamSearch
from fairseq.sequence_generator import SequenceGenerator
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.workarounds import (
    BestCheckpoints,
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


# BestCheckpoints


@pytest.fixture(autouse=True)
def no_run_before() -> Iterator[None]:
    """fairseq keeps the best value of a run in its function."""
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    yield
    vars(checkpoint_utils.save_checkpoint).pop("best", None)


class Run:
    """What fairseq-train does at each validation and each saving, with the workaround's hooks where it is *cured*."""

    def __init__(self, folder: Path, *, cured: bool = True, rank: int = 0, **options: Any) -> None:
        options = {"save_dir": str(folder), "no_epoch_checkpoints": True, "keep_best_checkpoints": 3, **options}
        distributed = {"distributed_rank": rank}
        checkpoint = OmegaConf.merge(OmegaConf.structured(CheckpointConfig), options)
        root = OmegaConf.create({"task": {}, "checkpoint": checkpoint, "distributed_training": distributed})
        self.cfg, self.folder, self.rank = root.checkpoint, folder, rank
        self.best = BestCheckpoints(root.task) if cured else None

    def validate(self, updates: int, value: float) -> None:
        if self.best is not None:
            self.best.begin_validation(1)
            self.best.validated({self.cfg.best_checkpoint_metric: value, "num_updates": updates})
            self.best.validated({self.cfg.best_checkpoint_metric: value + 7, "num_updates": updates})  # a second subset

    def save(self, updates: int, value: float | None, *, end_of_epoch: bool = False) -> None:
        def write(path: str, extra: dict[str, Any]) -> str:
            history = [{"num_updates": updates}]
            checkpoint_utils.torch_persistent_save({"model": {}, "optimizer_history": history, "extra": extra}, path)
            return path

        trainer = SimpleNamespace(
            data_parallel_rank=self.rank, should_save_checkpoint_on_current_rank=self.rank == 0, checkpoint_suffix="",
            always_call_state_dict_during_save_checkpoint=False, task=None, consolidate_optimizer=lambda: None,
            get_num_updates=lambda: updates, save_checkpoint=write,
        )  # fmt: skip
        itr = SimpleNamespace(epoch=1, end_of_epoch=lambda: end_of_epoch, state_dict=lambda: {})
        path = checkpoint_utils.save_checkpoint(self.cfg, trainer, itr, value)
        if path is not None and self.best is not None:
            self.best.saved(Path(path), updates)

    def train(self, values: Sequence[float], first: int = 1) -> None:
        for updates, value in enumerate(values, start=first):
            self.validate(updates, value)
            self.save(updates, value)

    def kept(self) -> list[tuple[int, float]]:
        """Updates and value of each of the best that are kept, as its file holds them."""
        files = self.folder.glob(f"checkpoint.best_{self.cfg.best_checkpoint_metric}_*.pt")
        found = []
        for file in files:
            state = load_checkpoint(file)
            value = state["extra"]["val_loss"]
            assert f"_{value:.3f}" in file.name
            found.append((state["optimizer_history"][-1]["num_updates"], value))
        return sorted(found)


def test_stock_fairseq_keeps_no_worse_checkpoint_also_where_it_keeps_fewer(tmp_path: Path) -> None:
    run = Run(tmp_path, cured=False)
    run.train([1.0, 2.0, 3.0])
    assert run.kept() == [(1, 1.0)], MENDED


def test_stock_fairseq_writes_over_a_checkpoint_of_equal_value(tmp_path: Path) -> None:
    for updates in range(2, 20):  # whose random digit, of two, is the first one's
        run = Run(tmp_path / str(updates), cured=False, keep_best_checkpoints=2)
        run.train([0.5])
        run.train([0.5], first=updates)
        if len(run.kept()) == 1:
            return
    pytest.fail(MENDED)


def test_the_best_are_kept_whatever_their_order(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train([1.0, 2.0, 3.0, 4.0, 2.5, 0.5])
    assert run.kept() == [(1, 1.0), (2, 2.0), (6, 0.5)]
    assert not list(tmp_path.glob(".*"))


@given(
    values=st.lists(st.sampled_from([0.0, 0.5, 0.501, 1.25, 1.249, 12.0]), min_size=1, max_size=9),
    count=st.integers(1, 4),
    maximize=st.booleans(),
    interrupted=st.integers(0, 9),
    repeated=st.integers(0, 2),
)
def test_as_many_are_kept_as_there_can_be(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float],
    count: int,
    maximize: bool,
    interrupted: int,
    repeated: int,
) -> None:
    """Against a sorted list; interrupted somewhere, the run goes on from up to two updates before."""
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    folder = tmp_path_factory.mktemp("run")
    options = {"keep_best_checkpoints": count, "maximize_best_checkpoint_metric": maximize}
    interrupted = min(interrupted, len(values))
    again = max(0, interrupted - repeated)
    Run(folder, **options).train(values[:interrupted])
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    if again:  # what the checkpoint says that the second process begins with
        checkpoint_utils.save_checkpoint.best = (max if maximize else min)(values[:again])
    run = Run(folder, **options)
    run.train(values[again:], first=again + 1)
    kept = run.kept()
    assert len({updates for updates, _ in kept}) == len(kept)
    assert all(values[updates - 1] == value for updates, value in kept)
    assert sorted(value for _, value in kept) == sorted(sorted(values, reverse=maximize)[:count])


def test_a_value_counts_for_the_saving_of_its_update_alone(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train([1.0])
    run.validate(2, 2.0)  # and nothing is saved
    run.save(3, None)  # without a validation
    run.save(2, None)
    assert run.kept() == [(1, 1.0)]
    run.train([3.0], first=4)
    run.save(4, None, end_of_epoch=True)  # the same update saved twice
    assert run.kept() == [(1, 1.0), (4, 3.0)]


def test_later_checkpoints_leave_the_copies_alone(tmp_path: Path) -> None:
    """fairseq copies into checkpoint_last.pt and checkpoint_best.pt in place; a link to them would change with them."""
    run = Run(tmp_path)
    run.train([1.0, 2.0, 0.5])
    run.save(4, None)
    assert run.kept() == [(1, 1.0), (2, 2.0), (3, 0.5)]


@pytest.mark.parametrize(
    "options",
    [{"keep_best_checkpoints": -1}, {"keep_best_checkpoints": 0}, {"no_save": True}, {"rank": 1}],
    ids=str,
)
def test_nothing_is_written_where_fairseq_writes_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    Run(tmp_path).train([0.5] * 3)
    before = sorted((file.name, file.stat().st_mtime_ns) for file in tmp_path.glob("checkpoint.best_*"))
    Run(tmp_path, **options).train([0.5] * 4, first=4)
    assert sorted((file.name, file.stat().st_mtime_ns) for file in tmp_path.glob("checkpoint.best_*")) == before


def test_one_process_makes_room(tmp_path: Path) -> None:
    """Of several processes that validate, the one that saves; else two would rename the same file."""
    Run(tmp_path, keep_best_checkpoints=2).train([0.5])
    names = {0: set(), 1: set()}
    for rank, seen in reversed(names.items()):
        for updates in range(2, 20):
            Run(tmp_path, keep_best_checkpoints=2, rank=rank).validate(updates, 0.5)
            seen.update(file.name for file in tmp_path.glob("checkpoint.best_*"))
    assert (len(names[1]), len(names[0])) == (1, 2)


@pytest.mark.parametrize("value", [math.nan, -1.0, math.inf])
def test_values_that_fairseqs_names_have_no_place_for(tmp_path: Path, value: float) -> None:
    run = Run(tmp_path)
    run.train([1.0, value, 2.0])
    assert (1, 1.0) in run.kept() and (3, 2.0) in run.kept()


def test_a_damaged_checkpoint_of_equal_value_is_replaced(tmp_path: Path) -> None:
    run = Run(tmp_path, keep_best_checkpoints=1)
    run.train([0.5])
    [file] = tmp_path.glob("checkpoint.best_*")
    file.write_bytes(b"cut short")
    run.train([0.5], first=2)
    assert run.kept() == [(2, 0.5)]


def test_a_task_without_a_training_has_nothing_to_keep() -> None:
    for cfg in (OmegaConf.create({}), SimpleNamespace(seed=1)):
        best = BestCheckpoints(cfg)
        best.begin_validation(1)
        best.validated({"num_updates": 1})
        best.saved(Path("checkpoint_last.pt"), 1)
