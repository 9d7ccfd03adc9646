"""Reading the captions that are scored, one for each image of the references, from what people have."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionOptions
from xgpt_fairseq.captions.json_values import file_name_of, image_id_of, record_image_id
from xgpt_fairseq.captions.references import References, named, parsed_json, text_of
from xgpt_fairseq.captions.registry import CaptionSource, find_format, read_sources
from xgpt_fairseq.captions.split_names import split_of_folder
from xgpt_fairseq.captions.structure import structure_of
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import COMPRESSIONS, numbered_lines
from xgpt_fairseq.regions.image_ids import NameIndex, canonical_image_id, is_photo_name, json_image_id

# fairseq-generate: sample, base-2 log-probability, detokenized text.
_GENERATED = re.compile(r"D-(\d{1,18})\t([^\t]*)\t(.*)", re.DOTALL)

# fairseq-generate: sample, the first human caption of its image; of that the first letters are compared
_TRUTH = re.compile(r"^T-(\d{1,18})\t(.*)$", re.MULTILINE)
_COMPARED = 20
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d .*\| [A-Z]+ \|")

# What stands around the name of a photo in a line
_AROUND_NAMES = " \t\"':,;|-*()[]{}<>"

# What a record of COCO's results has; others are records of the caption formats.
_RESULT_KEYS = {"image_id", "caption", "id"}


def read_captions(
    path: Path, references: References, *, by: str = "auto", options: CaptionOptions | None = None
) -> dict[str, str]:
    """Read one caption for each image of *references*: image id → caption, in the order of *references*.

    *path* is one of these, and its content tells which:

    - what fairseq-generate writes: its `D-` lines; of several hypotheses of an image the first, which is the best;
    - COCO's results, `[{"image_id", "caption"}]`, or these records in JSON lines;
    - a caption file of any format of `registry`, with one caption for each image;
    - `{name: caption}`, `{name: [{"caption"}]}` as pycocoevalcap has it, or lines of a name, a tab and a caption;
    - lines of captions alone, as many as images, in their order, which is said on the standard error.

    Args:
        by: which name of an image counts where it has two, as in `Pairing`: `auto`, `file` or `id`.
        options: how caption files are read.

    Raises:
        DataError: none of these, an image unknown, missing or captioned twice, or a name that fits several images.
    """
    options = options or CaptionOptions()
    file = CaptionFile(path, options.columns)
    text = None if path.is_dir() or structure_of(file) == "a tar" or path.suffix in COMPRESSIONS else text_of(path)
    if text is not None and re.search(r"^D-\d+\t", text, re.MULTILINE):
        _check_order(path, references)
        _check_split(path, text, references)
        captions = _generated(path, text, references.image_ids)
    else:
        images = _images(file, text, options)
        if images is not None:
            captions = _of_references(path, list(images), references, by)
        else:
            captions = _plain_lines(path, text or "", references)
    missing = [image_id for image_id in references.captions if image_id not in captions]
    if missing:
        raise DataError(
            f"{path}: {named(missing)} of {references.path} without a caption; scores need one for each of the "
            f"{len(references.captions)} images"
        )
    return {image_id: captions[image_id] for image_id in references.captions}


def coco_results(captions: Mapping[str, str]) -> list[dict[str, Any]]:
    """*captions* as the COCO server takes them: `[{"image_id", "caption"}]`, ids as integers where they are."""
    return [{"image_id": json_image_id(image_id), "caption": caption} for image_id, caption in captions.items()]


def _check_order(path: Path, references: References) -> None:
    if not references.is_ordered:
        raise DataError(
            f"{path} names no images, it counts them; and {references.path} has no order of images that is sure: name "
            "the data directory's <split>.references.json as --references"
        )


def _check_split(path: Path, text: str, references: References) -> None:
    """Refuse the output of another split: samples are counted, so that only their `T-` lines tell the splits apart.

    fairseq-generate repeats the first caption of each image, lower case, tokenized and cut; letters and digits stay.
    """
    first = [_letters(captions[0]) for captions in references.captions.values()]
    repeated = [(int(number), _letters(truth)) for number, truth in _TRUTH.findall(text)]
    wrong = [i for i, truth in repeated if i >= len(first) or not first[i].startswith(truth[:_COMPARED])]
    if len(wrong) > len(repeated) / 2:
        raise DataError(
            f"{path} is not of the split of {references.path}: the captions in its lines T-{wrong[0]}, … "
            f"({len(wrong)} of {len(repeated)}) are not those of the images"
        )


def _letters(caption: str) -> str:
    """Of the form in which models write (`text.vocabulary.normalize`)."""
    return "".join(character for character in unicodedata.normalize("NFKC", caption).lower() if character.isalnum())


def _generated(path: Path, text: str, image_ids: list[str]) -> dict[str, str]:
    captions: dict[str, str] = {}
    previous = None
    # Not splitlines(): a caption may hold U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.startswith("D-"):
            continue
        match = _GENERATED.fullmatch(line)
        if match is None:
            raise DataError(f"{path}:{number}: {line[:60]!r} is not D-<sample><tab><score><tab><caption>")
        index = int(match[1])
        if index >= len(image_ids):
            raise DataError(
                f"{path}:{number}: sample {index}, but the references have {len(image_ids)} images "
                f"(0 to {len(image_ids) - 1}); are these the references of this split?"
            )
        image_id = image_ids[index]
        # --nbest writes an image's hypotheses one after the other, the best first.
        if index == previous:
            continue
        if image_id in captions:
            raise DataError(
                f"{path}:{number}: sample {index} (image {image_id}) appears again after other samples; "
                "does the file hold the output of two runs?"
            )
        captions[image_id] = match[3].strip()
        previous = index
    return captions


# An image's record: where it is, for messages, and the image with its one caption.
_Record = tuple[str, CaptionedImage]


def _images(file: CaptionFile, text: str | None, options: CaptionOptions) -> Iterator[_Record] | None:
    """The records of a file that names its images; None if it has lines of captions alone.

    Raises:
        DataError: a structure that nothing here knows.
    """
    path, structure = file.path, structure_of(file) or ""
    value: Any = None
    if text is not None and structure.startswith("JSON"):
        value = _json_lines(path, text) if structure.startswith("JSON lines") else parsed_json(path, text)
    if isinstance(value, dict) and {"image_id", "caption"} <= value.keys() <= _RESULT_KEYS:
        value = [value]  # JSON lines, one of them
    if isinstance(value, list) and (not value or _is_result(value[0])):
        return _results(path, value)
    if _has_lists_of_records(value) and len(value) > 1:  # one may be a list of all images
        return _lists_of_records(path, value)
    found = find_format(file)
    if found is not None:
        return _captioned_once(path, read_sources([CaptionSource(file, found)], _for_captions(options)))
    if isinstance(value, dict) and all(isinstance(caption, str) for caption in value.values()):
        return (_record(f"{path}: {name!r:.60}", name, caption) for name, caption in value.items())
    if _has_lists_of_records(value):
        return _lists_of_records(path, value)
    if isinstance(value, list):
        return _results(path, value)
    if value is not None:
        raise DataError(
            f'{path}: COCO results are a list, [{{"image_id": …, "caption": …}}], other captions {{"name": "caption"}} '
            "or a caption file of a known format; found none of these"
        )
    if text is not None and "\t" in text and "\0" not in text:
        return _named_lines(path, text)
    if structure:
        raise DataError(
            f"{path} looks like {structure}, but is no caption file of a known format; of a table whose columns have "
            "other names, say which they are by --columns image=…,caption=…; of lines, put a tab between name and "
            "caption"
        )
    return None


def _for_captions(options: CaptionOptions) -> CaptionOptions:
    """*options* without splits: captions are of the images that they name."""
    return CaptionOptions(
        unknown_split="",
        columns=options.columns,
        columns_of_others=options.columns_of_others,
        answers=options.answers,
        log=options.log,
    )


def _is_result(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= _RESULT_KEYS


def _has_lists_of_records(value: Any) -> bool:
    """Whether each key of an object has a list of captions, [{"caption"}], and is no split's name."""
    return isinstance(value, dict) and all(
        isinstance(records, list)
        and all(isinstance(record, dict) and "caption" in record for record in records)
        and not split_of_folder(name)
        for name, records in value.items()
    )


