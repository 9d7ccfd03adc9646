"""The programs on a GPU: every precision through fairseq's trainer, resuming, two processes, and the CPU's captions.

Data are the tiny images of all tests; the models are small, but with heads as wide as the fused kernels want.
"""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.end_to_end.programs import PLUGIN, generated, logged, run
from tests.gpu.conftest import REHEARSAL
from xgpt_fairseq.checkpoints import load_checkpoint

SIZES = ["--arch", "xgpt_demo", "--layers", "2", "--hidden-size", "128", "--ffn-size", "256", "--attention-heads", "2"]
PRECISIONS = {
    "float32": [],
    "fp16": ["--fp16"],
    "bf16": ["--bf16"],
    "memory-efficient": ["--memory-efficient-fp16", "--checkpoint-activations"],
}
NO_SAVE = ["--no-save", "--disable-validation"]
FEWEST = 64  # of float16's loss scale
DETERMINISTIC = """
import sys, torch
torch.use_deterministic_algorithms(True)
from fairseq_cli.train import cli_main
cli_main()
"""
FULL = """
import sys
sys.argv[0] = "fairseq-train"
import torch
from xgpt_fairseq.criterions.xgpt_criterion import XGPTCriterion
def full(*_):
    if "--cpu" not in sys.argv:
        torch.empty(1 << 50, device="cuda")
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
XGPTCriterion.forward = full
from fairseq_cli.train import cli_main
cli_main()
"""


def training(data: Path, *arguments: object, task: str = "xgpt_pretrain") -> list[object]:
    """The options of a training; later *arguments* win."""
    return [
        data, "--user-dir", PLUGIN, "--task", task, *SIZES, "--criterion", "xgpt", "--optimizer", "adam", "--lr",
        "5e-4", "--clip-norm", "5", "--batch-size", "16", "--num-workers", "0", "--log-format", "simple",
        "--log-interval", "1", "--no-epoch-checkpoints", *arguments,
    ]  # fmt: skip


def generate(data: Path, checkpoint: Path, output: Path, *arguments: object) -> dict[int, list[str]]:
    run(
        "fairseq-generate", data, "--user-dir", PLUGIN, "--task", "xgpt_caption", "--path", checkpoint, "--beam", "2",
        "--batch-size", "8", "--gen-subset", "train", "--results-path", output, *arguments,
    )  # fmt: skip
    return generated(output, "train")


