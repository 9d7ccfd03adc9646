"""karpathy: Karpathy's splits of COCO, Flickr30k and Flickr8k."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.columns import split_name
from xgpt_fairseq.captions.json_values import file_named, image_id_of, most
from xgpt_fairseq.errors import DataError

# So many images are looked at to find out what they are.
_HEAD = 20


def recognise(file: CaptionFile) -> bool:
    """Whether most of the first images have sentences."""
    images = _images(file.json_value)
    return images is not None and most(isinstance(image, dict) and "sentences" in image for image in images[:_HEAD])


def _images(value: Any) -> list[Any] | None:
    """The list of images, which an object has, or which the value itself is."""
    images = value.get("images") if isinstance(value, dict) else value
    return images if isinstance(images, list) and (images or images is not value) else None


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """Read Karpathy's `dataset_coco.json`, `dataset_flickr30k.json` or `dataset_flickr8k.json`.

    `images[]` have `split`, `sentences[].raw` and `sentences[].sentid`; the image id is `cocoid` if there is one, else
    `filename`. COCO's have `filepath`, too, the folder of the photo. Sentences may be plain texts, and images may have
    no split.
    """
    path, images = file.path, _images(file.json)
    if images is None:
        raise DataError(f"{path} has no list 'images'; is it one of Karpathy's files?")
    for number, image in enumerate(images):
        where = f"{path}: images[{number}]"
        try:
            captioned = _image(where, image)
        except DataError as error:
            options.log.bad_record(error)
        else:
            yield captioned


def _image(where: str, image: Any) -> CaptionedImage:
    try:
        name = image.get("filename")
        if name and image.get("filepath"):
            name = f"{image['filepath']}/{name}"
        cocoid = image.get("cocoid")
        if cocoid is None or (isinstance(cocoid, float) and math.isnan(cocoid)):  # as pandas writes what is missing
            image_id = image_id_of(where, "filename", name or image["filename"])
        else:
            image_id = image_id_of(where, "cocoid", cocoid)
        file_name = file_named(name)
        sentences = [{"raw": one} if isinstance(one, str) else one for one in image["sentences"]]
        captions = [Caption(int(s.get("sentid", i)), s["raw"]) for i, s in enumerate(sentences)]
    except DataError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed ({error})"
        raise DataError(f"{where} {problem}; each image needs cocoid or filename, and sentences[].raw") from error
    return CaptionedImage(image_id, split_name(f"{where}: 'split'", image.get("split")), captions, file_name)


KARPATHY = CaptionFormat(
    "karpathy", "Karpathy's dataset_*.json; also RSICD, UCM", recognise, read, two_names=True, keeps_entities=True
)