def _lists_of_records(path: Path, value: dict[str, list[dict[str, Any]]]) -> Iterator[_Record]:
    for name, records in value.items():
        where = f"{path}: {name!r:.60}"
        if len(records) != 1:
            raise DataError(f"{where} has {len(records)} captions; one for each image is scored")
        yield _record(where, name, records[0]["caption"])


def _record(where: str, name: object, caption: object, key: str = "image") -> _Record:
    if not isinstance(caption, str):
        shown = "nothing" if caption is None else repr(caption)[:60]
        raise DataError(f'{where}: "caption" must be a string, found {shown}')
    image_id = image_id_of(where, key, name)
    return where, CaptionedImage(image_id, "", [Caption(0, caption)], file_name_of(name))


def _json_lines(path: Path, text: str) -> list[Any]:
    lines = text.split("\n")
    return [parsed_json(path, line, number) for number, line in enumerate(lines, start=1) if line.strip()]


def _results(path: Path, value: list[Any]) -> Iterator[_Record]:
    for position, result in enumerate(value):
        where = f"{path}: record {position}"
        if isinstance(result, dict) and "image_id" not in result:
            raise DataError(
                f"{where} lacks 'image_id', it has: {', '.join(result)[:200]}; say which are the image and the caption "
                "by --columns image=…,caption=…"
            )
        record_image_id(where, result, "image_id")
        yield _record(where, result["image_id"], result.get("caption"), "image_id")