@pytest.fixture(scope="module")
def captioner(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has learned something, trained on the CPU."""
    folder = tmp_path_factory.mktemp("captioner")
    learn = ["--cpu", "--max-update", "60", "--lr", "3e-3", "--dropout", "0", "--save-dir", folder]
    run("fairseq-train", *training(tiny_data, *learn, task="xgpt_caption"))
    return folder / "checkpoint_last.pt"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("schedule", ["turns", "joint"])
def test_precisions_of_pretraining(device, options, tiny_data, schedule, precision):
    """Forty updates: losses are finite and fall, and float16's scale stays where gradients have room."""
    given = [*options(*PRECISIONS[precision]), "--objective-schedule", schedule, "--max-update", "40"]
    said = run("fairseq-train", *training(tiny_data, *given, *NO_SAVE)).stdout
    losses = logged(said, "ic_nll_loss")
    assert len(losses) == 40 if schedule == "joint" else len(losses) >= 10
    assert sum(losses[-3:]) < sum(losses[:3])
    scales = logged(said, "loss_scale")
    assert bool(scales) == (precision in ("fp16", "memory-efficient") and not REHEARSAL)
    assert all(scale >= FEWEST for scale in scales)


def test_text_pretraining(device, options, tiny_text_data):
    """By `--arch xgpt`, too, of which fairseq would ask for a TPU."""
    given = [*options("--bf16"), "--arch", "xgpt", "--max-update", "20"]
    said = run("fairseq-train", *training(tiny_text_data, *given, *NO_SAVE, task="xgpt_text_pretrain")).stdout
    losses = logged(said, "mlm_nll_loss")
    assert sum(losses[-3:]) < sum(losses[:3])


def test_optimising_cider(device, options, tiny_data, captioner, tmp_path):
    """Two updates: the model that training starts from is made in the first."""
    scst = ["--criterion", "xgpt_scst", "--scst-samples", "3", "--scst-max-len", "8", "--scst-kl", "0.1"]
    given = [*options("--bf16"), *scst, "--finetune-from-model", captioner, "--max-update", "2", *NO_SAVE]
    said = run("fairseq-train", *training(tiny_data, *given, "--save-dir", tmp_path, task="xgpt_caption")).stdout
    assert len(logged(said, "reward")) == len(logged(said, "loss")) == 2


def test_a_batch_that_does_not_fit_ends_the_training(device, options, tiny_data, tmp_path):
    given = [*options(), "--max-update", "3", "--save-dir", tmp_path, "--disable-validation"]
    ended = run(sys.executable, "-c", FULL, *training(tiny_data, *given), check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: the GPU's memory is full: halve --batch-size")


def test_a_resumed_training_is_bit_for_bit_one_that_was_not_stopped(device, options, tiny_data, tmp_path):
    """In float32: of half precision, fairseq saves the rounded weights, not those that the optimizer has."""

    def train(folder: str, updates: int) -> dict[str, torch.Tensor]:
        given = [*options(), "--max-update", updates, "--save-dir", tmp_path / folder, "--disable-validation"]
        environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        run(sys.executable, "-c", DETERMINISTIC, *training(tiny_data, *given), **environment)
        return load_checkpoint(tmp_path / folder / "checkpoint_last.pt")["model"]

    whole = train("whole", 8)
    train("stopped", 5)
    resumed = train("stopped", 8)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_two_processes_on_one_gpu(device, options, tiny_data):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"tcp://localhost:{free.getsockname()[1]}"
    shared = ["--distributed-init-method", address, "--distributed-world-size", "2", "--distributed-no-spawn",
              "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp", "--device-id", "0"]  # fmt: skip
    given = [*options("--fp16"), "--max-update", "8", *NO_SAVE, *shared]
    with ThreadPoolExecutor() as pool:
        ranks = [
            pool.submit(run, "fairseq-train", *training(tiny_data, *given, "--distributed-rank", rank))
            for rank in (0, 1)
        ]
        first, _ = [rank.result() for rank in ranks]
    assert len(logged(first.stdout, "loss")) == 8


def test_captions_are_those_of_a_cpu(device, options, tiny_data, captioner, tmp_path):
    expected = generate(tiny_data, captioner, tmp_path / "cpu", "--cpu", "--nbest", "2")
    assert len(expected) > 4
    assert generate(tiny_data, captioner, tmp_path / "gpu", *options(), "--nbest", "2") == expected
    half = generate(tiny_data, captioner, tmp_path / "half", *options("--fp16"), "--nbest", "2")
    best = [half[image][0] == expected[image][0] for image in expected]
    assert sum(best) >= 0.9 * len(best)


def test_samples_end(device, options, tiny_data, captioner, tmp_path):
    sampling = ["--sampling", "--sampling-topp", "0.9", "--beam", "3", "--nbest", "3"]
    found = generate(tiny_data, captioner, tmp_path / "samples", *options("--fp16"), *sampling)
    assert all(len(captions) == 3 for captions in found.values())


def test_retrieval(device, options, tiny_data, captioner, tmp_path):
    given = [*options("--fp16"), "--finetune-from-model", captioner, "--max-update", "8", "--batch-size", "8"]
    run("fairseq-train", *training(tiny_data, *given, "--save-dir", tmp_path, "--disable-validation",
                                   task="xgpt_retrieval"))  # fmt: skip
    recall = {}
    for name in ("cpu", device.type):
        command = ["xgpt-evaluate", "--retrieval", "--path", tmp_path / "checkpoint_last.pt", "--data", tiny_data]
        run(*command, "--splits", "train", "--device", name, "--output", tmp_path / f"{name}.json", "--overwrite")
        recall[name] = json.loads((tmp_path / f"{name}.json").read_text())["image_retrieval"]
    assert recall[device.type] == recall["cpu"]


def test_augmentation(device, tiny_data, captioner, tmp_path):
    """By diverse beams, which no random numbers choose: the same captions as on the CPU."""
    made = {}
    for name in ("cpu", device.type):
        output = tmp_path / f"{name}.data"
        run("xgpt-augment", tiny_data, "--path", captioner, "--device", name, "--output", output, "--overwrite",
            "--per-image", "2", "--diverse-beam-groups", "5", "--candidates", "5")  # fmt: skip
        made[name] = json.loads((output / "captions.karpathy.json").read_text())["images"]
    assert made[device.type] == made["cpu"]
    assert any(sentence.get("generated") for image in made["cpu"] for sentence in image["sentences"])


def test_the_released_captioner(device, tmp_path):
    """A photo's pixels to its caption: the same words on both, from the command and from Python."""
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("efficientnet_lite_pytorch")
    photo = tmp_path / "photo.png"
    image.radial_gradient("L").convert("RGB").resize((320, 240)).save(photo)
    said = [run("xgpt-caption", photo, "--device", name).stdout for name in ("cpu", device.type)]
    assert said[0] == said[1]
    from xgpt_fairseq.models.xgpt import XGPTModel

    assert XGPTModel.from_pretrained().to(device).caption(str(photo))[0] in said[0]
