"""Captions of photos by a model from a bundle or a checkpoint, against a plain search over plain batches."""

from __future__ import annotations

import copy
import functools
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator

from xgpt_fairseq.bundle import Bundle
from xgpt_fairseq.candidates import Candidate
from xgpt_fairseq.data.caption_dataset import pad_regions
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.precision import cpu_has_bfloat16
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.search.generator import SearchOptions
from xgpt_fairseq.text.vocabulary import Vocabulary
from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.photos import PhotoError

SIZES = {"layers": 2, "hidden_size": 32, "ffn_size": 64, "attention_heads": 4, "max_target_positions": 40}


def draw(folder: Path) -> list[Path]:
    """Seven photos of different colours and proportions."""
    from PIL import Image

    files = []
    for number in range(7):
        random = np.random.default_rng(number)
        blocks = random.integers(0, 256, (4, 3 + number % 3, 3), dtype=np.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(blocks.repeat(24, axis=0).repeat(24, axis=1)).save(files[-1])
    return files


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("photos"))


TEXTS = [
    "a red cat sits in a field.", "a green dog sleeps.", "the grey horse is standing on the table.", "a blue cat.",
    "a grey dog is standing near an old man's house.", "a red horse sleeps in a field.", "a green cat on the table.",
]  # fmt: skip


@functools.cache
def trained(vocabulary: Path, **options: object) -> tuple[XGPTModel, XGPTConfig]:
    """A model that has learned one of TEXTS for each of the seven photos, so that its captions differ."""
    extractor = RegionExtractor(grid=2, image_size=96, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        regions = extractor.extract([extractor.load(photo) for photo in draw(Path(folder))])
    images = pad_regions([each.features for each in regions], [each.boxes for each in regions])
    opened = Vocabulary(vocabulary)
    config = XGPTConfig(feature_dim=1280, dropout=0.0, attention_dropout=0.0, **{**SIZES, **options})
    torch.manual_seed(3)
    model = XGPTModel.build_model(config, SimpleNamespace(target_dictionary=opened.dictionary))
    ids = [torch.tensor([*opened.encode_list(text), 2]) for text in TEXTS]
    target = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=1)
    previous = target.roll(1, dims=1)
    previous[:, 0] = 2
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(100):
        logits, _ = model(**images, prev_output_tokens=previous)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, config


def build(vocabulary: Path, *, grid: int | None = 2, extractor: bool = True, **options: object) -> XGPTHubInterface:
    """The trained model, a copy of the test's own, with an extractor of these settings or none."""
    model, config = copy.deepcopy(trained(vocabulary, **options))
    settings = RegionExtractor(grid=grid, image_size=96, device="cpu").settings if extractor else None
    opened = Vocabulary(vocabulary)
    return XGPTHubInterface(Bundle(model, config, opened, settings, trained_on="regions of photos (mine)"))


@pytest.fixture(scope="module")
def captioner(tiny_vocabulary: Path) -> XGPTHubInterface:
    return build(tiny_vocabulary)


def test_the_extractor_follows_the_model() -> None:
    """It is made once for a device; torch's meta device has no memory, but is another one."""
    model = torch.nn.Module()
    model.register_buffer("dictionary_digest", torch.zeros(1))
    settings = RegionExtractor(grid=2, image_size=96, device="cpu").settings
    bundle = SimpleNamespace(model=model, backbone=None, config=None, vocabulary=None, extractor_settings=settings)
    captioner = XGPTHubInterface(cast("Bundle", bundle))
    first = captioner.extractor
    assert first.device.type == "cpu" and captioner.extractor is first
    moved = captioner.to("meta").extractor
    assert moved.device.type == "meta" and moved.settings == settings and captioner.extractor is moved


def test_copies_caption_the_same(tiny_vocabulary: Path, photos: list[Path]) -> None:
    """Also of a captioner that has captioned, and so has an extractor."""
    captioner = build(tiny_vocabulary)
    expected = captioner.caption(photos[:2])
    extractor = captioner.extractor
    for copied in (copy.deepcopy(captioner), pickle.loads(pickle.dumps(captioner))):
        assert copied.caption(photos[:2]) == expected
        assert copied.model is copied.bundle.model and copied.model is not captioner.model
    assert captioner.extractor is extractor


