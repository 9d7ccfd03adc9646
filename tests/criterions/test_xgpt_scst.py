"""The gradient of SCST, against REINFORCE over all captions of a toy vocabulary in float64; rewards and options."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from torch.overrides import TorchFunctionMode

from tests.models.small import images
from xgpt_fairseq import precision
from xgpt_fairseq.criterions.xgpt_scst import XGPTSCSTCriterion
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.text.vocabulary import MASK

WORDS = ["cat", "dog"]
FILLERS = [f"x{number}" for number in range(600)]  # never drawn: fairseq allows fewer beams than symbols
MAX_LEN = 2
OPTIONS: dict[str, Any] = {
    "label_smoothing": 0.0, "sentence_avg": False, "scst_samples": 4, "scst_candidates": "sample",
    "scst_temperature": 1.0, "scst_baseline": "mean", "scst_max_len": MAX_LEN, "scst_bleu_weight": 0.0,
    "scst_entropy": 0.0, "scst_kl": 0.0, "seed": 1,
}  # fmt: skip
# of both images: what their captions say
REFERENCES = [["cat", "cat cat"], ["dog dog", "dog"]]


class ToyVocabulary:
    bpe = "subword_nmt"

    def __init__(self) -> None:
        self.dictionary = Dictionary()
        for word in WORDS + FILLERS:
            self.dictionary.add_symbol(word)
        self.dictionary.add_symbol(MASK)

    suppressed_symbols = ("<s>", MASK, *FILLERS)

    def encode_ids(self, text: str) -> np.ndarray:
        return np.array([self.dictionary.index(word) for word in text.split()])


def task_of(vocabulary: ToyVocabulary) -> Any:
    eos, pad = vocabulary.dictionary.eos(), vocabulary.dictionary.pad()
    captions = [[*vocabulary.encode_ids(text), eos, pad, pad][:3] for of_image in REFERENCES for text in of_image]
    return SimpleNamespace(
        objectives={"ic": None},
        vocabulary=vocabulary,
        target_dictionary=vocabulary.dictionary,
        training_captions=lambda: (iter([np.array(captions)]), np.repeat([0, 1], 2)),
    )


def build(**options: Any) -> tuple[XGPTSCSTCriterion, XGPTModel]:
    vocabulary = ToyVocabulary()
    criterion = XGPTSCSTCriterion(task_of(vocabulary), **(OPTIONS | options))
    config = XGPTConfig(feature_dim=7, layers=1, hidden_size=16, ffn_size=16, attention_heads=2, dropout=0.0,
                        attention_dropout=0.0, max_target_positions=9)  # fmt: skip
    torch.manual_seed(2)
    model = XGPTModel.build_model(config, SimpleNamespace(target_dictionary=vocabulary.dictionary))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that captions differ in probability
    return criterion, model.train()


def batch() -> dict[str, Any]:
    return {"net_input": images([3, 2]), "id": torch.tensor([0, 1])}


def every_caption(dictionary: Dictionary) -> Iterator[list[int]]:
    """All that can be drawn: up to MAX_LEN words, then the end, which the limit sets if not drawn."""
    words = [dictionary.index(word) for word in WORDS]
    for length in range(MAX_LEN + 1):
        for chosen in itertools.product(words, repeat=length):
            yield [*chosen, dictionary.eos()]


def next_words(model: XGPTModel, dictionary: Dictionary, image: int, caption: list[int], temperature: float) -> Any:
    """Before each token of a caption that is drawn, log-probabilities of `WORDS` and the end (tokens, 3) in float64."""
    inputs = {name: tensor[image : image + 1] for name, tensor in batch()["net_input"].items()}
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
    allowed = [dictionary.index(word) for word in WORDS] + [dictionary.eos()]
    found = []
    for place in range(min(len(caption), MAX_LEN)):
        previous = torch.tensor([[dictionary.eos(), *caption[:place]]])
        logits, _ = model(**inputs, prev_output_tokens=previous)
        found.append((logits[0, -1, allowed] / temperature).log_softmax(0))
    return torch.stack(found)


def rated_captions(
    criterion: XGPTSCSTCriterion, model: XGPTModel, image: int, temperature: float
) -> list[tuple[torch.Tensor, float]]:
    """Log-probability and reward of each caption that can be drawn, one token after the other in float64."""
    dictionary = criterion.task.target_dictionary
    allowed = [dictionary.index(word) for word in WORDS] + [dictionary.eos()]
    rated = []
    for caption in every_caption(dictionary):
        words = next_words(model, dictionary, image, caption, temperature)
        drawn = torch.tensor([allowed.index(token) for token in caption[: len(words)]])
        log_probability = words.gather(1, drawn[:, None]).sum()
        rated.append((log_probability, criterion._reward(torch.tensor([image]), torch.tensor([[caption]])).item()))
    assert sum(log_probability.exp().item() for log_probability, _ in rated) == pytest.approx(1)
    return rated


def gradient(loss: torch.Tensor, model: XGPTModel) -> torch.Tensor:
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in gradients if g is not None])


def gradient_of(criterion: XGPTSCSTCriterion, model: XGPTModel, updates: int) -> tuple[torch.Tensor, float]:
    """The mean gradient over updates, and the mean reward."""
    rewards = 0.0
    for update in range(updates):
        criterion.set_num_updates(update)
        loss, size, log = criterion(model, batch())
        (loss / size / updates).backward()
        rewards += log["scst_reward"] / size / updates
    found = [parameter.grad.double().flatten() for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat(found), rewards


@pytest.mark.parametrize(("baseline", "temperature"), [("mean", 1.0), ("greedy", 1.0), ("mean", 0.6)])
def test_the_gradient_is_that_of_the_expected_reward(baseline: str, temperature: float) -> None:
    """REINFORCE over all captions of both images."""
    criterion, model = build()
    model = model.double()
    rated = [rated_captions(criterion, model, image, temperature) for image in range(2)]
    expected = torch.stack([torch.stack([logp.exp() * reward for logp, reward in each]).sum() for each in rated])
    exact = gradient(-expected.mean(), model)
    sampled, rewards = gradient_of(
        *build(scst_baseline=baseline, scst_temperature=temperature, scst_samples=500), updates=4
    )
    # 4000 samples: a standard error of 0.01 of the reward, and of at most 0.05 of the gradient
    assert rewards == pytest.approx(expected.mean().item(), rel=0.04)
    assert exact.norm() > 0.1
    assert (sampled - exact).norm() < 0.12 * exact.norm()


def test_weights_are_cast_anew_behind_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """`forget_casts`: with torch 2.6, those that the search has cast without gradient would not be trained."""
    calls: list[bool] = []
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: calls.append(True))
    criterion, model = build(scst_baseline="greedy")
    with precision.autocast(True):
        calls.clear()
        criterion(model, batch())
        assert len(calls) == 2  # behind the samples, and behind the greedy captions


def test_the_captions_of_a_beam_stand_for_samples() -> None:
    """As many beams as there are captions: each is raised or lowered by its reward less the mean of the others'."""
    criterion, model = build()
    model, loss = model.double(), torch.zeros(())
    for image in range(2):
        rated = rated_captions(criterion, model, image, 1.0)
        for logp, reward in rated:
            others = (sum(each for _, each in rated) - reward) / (len(rated) - 1)
            loss = loss - (reward - others) * logp / (2 * len(rated))
    exact = gradient(loss, model)
    found, _ = gradient_of(*build(scst_candidates="beam", scst_samples=len(rated)), updates=1)
    assert exact.norm() > 0.1
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-3)


