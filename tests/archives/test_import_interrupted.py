"""Imports that are interrupted go on where they stopped, from every archive."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.archives import layouts
from tests.archives.layouts import LAYOUTS, made_up
from tests.archives.test_import import FORMATS, IMAGES, Call, size_options
from tests.folders import contents
from tests.preloaded import python
from xgpt_fairseq.archives.registry import open_archive
from xgpt_fairseq.regions.writer import RegionWriter


def test_every_position_can_be_gone_on_from(tmp_path: Path) -> None:
    for name, layout in LAYOUTS.items():
        reader = open_archive(layout.write(tmp_path / name, IMAGES))[0]
        everything = [(record.image_id, position) for record, position in reader.iterate()]
        assert len(everything) == len(IMAGES)
        assert everything[-1][1] == reader.end
        for index, (_, position) in enumerate(everything):
            rest = [(record.image_id, behind) for record, behind in reader.iterate(position)]
            assert rest == everything[index + 1 :]
        reader.close()


def test_an_archive_is_known_again(tmp_path: Path) -> None:
    """An import goes on only with the archive that it was begun with."""
    other_images = [*IMAGES[:-1], made_up(77)]
    for name, layout in LAYOUTS.items():
        paths = [tmp_path / name / part / "archive" for part in ("a", "b", "c")]
        for path in paths:
            path.parent.mkdir(parents=True)
        first, same, other = (
            open_archive(layout.write(path, images))[0].describe()
            for path, images in zip(paths, (IMAGES, IMAGES, other_images), strict=True)
        )
        assert first == same == json.loads(json.dumps(first))
        assert first != other


@pytest.mark.parametrize("name", FORMATS)
def test_a_killed_import_goes_on_and_ends_the_same(name: str, tmp_path: Path, import_archive: Call) -> None:
    """SIGKILL of the real program with worker processes, in the middle; then to the end."""
    layout = LAYOUTS[name]
    images = [made_up(number) for number in range(200)]
    source = layout.write(tmp_path / "archive", images)
    options = size_options(layout, tmp_path, images)
    assert import_archive(source, tmp_path / "expected", *options).status == 0

    store, journal = tmp_path / "store", tmp_path / ".store.partial" / "journal.json"
    stop_at = random.randint(20, 120)
    # The program as it is, but with a journal at every fifth image, and a stop where it waits for its end.
    stopping = (
        "import time; from xgpt_fairseq.cli import import_regions\n"
        "import xgpt_fairseq.regions.writer as w; add = w.RegionWriter.add\n"
        f"def stop(self, *a, **k):\n if self.images == {stop_at}: print('here', flush=True); time.sleep(600)\n"
        " self.journal_images = 5; add(self, *a, **k)\n"
        "w.RegionWriter.add = stop; import_regions.main()"
    )
    command = [
        python(),
        "-c",
        stopping,
        str(source),
        "--output",
        str(store),
        *map(str, options),
        "--workers",
        "2",
    ]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert "here\n" in iter(program.stdout.readline, "")
    program.send_signal(signal.SIGKILL)
    _, err = program.communicate(timeout=60)  # ends only when the workers have ended, too
    assert program.returncode == -signal.SIGKILL, err
    assert not store.exists()
    reached = json.loads(journal.read_text())["state"]["images"]
    assert stop_at - 5 < reached <= stop_at

    outcome = import_archive(source, store, *options)
    assert outcome.status == 0, outcome.stderr
    assert f"resuming an interrupted import after {reached} images" in outcome.stdout
    assert contents(store) == contents(tmp_path / "expected")
    assert not journal.parent.exists()


def test_an_interrupted_import_refuses_another_archive(
    tmp_path: Path, import_archive: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = layouts.write_vilbert(tmp_path / "archive", IMAGES)
    finish = RegionWriter.finish

    def stopped(self: RegionWriter) -> None:
        self._save()
        raise KeyboardInterrupt

    monkeypatch.setattr(RegionWriter, "finish", stopped)
    assert import_archive(source, tmp_path / "store").status != 0
    monkeypatch.setattr(RegionWriter, "finish", finish)
    other = layouts.write_vilbert(tmp_path / "other", [*IMAGES, made_up(77)])
    outcome = import_archive(other, tmp_path / "store")
    assert "was started with other options" in outcome.error
    assert "names_sha256" in outcome.error