def plain_captions(captioner: XGPTHubInterface, photos: list[Path], beam: int) -> list[str]:
    """One photo after the other, through fairseq's generator."""
    dictionary = captioner.vocabulary.dictionary
    generator = SequenceGenerator(
        [captioner.model], dictionary, beam_size=beam, tokens_to_suppress=captioner.vocabulary.suppressed_symbols
    )
    extractor = RegionExtractor(grid=2, image_size=96, device="cpu")
    captions = []
    for photo in photos:
        [regions] = extractor.extract([extractor.load(photo)])
        net_input = {
            "features": torch.from_numpy(regions.features)[None],
            "boxes": torch.from_numpy(regions.boxes)[None],
            "padding_mask": torch.zeros(1, len(regions.boxes), dtype=torch.bool),
        }
        best = generator.generate([], {"net_input": net_input})[0][0]["tokens"]
        captions.append(captioner.vocabulary.decode(dictionary.string(best)))
    return captions


@pytest.mark.parametrize("beam", [1, 3])
def test_captions_are_those_of_a_plain_search(captioner: XGPTHubInterface, photos: list[Path], beam: int) -> None:
    expected = plain_captions(captioner, photos, beam)
    assert len(set(expected)) > 3
    for batch_size in (1, 3, 100):
        assert captioner.caption(photos, options=SearchOptions(beam=beam), batch_size=batch_size) == expected


def test_images_of_pillow_one_or_several_with_scores(captioner: XGPTHubInterface, photos: list[Path]) -> None:
    from PIL import Image

    files = captioner.caption(photos, return_scores=True, beam=3)
    opened = [Image.open(photo) for photo in photos]
    assert captioner.caption(opened, return_scores=True, beam=3) == files
    assert captioner.caption(opened[0], options=SearchOptions(beam=3)) == [files[0].text]
    assert captioner.caption(str(photos[0]), beam=3) == captioner.caption(photos[0], beam=3) == [files[0].text]
    greedy = captioner.caption(photos, return_scores=True, beam=1)
    assert [each.score for each in greedy] != [each.score for each in files]
    with pytest.raises(PhotoError, match=r"image: .*floating-point"):
        captioner.caption(Image.new("F", (9, 9)))


@pytest.mark.parametrize("lenpen", [1.0, 0.5])
def test_scores_are_log_probabilities_of_the_tokens(
    captioner: XGPTHubInterface, photos: list[Path], lenpen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All captions of a beam, each scored by the model's probabilities of its tokens, one photo after the other."""
    tokens: list[list[int]] = []
    candidate_of = XGPTHubInterface._candidate

    def record(self: XGPTHubInterface, hypothesis: Mapping[str, Any]) -> Candidate:
        tokens.append(hypothesis["tokens"].tolist())
        return candidate_of(self, hypothesis)

    extractor, options = captioner.extractor, SearchOptions(beam=3, lenpen=lenpen)
    expected = captioner.caption(photos, options=options)
    regions = extractor.extract([extractor.load(photo) for photo in photos])
    monkeypatch.setattr(XGPTHubInterface, "_candidate", record)
    found = captioner.candidates_of_regions(regions, options)
    assert [candidates[0].text for candidates in found] == expected
    assert [len(candidates) for candidates in found] == [3] * len(photos)
    said = iter(tokens)
    for candidates, of_photo in zip(found, regions, strict=True):
        images = pad_regions([of_photo.features], [of_photo.boxes])
        for candidate, ids in zip(candidates, said, strict=False):
            with torch.no_grad():
                logits, _ = captioner.model(**images, prev_output_tokens=torch.tensor([[2, *ids[:-1]]]))
            probabilities = logits[0].log_softmax(dim=1)
            score = sum(probabilities[place, token].item() for place, token in enumerate(ids)) / len(ids) ** lenpen
            assert candidate.score == pytest.approx(score, abs=1e-4) and candidate.tokens == len(ids) - 1
        assert candidates == sorted(candidates, key=lambda candidate: -candidate.score)


def test_the_search_s_options_act(
    captioner: XGPTHubInterface, photos: list[Path], write_store: Any, tmp_path: Path
) -> None:
    short = captioner.caption(photos, options=SearchOptions(max_len_b=3))
    assert all(len(captioner.vocabulary.encode(caption).split()) <= 3 for caption in short)
    for caption in captioner.caption(photos, options=SearchOptions(no_repeat_ngram_size=1)):
        pieces = captioner.vocabulary.encode(caption).split()
        assert len(pieces) == len(set(pieces))
    long = SearchOptions(min_len=9, max_len_b=12, no_repeat_ngram_size=1)
    store = RegionStore(write_store(tmp_path / "wide", feature_dim=1280))
    assert all(each.tokens >= 9 for found in captioner.candidates(store, [0, 1, 2], long) for each in found)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling": True, "beam": 5},
        {"sampling": True, "sampling_topp": 0.9},
        {"beam": 4, "diverse_beam_groups": 2},
    ],
    ids=str,
)
def test_no_caption_says_unknown(tiny_vocabulary: Path, tiny_store: Path, options: dict[str, Any]) -> None:
    """Not from a model that prefers it to all words: neither captions nor what xgpt-augment takes."""
    vocabulary = Vocabulary(tiny_vocabulary)
    config = XGPTConfig(feature_dim=16, **SIZES)
    model = XGPTModel.build_model(config, SimpleNamespace(target_dictionary=vocabulary.dictionary))
    with torch.no_grad():
        model.decoder.output.bias[vocabulary.dictionary.unk()] = 30.0
    captioner = XGPTHubInterface(Bundle(model, config, vocabulary, extractor_settings=None, trained_on=""))
    store, options = RegionStore(tiny_store), {"max_len_b": 8, **options}
    said = [each.best.text for each in captioner.caption_store(store, SearchOptions(**options))]
    for found in captioner.candidates(store, range(len(store)), SearchOptions(**options)):
        said += [candidate.text for candidate in found]
    assert len(said) > len(store) and not any("unk" in text for text in said)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16 arithmetic")
