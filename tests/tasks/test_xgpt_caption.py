"""The task: what it refuses, what it builds, what generated text looks like."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from omegaconf import OmegaConf

from xgpt_fairseq.criterions.xgpt_criterion import XGPTCriterion
from xgpt_fairseq.criterions.xgpt_scst import XGPTSCSTConfig, XGPTSCSTCriterion
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.token_file import TokenFile
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics import validation_scorer
from xgpt_fairseq.metrics.validation_scorer import STATISTICS, ValidationScorer
from xgpt_fairseq.models.transfer import LoadMode
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.tasks import xgpt_caption
from xgpt_fairseq.tasks.xgpt_caption import XGPTCaptionConfig, XGPTCaptionTask


def task_of(data: Path, **options: Any) -> XGPTCaptionTask:
    resolved = {"seed": 1, "update_freq": [1], "train_subset": "train", "best_checkpoint_metric": "loss"}
    return XGPTCaptionTask.setup_task(XGPTCaptionConfig(data=str(data), **{**resolved, **options}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions_per_image": 0}, "--captions-per-image must be at least 1, got 0"),
        ({"shuffle_window_images": -1}, "--shuffle-window-images must be at least 0, got -1"),
        ({"best_checkpoint_metric": "cider"}, "--best-checkpoint-metric cider needs --eval-captions"),
        (
            {"best_checkpoint_metric": "ida_nll_loss"},
            "ida_nll_loss: ida is not among the objectives that train \\(ic\\)",
        ),
    ],
)
def test_options_are_checked(tiny_data: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task_of(tiny_data, **options)


def test_the_old_name_of_an_option_still_works(tiny_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    for options, said in (({"shuffle_window_images": 5}, []), ({"locality": 5}, ["is called"]), ({}, [])):
        caplog.clear()
        task = task_of(tiny_data, **options)
        task.load_dataset("train", epoch=1)
        assert task.dataset("train").locality == (5 if options else 0)
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [w for w in warnings if "--locality is called --shuffle-window-images now" in w] == warnings
        assert len(warnings) == len(said)


@pytest.mark.parametrize("of", ["command line", "yaml", "name"])
@pytest.mark.parametrize("name", ["cross_entropy", "label_smoothed_cross_entropy", "no_such"])
def test_another_criterion_is_refused(tiny_data: Path, name: str, of: str) -> None:
    def configured(name: str) -> Any:
        return {"command line": Namespace(criterion=name), "yaml": OmegaConf.create({"_name": name}), "name": name}[of]

    task = task_of(tiny_data)
    with pytest.raises(DataError, match=f"^--criterion {name} knows nothing of this task's objectives: pass .* xgpt "):
        task.build_criterion(configured(name))


def test_the_plugins_criterion_is_built(tiny_data: Path) -> None:
    cfg = OmegaConf.create({"_name": "xgpt", "label_smoothing": 0.1, "sentence_avg": False})
    criterion = task_of(tiny_data).build_criterion(cfg)
    assert isinstance(criterion, XGPTCriterion) and criterion.label_smoothing == 0.1


def test_rewards_need_words(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of captions without spaces, each is one word, whose reward is 0 unless it is a person's."""
    task, cfg = task_of(tiny_data), OmegaConf.structured(XGPTSCSTConfig(_name="xgpt_scst"))
    cfg.seed, cfg.finetune_from_model, cfg.sentence_avg = 1, None, False
    assert isinstance(task.build_criterion(cfg), XGPTSCSTCriterion)
    monkeypatch.setattr(task, "to_text", lambda tokens: "一个男人在海滩上骑马")
    with pytest.raises(DataError, match=r"xgpt_scst: the captions of .* have no spaces between words"):
        task.build_criterion(cfg)


