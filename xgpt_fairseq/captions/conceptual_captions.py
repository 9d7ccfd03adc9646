"""cc-tsv, Conceptual Captions: one caption and image URL per line, and the names of downloaded images.

`Train_GCC-training.tsv` and `Validation_GCC-1.1.0-Validation.tsv` have neither a header nor image ids. The download
program names the images: by line number, from 0 (VL-BERT: `00000000.jpg`), by the crc32 of the URL
(DownloadConceptualCaptions, ViLBERT, VOLTA: `training/1903725124`), or as given in a file. Files of millions of lines
are read line by line, and data on all lines is kept in arrays.
"""

from __future__ import annotations

import csv
import itertools
import re
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.json_values import file_name_of, image_id_of, load_json, most
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import numbered_lines
from xgpt_fairseq.regions.image_ids import canonical_image_id

if TYPE_CHECKING:
    from xgpt_fairseq.regions.names import ImageNames

# So many lines are looked at to find out whether photos are named by their URLs.
LINES: Final = 10_000

_URL = re.compile(r"(https?|ftp)://", re.IGNORECASE)
_HEADER = {"caption", "url"}

# Reports of DownloadConceptualCaptions have no header, and their columns changed over time. (number of columns, URL
# column) → file column. Two columns are a plain map.
_MAP_LAYOUTS = {(2, 0): 1, (2, 1): 0, (5, 1): 4, (6, 5): 0, (7, 0): 5, (7, 6): 0}
_MAP_ID_COLUMNS = ("id", "image_id", "image", "file", "filename", "file_name", "key", "path")


def recognise(file: CaptionFile) -> bool:
    """Whether most lines have two columns, and one of them is a URL."""
    rows = [line.split("\t") for line in file.first_lines]
    if rows and _is_header(rows[0]):
        rows.pop(0)
    return most(_is_pair(row) for row in rows)


def _is_pair(row: Sequence[str]) -> bool:
    return len(row) == 2 and sum(map(_is_url, row)) == 1


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """Read lines of caption, tab, URL; CC12M has the reverse order. A header `caption url` is skipped.

    The image id is the line number, from 0 after the header, or given by `options.image_id_of_url`. In the latter case
    several lines may have the same image: a URL that occurs twice is an image with two captions. But an image id of
    several URLs is ambiguous (of 3.3 million crc32 some 1300 are equal by chance). Such captions, and those whose URL
    has no id, get their URL as image id, which no region store has.
    """
    if options.image_id_of_url is None:
        for line, caption, _ in _rows(file, options.log):
            yield CaptionedImage(str(line), "", [Caption(line, caption)])
        return
    several = _hashes_of_several(file, options)
    held: dict[str, dict[str, list[Caption]]] = {}
    for line, caption, url in _rows(file, options.log):
        image_id = options.image_id_of_url(url) or url
        if hash(image_id) in several:
            held.setdefault(image_id, {}).setdefault(url, []).append(Caption(line, caption))
        else:
            yield CaptionedImage(image_id, "", [Caption(line, caption)])
    for image_id, captions_by_url in held.items():
        for url, captions in captions_by_url.items():
            yield CaptionedImage(image_id if len(captions_by_url) == 1 else url, "", captions)


def check_lines(file: CaptionFile, names: ImageNames) -> None:
    """Refuse to name images by their lines, where photos seem to be named by the URLs: each would get others' captions.

    The first `LINES` are looked at.

    Args:
        file: of this format.
        names: of the photos, or of a store.

    Raises:
        DataError: most URLs end in the name of a photo, and a line's number is the name of another one.
    """
    rows = list(itertools.islice(_rows(file, ReadingLog(sys.maxsize)), LINES))
    named = [(line, url, found) for line, _, url in rows if (name := file_name_of(url)) and (found := names.find(name))]
    if 2 * len(named) <= len(rows):
        return
    for line, url, found in named:
        of_line = names.find_id(str(line))
        if of_line and of_line != found:
            raise DataError(
                f"{file.path}: {url[:60]!r} is line {line} (from 0), and {names.where} has a photo of either name, "
                f"{names.image_id(found[0])} and {names.image_id(of_line[0])}: type --image-ids line if it is the "
                "line's, or --image-ids MAP, a file of each URL and its photo's name"
            )


def _hashes_of_several(file: CaptionFile, options: CaptionOptions) -> set[int]:
    """`hash` of the image ids of more than one line. A chance collision does no harm."""
    import numpy as np

    image_id_of_url, log = options.image_id_of_url, ReadingLog(options.log.skip_bad)
    assert image_id_of_url is not None
    hashes = array("q", (hash(image_id_of_url(url) or url) for _, _, url in _rows(file, log)))
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    return set(values[counts > 1].tolist())


def _rows(file: CaptionFile, log: ReadingLog) -> Iterator[tuple[int, str, str]]:
    """(line, caption, URL); lines are numbered from 0 after the header. Blank and bad ones are counted and left out."""
    headers = 0
    first = next(filter(_is_pair, (line.split("\t") for line in file.first_lines)), ["", ""])
    url_first = _is_url(first[0])
    for number, text in numbered_lines(file.path):
        if not text.strip():
            continue
        columns = text.split("\t")
        if number == 1 and _is_header(columns):
            headers = 1
            continue
        where = f"{file.path}: line {number}"
        if len(columns) != 2:
            log.bad_record(
                DataError(f"{where} has {len(columns)} columns: {text[:60]!r}; it must have two, a caption and a URL")
            )
            continue
        url, caption = columns if url_first else reversed(columns)
        if not _is_url(url):
            log.bad_record(
                DataError(
                    f"{where}: {url[:60]!r} is not a URL, and the {'first' if url_first else 'second'} column must be "
                    "one"
                )
            )
            continue
        yield number - 1 - headers, caption, url.strip()