def test_the_reward_is_cider_d_with_the_end_as_a_word() -> None:
    criterion, _ = build()
    cat, dog, eos, pad = (*criterion.task.vocabulary.encode_ids("cat dog"), 2, 1)
    tokens = torch.tensor([[[cat, eos, pad], [cat, cat, eos]], [[dog, dog, eos], [cat, eos, pad]]])
    [[cat_1, cat_2], [dog_2, wrong]] = criterion._reward(torch.tensor([0, 1]), tokens).tolist()
    assert cat_1 > cat_2 > wrong == 0 and dog_2 > 0  # the limit of two tokens ended "cat cat", so it has no end
    weighted, _ = build(scst_bleu_weight=2.0)
    more = (weighted._reward(torch.tensor([0, 1]), tokens) - criterion._reward(torch.tensor([0, 1]), tokens)).flatten()
    array = tokens.flatten(0, 1).numpy()
    words, lengths = weighted._words(array, with_end=weighted._ended(array))
    assert weighted._scorer is not None
    _, bleu = weighted._scorer.score(words, lengths, np.array([0, 0, 1, 1]))
    assert bleu[0] > 0 and more.tolist() == pytest.approx((2 * bleu).tolist())


def test_what_is_logged_of_samples() -> None:
    criterion, model = build(scst_samples=50, scst_max_len=6)
    loss, size, log = criterion(model, batch())
    assert size == log["scst_samples"] == log["sample_size"] == 100 and loss.requires_grad
    assert 0 < log["scst_distinct"] <= 100 and 0 <= log["scst_cut"] < 100 and log["scst_bad_ends"] == 0
    assert log["scst_repeats"] > 0  # two words can't make many captions of six
    assert log["scst_baseline"] == pytest.approx(log["scst_reward"])  # each sample's baseline is the others'
    assert model.training
    criterion.set_num_updates(1)
    assert criterion(model, batch())[2]["scst_reward"] != log["scst_reward"]
    criterion.set_num_updates(0)
    assert criterion(model, batch())[2]["scst_reward"] == log["scst_reward"]