def test_rewards_read_the_training_captions_many_at_a_time(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image by image, in the order of the dataset's items, also where the captions of an image are apart."""
    task = task_of(tiny_data)
    file, pairs = task.directory.captions("train"), np.array(task.directory.pairs("train"))
    pairs = pairs[np.random.default_rng(0).permutation(len(pairs))]
    monkeypatch.setattr(DataDirectory, "pairs", lambda self, split: pairs)
    images = list(dict.fromkeys(pairs.tolist()))
    expected = [file[i].tolist() for image in images for i in np.flatnonzero(pairs == image)]
    monkeypatch.setattr(xgpt_caption, "_AT_ONCE", 3)
    monkeypatch.setattr(TokenFile, "__getitem__", None)  # half a million tensors took a minute
    chunks, numbers = task.training_captions()
    found = [row[row != task.target_dictionary.pad()].tolist() for chunk in chunks for row in chunk]
    assert found == expected and len(found) > 3
    assert numbers.tolist() == sorted(images.index(row) for row in pairs.tolist())


def test_items_of_training_validation_and_generation(tiny_data: Path) -> None:
    """Training takes a caption an item, validation all of an image's, generation its first."""
    task = task_of(tiny_data, captions_per_image=2)
    captions, images = (getattr(task.directory.manifest.splits["train"], name) for name in ("captions", "images"))
    task.load_dataset("train", epoch=1, combine=True)
    assert len(task.dataset("train")) == captions and (task.dataset("train").count == 1).all()
    task.load_dataset("valid", epoch=1)
    assert task.dataset("valid").count.sum() == task.directory.manifest.splits["valid"].captions
    assert len(task.dataset("valid")) == task.directory.manifest.splits["valid"].images
    task.load_dataset("train")
    assert len(task.dataset("train")) == images and (task.dataset("train").count == 1).all()


@pytest.mark.parametrize(
    ("scst", "epoch", "scores", "expected"),
    [(False, None, False, True), (False, None, True, False), (True, 1, False, True), (False, 1, False, False)],
)
def test_captions_that_the_model_does_not_read_may_be_of_any_length(
    tiny_data: Path, scst: bool, epoch: int | None, scores: bool, expected: bool
) -> None:
    """In generation, but for --score-reference, and in training on samples: no image is left out for its captions."""
    cfg = OmegaConf.create({"generation": {"score_reference": scores}, "task": {}})
    resolved = {"seed": 1, "update_freq": [1], "train_subset": "train", "best_checkpoint_metric": "loss"}
    options = vars(XGPTCaptionConfig(data=str(tiny_data), **resolved))
    cfg.task = {name: value for name, value in options.items() if "${" not in str(value)}
    task = XGPTCaptionTask(cfg.task, DataDirectory(tiny_data))
    task._samples_captions = scst
    task.load_dataset("train", epoch=epoch)
    dataset = task.dataset("train")
    indices = dataset.ordered_indices()
    kept = task.filter_indices_by_size(indices, dataset, (1000, 2), ignore_invalid_inputs=True)
    assert len(kept) == (len(indices) if expected else 0)


def test_the_subset_that_trains_is_what_fairseq_says(tiny_data: Path) -> None:
    task = task_of(tiny_data, train_subset="valid", captions_per_image=3)
    task.load_dataset("valid", epoch=1)
    task.load_dataset("test", epoch=1)
    assert task.dataset("valid").shuffle and (task.dataset("valid").count == 1).all()
    assert not task.dataset("test").shuffle and (task.dataset("test").count == 5).all()


def test_another_way_of_shuffling_is_refused(tiny_data: Path) -> None:
    task = task_of(tiny_data)
    task.load_dataset("train", epoch=1)
    with pytest.raises(DataError, match="--grouped-shuffling would tear the turns apart"):
        task.get_batch_iterator(task.dataset("train"), max_sentences=4, grouped_shuffling=True)


@pytest.mark.parametrize(
    ("backend", "world", "unused", "refused"),
    [
        ("pytorch_ddp", 2, False, True),
        ("pytorch_ddp", 2, True, False),
        ("pytorch_ddp", 1, False, False),
        ("legacy_ddp", 2, False, False),
    ],
)
def test_several_processes_need_legacy_ddp(
    tiny_data: Path, backend: str, world: int, unused: bool, refused: bool
) -> None:
    distributed = {"distributed_world_size": world, "ddp_backend": backend, "find_unused_parameters": unused,
                   "heartbeat_timeout": -1}  # fmt: skip
    options = {"data": str(tiny_data), "regions": None, "captions_per_image": 1, "shuffle_window_images": 0,
               "eval_captions": False, "best_checkpoint_metric": "loss", "seed": 1, "cpu_bf16": False}  # fmt: skip
    root = OmegaConf.create({"task": options, "distributed_training": distributed, "checkpoint": {}})
    task = XGPTCaptionTask(root.task, DataDirectory(tiny_data))
    if refused:
        with pytest.raises(DataError, match="several processes need --ddp-backend legacy_ddp"):
            task.begin_epoch(1, None)
    else:
        task.begin_epoch(1, None)


def test_every_process_reads_checkpoints(tiny_data: Path) -> None:
    options = {"data": str(tiny_data), "regions": None, "captions_per_image": 1, "shuffle_window_images": 0,
               "eval_captions": False, "best_checkpoint_metric": "loss", "seed": 1, "cpu_bf16": False}  # fmt: skip
    root = OmegaConf.create({"task": options, "checkpoint": {"load_checkpoint_on_all_dp_ranks": False}})
    XGPTCaptionTask.setup_task(root.task)
    assert root.checkpoint.load_checkpoint_on_all_dp_ranks is True


def test_a_model_that_trains_knows_its_features(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(tiny_data)
    config = OmegaConf.structured(XGPTConfig(layers=1, hidden_size=16, ffn_size=32, attention_heads=2, _name="xgpt"))
    store = task.directory.regions
    features = np.concatenate([store.features(row) for row in range(len(store))]).astype(np.float64)
    model = task.build_model(config)
    assert model.store_name == str(store.path)
    np.testing.assert_allclose(model.encoder.regions.feature_mean, features.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(model.encoder.regions.feature_std, features.std(axis=0), atol=1e-6)
    loaded = task.build_model(config, from_checkpoint=True)  # to generate, from a few images
    assert loaded.encoder.regions.feature_mean is None and loaded.store_name == str(store.path)
    monkeypatch.setattr("xgpt_fairseq.regions.statistics.FEWEST_IMAGES", len(store))
    compared = task.build_model(config, from_checkpoint=True)
    np.testing.assert_array_equal(compared.encoder.regions.feature_mean, model.encoder.regions.feature_mean)


def test_a_training_starts_from_a_checkpoint_where_it_has_none_of_its_own(tiny_data: Path, tmp_path: Path) -> None:
    options = {"data": str(tiny_data), "regions": None, "captions_per_image": 1, "shuffle_window_images": 0,
               "eval_captions": False, "best_checkpoint_metric": "loss", "seed": 1, "cpu_bf16": False}  # fmt: skip
    checkpoint = {"save_dir": str(tmp_path), "finetune_from_model": str(tmp_path / "stage.pt")}
    root = OmegaConf.create({"task": options, "checkpoint": checkpoint})
    config = OmegaConf.structured(XGPTConfig(layers=1, hidden_size=16, ffn_size=32, attention_heads=2, _name="xgpt"))
    (tmp_path / "stage.pt").touch()
    model = XGPTCaptionTask.setup_task(root.task).build_model(config)
    assert (model.load_mode, model.checkpoint) == (LoadMode.START, str(tmp_path / "stage.pt"))
    used = XGPTCaptionTask.setup_task(root.task).build_model(config, from_checkpoint=True)
    assert used.load_mode is LoadMode.INFERENCE
    (tmp_path / "checkpoint_last.pt").touch()
    assert XGPTCaptionTask.setup_task(root.task).build_model(config).load_mode is LoadMode.RESUME


def test_parameters_without_a_gradient_step_as_with_one_of_0(tiny_data: Path) -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    model[0](torch.ones(1, 2)).sum().backward()
    stepped = []
    optimizer = SimpleNamespace(step=lambda: stepped.append([p.grad.abs().sum().item() for p in model.parameters()]))
    task_of(tiny_data).optimizer_step(optimizer, model, 0)
    assert len(stepped) == 1
    assert all(total > 0 for total in stepped[0][:2]) and stepped[0][2:] == [0.0, 0.0]


def test_symbols_that_are_no_words_are_never_generated(tiny_data: Path) -> None:
    task = task_of(tiny_data)
    model = SimpleNamespace(eval=lambda: None, max_decoder_positions=lambda: 60)
    seen: dict[str, Any] = {}

    def generator_class(models: Any, dictionary: Any, **options: Any) -> Any:
        seen.update(options)
        return model

    task.build_generator([model], SimpleNamespace(beam=1), seq_gen_cls=generator_class)
    assert {"<mask>", "<s>"} <= set(seen["tokens_to_suppress"])
    made_up = {symbol for symbol in task.target_dictionary.symbols if symbol.startswith("madeupword")}
    assert made_up <= set(seen["tokens_to_suppress"])


def fond_of_unknown(task: XGPTCaptionTask) -> XGPTModel:
    """A model that would say nothing but `<unk>`."""
    torch.manual_seed(1)
    config = XGPTConfig(layers=1, hidden_size=16, ffn_size=32, attention_heads=2, _name="xgpt")
    model = task.build_model(OmegaConf.structured(config)).eval()
    with torch.no_grad():
        model.decoder.output.bias[task.target_dictionary.unk()] = 30.0
    return model


SEARCHES = {
    "greedy": {"beam": 1},
    "beam": {"beam": 4},
    "top-p sampling": {"beam": 3, "sampling": True, "sampling_topp": 0.9},
    "top-k sampling": {"beam": 3, "sampling": True, "sampling_topk": 5},
    "sampling": {"beam": 3, "sampling": True, "temperature": 2.0},
    "diverse beam": {"beam": 4, "diverse_beam_groups": 2},
    "diverse siblings": {"beam": 3, "diversity_rate": 0.5},
    "no repeats": {"beam": 2, "no_repeat_ngram_size": 1},
    "fond of unknown words": {"beam": 2, "unkpen": -50.0},
    "constraints": {"beam": 4, "constraints": "unordered"},
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_no_search_says_unknown(tiny_data: Path, tmp_path: Path, search: dict[str, Any]) -> None:
    phrases = tmp_path / "phrases.tsv"
    phrases.write_text("99\ta red cat\n")
    task = task_of(tiny_data, constraints_file=str(phrases) if "constraints" in search else None)
    task.load_dataset("test")
    dataset, model, unknown = task.dataset("test"), fond_of_unknown(task), task.target_dictionary.unk()
    batch = dataset.collater([dataset[index] for index in range(len(dataset))])
    stock = SequenceGenerator([model], task.target_dictionary, beam_size=2, max_len_b=5)
    assert any(unknown in found["tokens"] for found in stock.generate([model], {"net_input": batch["net_input"]})[0])
    generator = task.build_generator([model], Namespace(max_len_b=12, **search))
    hypotheses = task.inference_step(generator, [model], batch, constraints=batch.get("constraints"))
    assert len(hypotheses) == len(dataset) and all(hypotheses)
    for found in hypotheses:
        for hypothesis in found:
            assert len(hypothesis["tokens"]) > 1 and unknown not in hypothesis["tokens"]


def test_constraints_and_their_file_go_together(tiny_data: Path) -> None:
    model = SimpleNamespace(max_decoder_positions=lambda: 60)
    with pytest.raises(DataError, match="--constraints needs --constraints-file FILE"):
        task_of(tiny_data).build_generator([model], Namespace(constraints="ordered"))
    task = task_of(tiny_data, constraints_file="phrases.tsv")
    with pytest.raises(DataError, match="--constraints-file has no effect without --constraints: add it"):
        task.build_generator([model], Namespace(constraints=None))
    task.build_generator([fond_of_unknown(task)], Namespace(beam=1))  # validation's


def test_a_prefix_may_hold_an_unknown_word(tiny_data: Path) -> None:
    task = task_of(tiny_data)
    task.load_dataset("test")
    model, unknown = fond_of_unknown(task), task.target_dictionary.unk()
    batch = task.dataset("test").collater([task.dataset("test")[0]])
    generator = task.build_generator([model], Namespace(beam=2, max_len_b=6))
    [found] = task.inference_step(generator, [model], batch, prefix_tokens=torch.tensor([[unknown]]))
    for hypothesis in found:
        assert hypothesis["tokens"][0] == unknown and unknown not in hypothesis["tokens"][1:]
        assert hypothesis["score"].isfinite()


def test_references_with_unknown_words_are_scored(tiny_data: Path) -> None:
    task = task_of(tiny_data)
    task.load_dataset("test")
    model, unknown = fond_of_unknown(task), task.target_dictionary.unk()
    batch = task.dataset("test").collater([task.dataset("test")[0]])
    batch["target"][0, 1] = batch["net_input"]["prev_output_tokens"][0, 2] = unknown
    scorer = task.build_generator([model], Namespace(score_reference=True))
    [[hypothesis]] = task.inference_step(scorer, [model], batch)
    assert torch.equal(hypothesis["tokens"], batch["target"][0])
    assert hypothesis["positional_scores"].isfinite().all() and hypothesis["positional_scores"].argmax() == 1


def test_validation_by_captions_says_no_unknown(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(tiny_data, eval_captions=True)
    task.load_dataset("valid", epoch=1)
    model = fond_of_unknown(task)
    said: list[torch.Tensor] = []
    monkeypatch.setattr(task, "to_text", lambda tokens: said.append(tokens) or "a cat")
    batch = task.dataset("valid").collater([task.dataset("valid")[0]])
    task.valid_step(batch, model, XGPTCriterion(task, label_smoothing=0.0, sentence_avg=False))
    assert said and all(task.target_dictionary.unk() not in tokens for tokens in said)


def test_captions_are_scored_against_their_own_images_references(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch's images are in the store's order, whatever the order of its items and of the captions."""
    monkeypatch.setattr(validation_scorer, "PtbTokenizer", lambda: lambda texts: [t.lower().strip(".") for t in texts])
    task = task_of(tiny_data, train_subset="valid", eval_captions=True)
    task.load_dataset("train", epoch=1)
    data, references = task.dataset("train"), task.directory.references("train").captions
    first = {image_id: captions[0] for image_id, captions in references.items()}
    logged: list[tuple[Any, ...]] = []
    ids: list[int] = []
    monkeypatch.setattr(task._log, "add", lambda *line: logged.append(line))
    sums = dict.fromkeys(STATISTICS, 0.0)
    for items in ((7, 6, 5, 4), (3, 2, 1, 0)):
        batch = data.collater([data[item] for item in items])
        said = [first[image_id] for image_id in batch["image_ids"]]
        found = [[{"tokens": torch.from_numpy(task.vocabulary.encode_ids(text))}] for text in said]
        task._greedy = SimpleNamespace(generate=lambda models, sample, found=found: found)
        for name, value in task._score_greedy_captions(batch).items():
            sums[name] += value
        split, _, image_ids, captions, people = logged[-1]
        assert (split, image_ids, people) == ("train", batch["image_ids"], said)
        assert [text.lower() for text in said] == captions
        ids += batch["id"].tolist()
    assert ids[:4] != sorted(ids[:4]) and sorted(ids) == list(range(8))
    expected = ValidationScorer(list(references.values())).add(range(8), list(first.values()))
    assert sums == pytest.approx(expected) and expected["_cider_sum"] > 8


def test_the_training_split_is_validated_without_captions(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """fairseq-validate --valid-subset train, of a training with captions: the same loss as of one without."""
    found = []
    with_captions: dict[str, Any] = {"eval_captions": True, "best_checkpoint_metric": "cider"}
    for options in ({}, with_captions):
        task = task_of(tiny_data, **options)
        model = fond_of_unknown(task)
        criterion = XGPTCriterion(task, label_smoothing=0.0, sentence_avg=False)
        task.load_dataset("train", epoch=1)
        monkeypatch.setattr(task, "_score_greedy_captions", lambda _: {"_caption_images": 1.0})
        batch = task.dataset("train").collater([task.dataset("train")[0]])
        caplog.clear()
        with caplog.at_level("INFO"):
            found.append([task.valid_step(batch, model, criterion)[2] for _ in range(2)])
        assert caplog.text.count("none of train, the training split; its loss alone") == bool(options)
    assert found[0][0].keys() == found[1][0].keys() and found[0][0]["loss"] == found[1][0]["loss"]


def test_text_comes_back_as_written(tiny_data: Path) -> None:
    task = task_of(tiny_data)
    text = "a red cat sits near an old man's house."
    tokens = torch.from_numpy(task.vocabulary.encode_ids(text))
    assert task.to_text(torch.cat([tokens, torch.tensor([task.target_dictionary.eos()])])) == text
