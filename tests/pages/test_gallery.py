"""The page of captions: what is in it, that it needs nothing else, and that no text in it becomes more than text."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pages.parsed import Element, is_harmless, page_data, page_details, parsed
from xgpt_fairseq.captions.references import References
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.cider import NgramValue
from xgpt_fairseq.metrics.scores import Scores
from xgpt_fairseq.pages.gallery import System, choose_images, match_photos, render_gallery
from xgpt_fairseq.pages.page import Credit
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.vision.photo_formats import known_formats

HOSTILE = "</script><!--<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}&lt;\u2028"


def references(captions: dict[str, list[str]]) -> References:
    return References(Path("test.references.json"), captions)


THREE = references({"42": ["A dog.", "The dog."], "7": ["A cat."], "park": ["A park.", "Trees."]})


def system(name: str, captions: Sequence[str] = ("a", "b", "c"), ciders: Sequence[float] = (0.5, 1.25, 0.0)) -> System:
    return System(
        name,
        dict(zip(THREE.image_ids, captions, strict=True)),
        Scores(
            corpus={"BLEU@4": 0.25, "CIDEr": sum(ciders) / 3},
            per_image={
                image_id: {"BLEU@4": 0.125, "CIDEr": cider}
                for image_id, cider in zip(THREE.image_ids, ciders, strict=True)
            },
            left_out={},
        ),
    )


BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1], [0.5, 0.5, 0.75, 1]], dtype=np.float32)


@pytest.fixture(scope="module")
def write_regions(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RegionStore]:
    def write(ids: Sequence[str] = THREE.image_ids, *, labels: Sequence[str] | None = None, size=(640, 480)):
        path = tmp_path_factory.mktemp("regions") / "store"
        scores = None if labels is None else np.array([0.9, 0.5, 0.25])
        with RegionWriter(path, 2) as writer:
            for number, image_id in enumerate(ids):
                writer.add(
                    image_id, np.zeros((3, 2)), BOXES, scores=scores, labels=labels, size=size, position=number + 1
                )
            writer.finish()
        return RegionStore(path)

    return write


@pytest.fixture(scope="module")
def regions(write_regions: Callable[..., RegionStore]) -> RegionStore:
    return write_regions()


def photo(path: Path, size: tuple[int, int] = (640, 480), **options: object) -> Path:
    image = Image.new("RGB", size, "red")
    image.paste("blue", (0, 0, size[0] // 2, size[1] // 2))
    image.save(path, **options)
    return path


def draw(systems: Sequence[System] = (system("base"),), ids: Sequence[str] = THREE.image_ids, **options) -> Element:
    return parsed(render_gallery(THREE, systems, ids, title="Captions", **options))


def test_captions_and_scores(regions: RegionStore) -> None:
    first, second = system("base", ["a dog .", "a rat .", "a car ."]), system("big", ["x", "y", ""], [0.75, 1, 0.5])
    page = draw([first, second], regions=regions)
    assert page.all("title")[0].text == page.all("h1")[0].text == "Captions"
    table = [[cell.text for cell in row.all("th") + row.all("td")] for row in page.all("tr")]
    assert table == [
        ["captions", "CIDEr", "BLEU@4", "words", "distinct words", "repeat a phrase", "words nobody used"],
        ["base", "58.3", "25.0", "2.0", "4", "0.0 %", "66.7 %"],
        ["big", "75.0", "25.0", "0.7", "2", "0.0 %", "66.7 %"],
    ]
    assert [cell.text for cell in page.all("td", class_="highest")] == ["25.0", "75.0", "25.0"]
    assert [cell.attributes["data-label"] for cell in page.all("td")][:6] == table[0][1:]
    assert page.all("caption")[0].text == "Scores × 100 of all 3 images"

    data = page_data(page)
    assert data["systems"] == ["base", "big"] and data["total"] == 3
    assert data["metrics"] == [["CIDEr", 100.0, 1], ["BLEU@4", 100.0, 1]]
    assert [card["id"] for card in data["cards"]] == ["42", "7", "park"]
    assert [card["people"] for card in data["cards"]] == list(THREE.captions.values())
    assert data["cards"][0]["said"] == [["a dog .", [0.5, 0.125], 0], ["x", [0.75, 0.125], 2]]
    details = page_details(page)
    assert details["42"]["said"] == [{"words": [0, 1, 2, 5]}, {"words": [0, 1], "unused": [0, 1]}]
    assert details["park"]["said"][1] == {"words": []}


def test_what_can_be_seen_of_a_caption(write_regions: Callable[..., RegionStore]) -> None:
    repeats = System(
        "base", {"42": "a dog and a dog 😀 on grass", "7": "a cat", "park": "trees"}, system("base").scores,
        ngrams={"42": [NgramValue(("a", "dog"), 0.25, 0.0), NgramValue(("dog", "and"), 0.0, 0.125),
                       NgramValue(("and",), 0.0, 0.0)]},
    )  # fmt: skip
    page = draw([repeats], regions=write_regions(labels=["dog", "cat", "ball"]))
    [said] = page_details(page)["42"]["said"]
    assert said["repeated"] == [0, 5, 10, 15] and said["unused"] == [22, 27]  # the emoji is two units of UTF-16
    assert said["missed"] == [["cat", 0], ["ball", 0]]
    assert said["ngrams"] == [["a dog", 0.25, 0.0], ["dog and", 0.0, 0.125]]
    assert [card["said"][0][2] for card in page_data(page)["cards"]] == [7, 4, 4]


def test_only_what_is_chosen_is_shown_but_all_is_scored(regions: RegionStore) -> None:
    page = draw(ids=["park", "42"], regions=regions)
    data = page_data(page)
    assert [(card["id"], card["position"]) for card in data["cards"]] == [("park", 2), ("42", 0)]
    assert data["total"] == 3
    assert page.all("caption")[0].text == "Scores × 100 of all 3 images"


def test_order_and_limit() -> None:
    systems = [system("base"), system("big", ciders=[0, 0, 1])]
    ours = references({"10": ["a"], "9": ["a"], "b": ["a"], "a": ["a"]})
    assert choose_images(ours, systems) == ["10", "9", "b", "a"]
    assert choose_images(ours, systems, "id") == ["9", "10", "a", "b"]
    assert choose_images(THREE, systems, "best") == ["7", "42", "park"]
    assert choose_images(THREE, systems, "worst", 2) == ["park", "42"]
    assert choose_images(THREE, systems, limit=99) == ["42", "7", "park"]
    without_cider = System("x", {}, Scores({"ROUGE-L": 0.5}, {i: {"ROUGE-L": n} for n, i in enumerate("cab")}, {}))
    assert choose_images(references({i: ["a"] for i in "abc"}), [without_cider], "best") == ["b", "a", "c"]


def scored(name: str, **values: float) -> System:
    """A system whose images all have the corpus's scores."""
    captions = dict.fromkeys(THREE.image_ids, "a")
    return System(name, captions, Scores(values, {image_id: dict(values) for image_id in captions}, {}))