@pytest.mark.parametrize("candidates", ["sample", "beam"])
def test_the_model_s_limit_cuts_as_the_option_does(candidates: str, caplog: pytest.LogCaptureFixture) -> None:
    """A model of nine positions ends captions after eight words, whatever --scst-max-len is: those are cut."""
    logs, losses = [], []
    for longest in (8, 9, 30):
        criterion, model = build(scst_candidates=candidates, scst_samples=2, scst_max_len=longest)
        with torch.no_grad():
            model.decoder.output.bias[criterion.task.target_dictionary.eos()] -= 20.0  # no caption ends by itself
        caplog.clear()
        for _ in range(2):
            loss, _, log = criterion(model, batch())
        said = [f"--scst-max-len {longest} is longer than the model's captions: they are cut after 8 tokens"]
        assert [message.split(" (")[0] for message in caplog.messages] == (said if longest > 8 else [])
        logs.append((log["scst_cut"], log["ntokens"], log["scst_reward"]))
        losses.append(loss.item())
    assert logs[0][:2] == (4, 4 * 8) and logs[0] == logs[1] == logs[2]
    assert losses[0] == losses[1] == losses[2]


def test_entropy_and_kl_pull_by_their_weights() -> None:
    plain, model = build()
    entropy, _ = build(scst_entropy=0.5)
    kl, _ = build(scst_kl=0.5)
    losses = [criterion(model, batch())[0].item() for criterion in (plain, entropy, kl)]
    log = plain(model, batch())[2]
    assert losses[1] == pytest.approx(losses[0] - 0.5 * log["scst_entropy"], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)  # nothing has changed since the start
    with torch.no_grad():
        model.decoder.output.bias[4] += 1.0
    loss, size, log = kl(model, batch())
    assert log["scst_kl"] / size > 0.01
    assert loss.item() == pytest.approx(plain(model, batch())[0].item() + 0.5 * log["scst_kl"], rel=1e-4)