def _named_lines(path: Path, text: str) -> Iterator[_Record]:
    tabs = ["\t" in line for line in text.split("\n") if line.strip()]
    few = tabs.count(True) <= len(tabs) / 2
    for number, line in numbered_lines(path):
        if few and "\t" in line:
            raise DataError(
                f"{path}: line {number}: {line[:60]!r} has a tab, and most lines have none: captions alone have no "
                "tabs, and names and captions have one a line"
            )
        if few:
            continue
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        where = f"{path}: line {number}"
        if not tab or "\t" in caption:
            raise DataError(f"{where}: {line[:60]!r} is not the name of an image, a tab and a caption")
        yield _record(where, name, caption.strip())


def _captioned_once(path: Path, images: Iterable[CaptionedImage]) -> Iterator[_Record]:
    for image in images:
        where = f"{path}: image {image.file_name or image.image_id}"
        if len(image.captions) > 1:
            raise DataError(f"{where} has {len(image.captions)} captions; one for each image is scored")
        yield where, image


def _plain_lines(path: Path, text: str, references: References) -> dict[str, str]:
    lines = text.removesuffix("\n").split("\n") if text.strip() else []
    if len(lines) != len(references.captions) or any(map(_LOG_LINE.match, lines)):
        raise DataError(
            f"{path}: no line D-<image>, no names of images, and {len(lines)} lines for the "
            f"{len(references.captions)} images of {references.path}: expected fairseq-generate's output "
            "(--results-path writes it as generate-<split>.txt; --quiet leaves the captions out), COCO results, a "
            "table or records of names and captions, or a caption a line for all images in their order"
        )
    _check_unnamed(path, lines, references)
    _check_order(path, references)
    print(
        f"{path}: lines without names, taken as captions of the {len(lines)} images of {references.path} in their "
        "order",
        file=sys.stderr,
    )
    return dict(zip(references.captions, (line.strip() for line in lines), strict=True))


def _check_unnamed(path: Path, lines: list[str], references: References) -> None:
    """Refuse lines that begin with the names of photos: their order is not that of the references."""
    beginnings = (line.strip(_AROUND_NAMES).split(maxsplit=1) for line in lines)
    words = [words[0].rstrip(_AROUND_NAMES) for words in beginnings if words]
    known = {canonical_image_id(name) for name in (*references.captions, *references.file_names.values())}
    names = {word for word in words if is_photo_name(word.split("#")[0]) or canonical_image_id(word) in known}
    if len(names) > len(lines) / 2:
        raise DataError(
            f"{path}: {lines[0][:60]!r} and others begin with the names of photos: put a tab between name and caption, "
            "or write a table (image,caption) or JSON lines"
        )


def _of_references(path: Path, records: list[_Record], references: References, by: str) -> dict[str, str]:
    """Image id of *references* → caption."""
    ids = NameIndex((image_id, image_id) for image_id in references.captions)
    names = references.file_names
    files = NameIndex(
        (canonical_image_id(names[image_id]) if image_id in names else image_id, image_id)
        for image_id in references.captions
    )
    as_they_are = _are_ids(records, references)
    captions: dict[str, str] = {}
    unknown = []
    for where, image in records:
        name = image.file_name or image.image_id
        of_file = (files.find_id(name) if image.file_name is None else files.find(name)) if by != "id" else []
        # the id is another name than the file's only if it says something else
        is_id = image.file_name is None or canonical_image_id(image.file_name) != image.image_id or by == "id"
        of_id = ids.find_id(image.image_id) if by != "file" and is_id else []
        if of_file and of_id and of_file != of_id and not as_they_are:
            raise DataError(
                f"{where} is {of_id[0]} of {references.path} by its id, and {of_file[0]} by its file's name: say which "
                "is meant by --pair-by id or --pair-by file"
            )
        found = [name] if as_they_are else of_file or of_id
        if len(found) > 1:
            raise DataError(
                f"{where}: {name} may be {found[0]} or {found[1]} of {references.path}: captions of photos that share "
                "a name must name the folder, too"
            )
        if not found:
            unknown.append(name)
            continue
        if found[0] in captions:
            raise DataError(f"{where}: image {found[0]} has a caption already; one for each image")
        captions[found[0]] = image.captions[0].text if image.captions else ""
    if unknown:
        raise DataError(f"{path}: {named(unknown)} not in {references.path}; are these the references of this split?")
    return captions


def _are_ids(records: list[_Record], references: References) -> bool:
    """Whether records name all images, and no others, by just the ids of *references*, as captions of a store do.

    Then no extension is taken off: `1.png` is the id of `1.png.jpg`, and not the file of `1`. Names of files are never
    all the ids, which are made of them by taking off their extensions.
    """
    two_names = any(image.file_name and canonical_image_id(image.file_name) != image.image_id for _, image in records)
    if two_names or references.file_names:
        return False
    return {image.file_name or image.image_id for _, image in records} == references.captions.keys()
