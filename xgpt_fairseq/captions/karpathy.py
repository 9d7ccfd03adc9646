"""karpathy: Karpathy's splits of COCO, Flickr30k and Flickr8k."""

from __future__ import annotations

from collections.abc import Iterator

from xgpt_fairseq.captions.base import (
    Caption,
    CaptionedImage,
    CaptionFile,
    CaptionFormat,
    CaptionOptions,
    fairseq_split,
    file_named,
)
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id


def recognise(file: CaptionFile) -> bool:
    """Whether its first image has sentences."""
    images = file.json_object.get("images")
    return isinstance(images, list) and bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """Read Karpathy's `dataset_coco.json`, `dataset_flickr30k.json` or `dataset_flickr8k.json`.

    `images[]` have `split`, `sentences[].raw` and `sentences[].sentid`; the image id is `cocoid` if there is one, else
    `filename`. COCO's have `filepath`, too, the folder of the photo.
    """
    path, value = file.path, file.json
    images = value.get("images") if isinstance(value, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path} has no list 'images'; is it one of Karpathy's files?")
    for number, image in enumerate(images):
        where = f"{path}: images[{number}]"
        try:
            name = image.get("filename")
            if name and image.get("filepath"):
                name = f"{image['filepath']}/{name}"
            image_id = canonical_image_id(image["cocoid"] if "cocoid" in image else name or image["filename"])
            file_name = file_named(name)
            captions = [Caption(int(s.get("sentid", i)), s["raw"]) for i, s in enumerate(image["sentences"])]
            split = fairseq_split(image["split"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problem = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed ({error})"
            raise DataError(
                f"{where} {problem}; each image needs cocoid or filename, split and sentences[].raw"
            ) from error
        yield CaptionedImage(image_id, split, captions, file_name)


KARPATHY = CaptionFormat("karpathy", "Karpathy's dataset_*.json; also RSICD, UCM", recognise, read, two_names=True)
