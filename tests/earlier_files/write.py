"""Write the files of this folder with the programs of a checkout: python write.py CHECKOUT. See README.md."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
IMAGES = {500: "train", 7: "val", 123: "train", 42: "train", 99: "test", 8: "train"}
COLOURS, ANIMALS = ("red", "green", "blue"), ("cat", "dog")
SMALL = ["--layers", "1", "--hidden-size", "16", "--ffn-size", "32", "--attention-heads", "2"]


def write_source(folder: Path) -> None:
    """Captions in Karpathy's format, the same as text, and features and boxes a file an image."""
    images = []
    for kind in ("att", "box"):
        (folder / kind).mkdir()
    for number, (image, split) in enumerate(IMAGES.items()):
        random = np.random.default_rng(image)
        what = f"{COLOURS[number % 3]} {ANIMALS[number // 3]}"
        texts = [f"A {what} sleeps in a field.", f"There is a {what} on the table."]
        sentences = [{"raw": text, "sentid": 10 * number + place} for place, text in enumerate(texts)]
        images.append({"cocoid": image, "filename": f"{image:012d}.jpg", "split": split, "sentences": sentences,
                       "width": 64, "height": 48})  # fmt: skip
        count = 1 + number % 3
        corners = np.sort(random.random((count, 2, 2)), axis=1).reshape(count, 4) * [64, 48, 64, 48]
        np.savez(folder / "att" / f"{image}.npz", feat=random.normal(size=(count, 8)).astype(np.float32))
        np.save(folder / "box" / f"{image}.npy", corners.astype(np.float32))
    (folder / "captions.json").write_text(json.dumps({"images": images}))
    lines = [sentence["raw"] for image in images for sentence in image["sentences"]]
    (folder / "text.txt").write_text("".join(f"{line}\n" for line in lines))


def main(checkout: Path) -> None:
    work = Path(tempfile.mkdtemp())
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}

    def run(*command: object) -> str:
        words = list(map(str, command))
        done = subprocess.run(words, cwd=work, env=environment, check=True, capture_output=True, text=True)
        return done.stdout + done.stderr

    def python(*command: object) -> str:
        return run(sys.executable, *command)

    (work / "source").mkdir()
    write_source(work / "source")
    preprocess, captions = checkout / "preprocess", "source/captions.json"
    python(preprocess / "import_regions.py", "source", "--output", "regions", "--sizes", captions)
    python(preprocess / "learn_bpe.py", "--input", captions, "--output", "vocabulary", "--symbols", 20)
    python(preprocess / "prepare_captions.py", captions, "--vocabulary", "vocabulary", "--regions", "regions",
           "--output", "captions")  # fmt: skip
    python(preprocess / "prepare_text.py", "--input", "source/text.txt", "--vocabulary", "vocabulary", "--output",
           "text", "--valid-lines", 2)  # fmt: skip
    (work / "plugin").mkdir()
    (work / "plugin" / "xgpt_fairseq").symlink_to(checkout / "xgpt_fairseq")
    plugin = ["--user-dir", "plugin/xgpt_fairseq"]  # as it stands in the checkpoints
    for task in ("xgpt_pretrain", "xgpt_caption"):
        run("fairseq-train", "captions", *plugin, "--task", task, "--arch", "xgpt_demo", *SMALL, "--criterion", "xgpt",
            "--optimizer", "adam", "--lr", "1e-2", "--batch-size", "4", "--max-update", "40", "--cpu",
            "--no-save-optimizer-state", "--disable-validation", "--save-dir", task)  # fmt: skip
        shutil.copy(work / task / "checkpoint_last.pt", work / f"{task}.pt")
    python("-m", "xgpt_fairseq.cli.export", "xgpt_caption.pt", "--output", "bundle")

    # what the code of then makes of them
    python("-m", "xgpt_fairseq.cli.caption", "regions", "--path", "bundle", "--json", "captions_of_regions.json")
    losses = {}
    for stage, task in (("pre-training", "xgpt_pretrain"), ("captions", "xgpt_caption")):
        said = run("fairseq-validate", "captions", *plugin, "--task", task, "--path", f"{task}.pt", "--batch-size", "2",
                   "--cpu", "--log-format", "json")  # fmt: skip
        (line,) = [line for line in said.splitlines() if '"valid_nll_loss"' in line]
        losses[stage] = _record(line)
    store = "from xgpt_fairseq.data.region_store import RegionStore as Store"
    read = f"{store}; import json; s = Store('regions'); print(json.dumps({{s.image_id(i): s.features(i).tolist()"
    features = json.loads(python("-c", f"{read} for i in range(len(s))}}))").splitlines()[-1])
    spoken = json.loads((work / "captions_of_regions.json").read_text())
    expected = {"features": features, "captions": {each["image_id"]: each["caption"] for each in spoken},
                "validation": losses}  # fmt: skip
    for name in ("regions", "vocabulary", "captions", "text", "bundle"):
        shutil.rmtree(HERE / name, ignore_errors=True)
        shutil.copytree(work / name, HERE / name)
    for name in ("xgpt_pretrain.pt", "xgpt_caption.pt"):
        shutil.copy(work / name, HERE / name)
    shutil.copy(work / captions, HERE / "captions.json")
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    shutil.rmtree(work)


def _record(line: str) -> dict[str, str]:
    """The losses of a line of fairseq's log in JSON."""
    values = json.loads(line[line.index("{") :])
    return {name: value for name, value in values.items() if name.endswith(("nll_loss", "_mse"))}


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