BLEU = {f"BLEU@{n}": 0.5 for n in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("values", "first", "choices"),
    [
        (BLEU, "BLEU@4", []),
        ({**BLEU, "ROUGE-L": 0.25}, "BLEU@4", ["BLEU@4", "ROUGE-L"]),
        ({"BLEU@1": 0.5, "METEOR": 0.25}, "METEOR", []),
        ({"BLEU@1": 0.5, "BLEU@2": 0.25}, "BLEU@1", ["BLEU@1", "BLEU@2"]),
    ],
)
def test_images_are_sorted_by_a_metric_that_they_show(
    regions: RegionStore, values: dict[str, float], first: str, choices: list[str]
) -> None:
    page = draw([scored("base", **values)], regions=regions)
    data = page_data(page)
    assert data["metrics"][0][0] == first and {name for name, *_ in data["metrics"]} == set(values)
    assert all(card["said"][0][1][0] == values[first] for card in data["cards"])
    assert [[option.text for option in select.all("option")] for select in page.all("select", id="metric")] == (
        [choices] if choices else []
    )


def test_a_metric_that_failed_for_one_system(regions: RegionStore) -> None:
    systems = [scored("base", CIDEr=1.0), scored("big", CIDEr=0.5, SPICE=0.25)]
    page = draw(systems, regions=regions)
    rows = [[cell.text for cell in row.all("th") + row.all("td")][:3] for row in page.all("tr")]
    assert rows == [["captions", "CIDEr", "SPICE"], ["base", "100.0", "–"], ["big", "50.0", "25.0"]]
    assert [cell.text for cell in page.all("td", class_="highest")] == ["100.0", "25.0"]
    assert [said[1] for said in page_data(page)["cards"][0]["said"]] == [[1.0, None], [0.5, 0.25]]