def _is_header(columns: Sequence[str]) -> bool:
    return len(columns) == 2 and {column.strip().lower() for column in columns} == _HEADER


def _is_url(text: str) -> bool:
    return _URL.match(text.strip()) is not None


CC_TSV = CaptionFormat(
    "cc-tsv",
    "lines of a caption, a tab and a URL, or the reverse: Conceptual Captions",
    recognise,
    read,
    images_by_url=True,
)


def image_id_by_crc32(url: str) -> str:
    """The crc32 of a URL in decimal: the file name in DownloadConceptualCaptions."""
    return str(zlib.crc32(url.encode("utf-8")))


class UrlMap:
    """A map from URL to image id, read from files. Call it with a URL to get the image id, or None.

    Takes 24 bytes per URL plus the ids. URLs are stored by their 64-bit `hash`: the probability that any two of 10
    million collide is 3 in a million. If a URL has several ids, the first is used.

    Args:
        paths: each a JSON object {url: id}, or tab-separated (compressed or not): lines of a URL and an id in either
            order; columns with a header that has `url` and one of `_MAP_ID_COLUMNS`; or a report of
            DownloadConceptualCaptions. Folders in an id are dropped; a URL with an empty id was not downloaded.

    Raises:
        DataError: a file is unreadable, has another format, or names no image.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        import numpy as np

        hashes, ends, names = array("q"), array("q"), bytearray()
        for path in paths:
            before = len(hashes)
            for url, name in _json_map(path) if path.suffix == ".json" else _tsv_map(path):
                names += canonical_image_id(name.rsplit("/", 1)[-1]).encode("utf-8")
                hashes.append(hash(url))
                ends.append(len(names))
            if len(hashes) == before:
                raise DataError(f"{path} names no image: each line must have a URL and an image id")
        order = np.argsort(np.frombuffer(hashes, dtype=np.int64), kind="stable")
        ends_array = np.frombuffer(ends, dtype=np.int64)
        starts = np.concatenate([[0], ends_array[:-1]])
        self._names = bytes(names)
        # arrays of the standard library, whose items bisect reads several times as fast as numpy's
        self._hashes = array("q", np.frombuffer(hashes, dtype=np.int64)[order].tobytes())
        self._starts = array("q", starts[order].astype(np.int64).tobytes())
        self._ends = array("q", ends_array[order].tobytes())

    def __len__(self) -> int:
        return len(self._hashes)

    def __call__(self, url: str) -> str | None:
        key = hash(url)
        place = bisect_left(self._hashes, key)
        if place == len(self._hashes) or self._hashes[place] != key:
            return None
        return self._names[self._starts[place] : self._ends[place]].decode("utf-8")


def _json_map(path: Path) -> Iterator[tuple[str, str]]:
    value = load_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a map: it must be a JSON object of URLs and image ids")
    for url, name in value.items():
        if not _is_url(url):
            raise DataError(f"{path}: {url[:60]!r} is not a URL; a map goes from URLs to image ids")
        if name not in (None, ""):
            yield url.strip(), image_id_of(f"{path}: {url[:60]!r}", "id", name)


def _tsv_map(path: Path) -> Iterator[tuple[str, str]]:
    url_column = id_column = width = -1
    reader = csv.reader((line for _, line in numbered_lines(path)), delimiter="\t", strict=True)
    try:
        for row in reader:
            if not row:
                continue
            where = f"{path}: line {reader.line_num}"
            if width < 0:
                width = len(row)
                url_column, id_column, is_header = _map_columns(where, row)
                if is_header:
                    continue
            if len(row) != width:
                raise DataError(f"{where} has {len(row)} columns, the first line has {width}")
            if not _is_url(row[url_column]):
                raise DataError(f"{where}: {row[url_column][:60]!r} is not a URL, and column {url_column + 1} must be")
            if name := row[id_column].strip():
                yield row[url_column].strip(), name
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not tab-separated: {error}") from error


def _map_columns(where: str, row: list[str]) -> tuple[int, int, bool]:
    """Columns of the URL and the image id, from the first line, and whether that is a header."""
    urls = [column for column, text in enumerate(row) if _is_url(text)]
    if not urls:
        names = [text.strip().lower() for text in row]
        ids = [names.index(name) for name in _MAP_ID_COLUMNS if name in names]
        if "url" in names and ids:
            return names.index("url"), ids[0], True
        raise DataError(
            f"{where} has no URL, and is not a header with url and one of {', '.join(_MAP_ID_COLUMNS)}: "
            f"{', '.join(row)[:60]!r}"
        )
    id_column = _MAP_LAYOUTS.get((len(row), urls[0]))
    if len(urls) > 1 or id_column is None:
        raise DataError(
            f"{where}: which of the {len(row)} columns is the image id? Leave two, or write a header with url and id"
        )
    return urls[0], id_column, False
