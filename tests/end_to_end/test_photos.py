"""From photos to captions of other photos: extraction, training, export, and the captions of fairseq-generate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.end_to_end.programs import generate, generated, preprocess, run, train


def test_photos_to_a_bundle_that_says_what_fairseq_generate_says(
    tiny_captions: Path, tiny_vocabulary: Path, tmp_path: Path
) -> None:
    from PIL import Image

    images = json.loads(tiny_captions.read_text())["images"]
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images):
        blocks = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        photo = Image.fromarray(blocks.repeat(20, axis=0).repeat(20, axis=1))
        photo.save(tmp_path / "photos" / f"COCO_val2014_{image['cocoid']:012d}.jpg")
    store, data = tmp_path / "regions", tmp_path / "data"
    preprocess("extract_regions.py", tmp_path / "photos", "--output", store, "--image-size", "96", "--grid", "2")
    preprocess(
        "prepare_captions.py", tiny_captions, "--vocabulary", tiny_vocabulary, "--regions", store, "--output", data
    )
    train(data, tmp_path / "run", "--max-update", "25", "--lr", "3e-3", "--no-save-optimizer-state")
    checkpoint = tmp_path / "run" / "checkpoint_last.pt"
    generate(data, checkpoint, tmp_path / "out", "--beam", "2")
    expected = [caption for (caption, *_) in generated(tmp_path / "out").values()]

    said = run("xgpt-export", checkpoint, "--output", tmp_path / "bundle").stdout
    assert said.endswith("captions photos and region stores\n")
    ids = [image["image_id"] for image in json.loads((data / "test.references.json").read_text())["annotations"]]
    files = [tmp_path / "photos" / f"COCO_val2014_{image:012d}.jpg" for image in dict.fromkeys(ids)]
    captions = run("xgpt-caption", *files, "--path", tmp_path / "bundle", "--device", "cpu").stdout.splitlines()
    assert [line.split("\t")[1] for line in captions] == expected and expected
    # the same from the checkpoint itself, and of the whole store
    again = run("xgpt-caption", *files, "--path", checkpoint, "--device", "cpu").stdout.splitlines()
    assert again == captions
    whole = run("xgpt-caption", store, "--path", tmp_path / "bundle", "--device", "cpu").stdout.splitlines()
    assert len(whole) == len(images)
    by_id = dict(line.split("\t") for line in whole)
    assert [by_id[str(image)] for image in dict.fromkeys(ids)] == expected