def test_hostile_text_stays_text(tmp_path: Path, write_regions: Callable[..., RegionStore]) -> None:
    name = HOSTILE.replace("/", "")
    photo(tmp_path / f"{name}.jpg")
    ours = references({name: [HOSTILE], "</article>": [HOSTILE + "2"]})
    hostile = System(
        HOSTILE,
        {name: HOSTILE + "3", "</article>": "</p></main><script>"},
        Scores({HOSTILE: 0.5}, {name: {HOSTILE: 0.5}, "</article>": {HOSTILE: 0.25}}, {}),
    )
    store = write_regions([name, "</article>"], labels=[HOSTILE, "</svg><script>", "x"])
    photos = match_photos([tmp_path], ours.image_ids)
    html = render_gallery(
        ours, [hostile, hostile], ours.image_ids, title=HOSTILE, photos=photos, regions=store, overlay=True,
        credits={name: Credit(HOSTILE, "https://a.example/<", HOSTILE, None)},
    )  # fmt: skip
    page = parsed(html)
    is_harmless(page)
    assert page.all("title")[0].text == page.all("h1")[0].text == HOSTILE
    data, details = page_data(page), page_details(page)
    assert data["systems"] == [HOSTILE] * 2
    assert [card["id"] for card in data["cards"]] == [name, "</article>"]
    assert [said[0] for said in data["cards"][0]["said"]] == [HOSTILE + "3"] * 2
    assert data["cards"][0]["people"] == [HOSTILE]
    assert details[name]["labels"] == [HOSTILE, "</svg><script>", "x"]
    assert details[name]["credit"] == [HOSTILE, "https://a.example/<", HOSTILE, None]


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)


@settings(max_examples=30)
@given(TEXT, TEXT, TEXT)
def test_any_text_comes_through(regions: RegionStore, said: str, name: str, title: str) -> None:
    page = parsed(render_gallery(THREE, [system(name, [said] * 3)], ["7"], title=title, regions=regions))
    is_harmless(page)
    data = page_data(page)
    assert data["cards"][0]["said"][0][0] == said and data["systems"] == [name] and data["title"] == title
    assert page.all("h1")[0].text == title and page.all("th", scope="row")[0].text == name


def test_the_scores_are_there_without_scripts(regions: RegionStore) -> None:
    page = draw(regions=regions)
    assert "needs JavaScript to show its 3 images" in page.all("noscript")[0].text
    assert page.all("td")[0].text == "58.3"


def test_regions_stand_for_a_missing_photo(regions: RegionStore) -> None:
    page = draw(regions=regions)
    card, details = page_data(page)["cards"][0], page_details(page)["42"]
    assert details["src"] is None and (card["width"], card["height"]) == (320, 240)
    assert details["boxes"] == [1000, 2000, 5000, 6000, 0, 0, 10000, 10000, 5000, 5000, 7500, 10000]
    assert "labels" not in details and "square" not in details
    assert not page.all("input", id="regions")


def test_labels_and_confidences(write_regions: Callable[..., RegionStore]) -> None:
    details = page_details(draw(regions=write_regions(labels=["dog", "lawn", "ball"])))["7"]
    assert details["labels"] == ["dog", "lawn", "ball"] and details["scores"] == [0.9, 0.5, 0.25]


def test_a_photo_of_unknown_size_is_a_square(write_regions: Callable[..., RegionStore]) -> None:
    page = draw(regions=write_regions(size=None))
    assert page_details(page)["7"]["square"] == 1
    assert (page_data(page)["cards"][1]["width"], page_data(page)["cards"][1]["height"]) == (320, 320)


def test_an_image_that_the_store_lacks(write_regions: Callable[..., RegionStore]) -> None:
    with pytest.raises(DataError, match="'park' is not in the region store"):
        draw(regions=write_regions(["42", "7"]))


@pytest.mark.parametrize(("library", "package"), [("jinja2", "jinja2"), ("PIL", "Pillow")])
def test_missing_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, package: str) -> None:
    photo(tmp_path / "7.jpg")
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.split(".")[0] == library:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    known_formats.cache_clear()
    with pytest.raises(DataError, match=rf'{package}: pip install "xgpt-fairseq\[(report|photos)\]"'):
        draw(ids=["7"], photos=match_photos([tmp_path], ["7"]))
