"""Limits of fairseq's numbers."""

from __future__ import annotations

from argparse import Namespace

import pytest
from fairseq.dataclass.configs import FairseqConfig
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks.limits import LIMITS, check_betas, check_limits, option, value_of

OPTIONS = [(group, name) for group, limits in LIMITS.items() for name in limits]


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_each_limit_is_of_an_option_of_fairseq(group, name):
    groups = OmegaConf.structured(FairseqConfig)
    if group in ("common", "dataset", "optimization", "checkpoint"):
        assert name in groups[group]


def test_fairseqs_defaults_pass():
    check_limits(OmegaConf.structured(FairseqConfig))


@given(option_=st.sampled_from(OPTIONS), below=st.integers(1, 1000))
def test_a_value_below_the_limit_is_refused_but_for_the_one_that_means_off(option_, below):
    group, name = option_
    least, off, _ = LIMITS[group][name]
    value = int(least) - below
    root = {group: OmegaConf.create({name: value})}
    if value == off:
        check_limits(root)
    else:
        with pytest.raises(DataError, match=rf"{option(name)} must be at least {least}.*, got {value}"):
            check_limits(root)
    check_limits({group: OmegaConf.create({name: least})})


def test_a_group_may_be_a_namespace_or_absent():
    with pytest.raises(DataError, match="--warmup-updates must be at least 0, got -1"):
        check_limits({"lr_scheduler": Namespace(warmup_updates=-1), "optimizer": None})
    assert value_of(Namespace(a=1), "a") == 1
    assert value_of(Namespace(), "a", 7) == 7
    assert value_of(OmegaConf.create({"a": None}), "a", 7) == 7
    assert value_of(None, "a", 7) == 7


@pytest.mark.parametrize("betas", ["(0.9, 0.98)", [0.9, 0.98], "[0, 0]"])
def test_betas(betas):
    check_betas(betas)


@pytest.mark.parametrize(
    "betas", ["0.9", 0.9, "(0.9,)", "(0.9, 0.98, 0.1)", "(0.9, 1)", "(-0.1, 0.9)", "a", "(0.9, 'a')", "(0.9", None]
)
def test_betas_that_are_none(betas):
    with pytest.raises(DataError, match=r"--adam-betas needs two numbers .*, got "):
        check_betas(betas)