@pytest.mark.parametrize(("of_entropy", "of_kl", "temperature"), [(0.4, 0.0, 1.0), (0.0, 0.7, 0.6), (0.4, 0.7, 1.0)])
def test_entropy_and_kl_are_sums_over_all_next_words(of_entropy: float, of_kl: float, temperature: float) -> None:
    """-Σ p log p and Σ p (log p - log p₀), token by token of given captions, and what both add to the gradient."""
    options = {"scst_candidates": "beam", "scst_samples": 7, "scst_temperature": temperature}  # all that can be drawn
    (plain, _), (criterion, model) = build(**options), build(**options, scst_entropy=of_entropy, scst_kl=of_kl)
    dictionary = criterion.task.target_dictionary
    before = copy.deepcopy(criterion._start_model(model)).double()
    with torch.no_grad():
        model.decoder.output.bias[dictionary.index("cat")] += 1.0
    now = copy.deepcopy(model).double()
    entropy, kl = torch.zeros(2, dtype=torch.float64)
    for image, caption in itertools.product(range(2), every_caption(dictionary)):
        log_p, log_p0 = (next_words(each, dictionary, image, caption, temperature) for each in (now, before))
        entropy = entropy - (log_p.exp() * log_p).sum()
        kl = kl + (log_p.exp() * (log_p - log_p0)).sum()
    loss, size, log = criterion(model, batch())
    assert size == 14 and kl > 0.1
    assert log["scst_entropy"] == pytest.approx(entropy.item(), rel=1e-4)
    assert log["scst_kl"] == pytest.approx(kl.item() if of_kl else 0.0, rel=1e-4)
    expected = gradient(of_kl * kl - of_entropy * entropy, now)
    added = gradient(loss, model) - gradient(plain(model, batch())[0], model)
    assert expected.norm() > 0.1
    assert (added - expected).norm() < 1e-3 * expected.norm()


def test_the_start_has_no_dropout_and_is_in_no_checkpoint() -> None:
    """fairseq turns the criterion's modules to training with each update, and saves them if there are parameters."""
    criterion, model = build(scst_kl=0.5)
    criterion(model, batch())
    start = criterion._start_model(model)
    criterion.train()
    assert not any(part.training for part in start.modules())
    assert criterion.state_dict() == {} and not list(criterion.parameters())


class Copies(TorchFunctionMode):
    """Notes the calls for which the host waits on a GPU, of tensors that may all be on the CPU."""

    names = ("cpu", "item", "tolist", "nonzero", "__bool__", "__int__", "__float__", "__index__")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given, name = kwargs or {}, getattr(func, "__name__", "")
        moved = name == "to" and any(isinstance(each, torch.device | str) for each in (*args[1:], *given.values()))
        if moved or name in self.names:
            self.seen.append(name)
        return func(*args, **given)


@pytest.mark.parametrize("baseline", ["mean", "greedy"])
def test_rewards_are_computed_while_a_gpu_scores(baseline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes to the host or from it between the pass over the samples and the end of their rewards."""
    criterion, model = build(scst_baseline=baseline, scst_kl=0.5, scst_entropy=0.5)
    criterion(model, batch())  # what is made once
    score, reward = criterion._score, criterion._reward
    with Copies() as copies:

        def begins(*args: Any) -> Any:
            copies.seen.append("begins")
            return score(*args)

        def ends(*args: Any) -> Any:
            rewards = reward(*args)
            copies.seen.append("ends")
            return rewards

        monkeypatch.setattr(criterion, "_score", begins)
        monkeypatch.setattr(criterion, "_reward", ends)
        criterion(model, batch())
    begun = copies.seen.index("begins")
    assert "cpu" in copies.seen[:begun] and "to" in copies.seen[begun:]  # such calls are noticed
    rewards = ["ends"] * (2 if baseline == "greedy" else 1)
    assert copies.seen[begun : begun + 1 + len(rewards)] == ["begins", *rewards]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scst_samples": 1}, "--scst-samples must be at least 2, got 1"),
        ({"scst_samples": 0, "scst_baseline": "greedy"}, "--scst-samples must be at least 1, got 0"),
        ({"scst_temperature": 0.0}, "--scst-temperature must be more than 0, got 0.0"),
        ({"scst_max_len": 0}, "--scst-max-len must be at least 1, got 0"),
        ({"scst_kl": -1.0}, "--scst-kl must be at least 0, got -1.0"),
        ({"scst_entropy": math.nan}, "--scst-entropy must be at least 0, got nan"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(**options)


def test_other_objectives_are_refused() -> None:
    task = task_of(ToyVocabulary())
    task.objectives = {"ic": None, "imlm": None}
    with pytest.raises(DataError, match="trains image captioning alone: it needs --task xgpt_caption"):
        XGPTSCSTCriterion(task, **OPTIONS)