def test_captions_in_bfloat16(captioner: XGPTHubInterface, photos: list[Path]) -> None:
    exact, rounded = captioner.caption(photos), captioner.caption(photos, options=SearchOptions(cpu_bf16=True))
    assert sum(a == b for a, b in zip(exact, rounded, strict=True)) >= 5


def test_a_region_store_is_captioned_as_its_photos(
    captioner: XGPTHubInterface, photos: list[Path], tmp_path: Path, write_store
) -> None:
    extractor = captioner.extractor
    with RegionWriter(tmp_path / "store", extractor.feature_dim) as writer:
        for number, regions in enumerate(extractor.extract([extractor.load(photo) for photo in photos])):
            writer.add(photos[number].stem, regions.features, regions.boxes, position=number + 1)
        writer.finish()
    captioned = captioner.caption_store(RegionStore(tmp_path / "store"), batch_size=3)
    found = [(each.key, each.best.text) for each in captioned]
    assert found == list(zip((photo.stem for photo in photos), captioner.caption(photos), strict=True))
    narrow = RegionStore(write_store(tmp_path / "narrow", feature_dim=8))
    with pytest.raises(DataError, match=r"narrow has features of width 8, the model was trained on width 1280 \(reg"):
        captioner.caption_store(narrow)


def test_boxes_of_a_detector(tiny_vocabulary: Path, photos: list[Path]) -> None:
    captioner = build(tiny_vocabulary, grid=None)
    boxes = [np.array([[0.1, 0.1, 0.6, 0.7], [0.5, 0.2, 0.9, 0.9]][: 1 + n % 2]) for n in range(len(photos))]
    together = captioner.caption(photos, boxes=boxes)
    assert together == [captioner.caption([p], boxes=[b])[0] for p, b in zip(photos, boxes, strict=True)]
    with pytest.raises(DataError, match="boxes of a detector are needed"):
        captioner.caption(photos)


def test_a_model_of_other_regions_captions_no_photos(tiny_vocabulary: Path, photos: list[Path], tmp_path: Path) -> None:
    captioner = build(tiny_vocabulary, extractor=False)
    captioner.save(tmp_path / "bundle")
    with pytest.raises(DataError, match=r"trained on regions of photos \(mine\), which cannot be made from photos"):
        XGPTHubInterface.from_path(tmp_path / "bundle").caption(photos)
