"""GPTQ, SparseGPT and Wanda against llm-compressor 0.14: its numbers, made by scripts/llm_compressor_worker.py."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lit_compress.pruning.sparsegpt import sparsegpt, wanda
from lit_compress.quantization import Scheme
from lit_compress.quantization.gptq import gptq
from lit_compress.quantization.grid import Grid, grid_of, range_of, rows_of
from lit_compress.quantization.hessian import InputStatistics

THEIRS = load_file(Path(__file__).with_name("llm_compressor.safetensors"))
WEIGHT = THEIRS["weight"]
# It counts four bits from -8, and this library from 0.
SHIFT = 8


@pytest.fixture
def statistics():
    found = InputStatistics(WEIGHT.shape[1])
    found.add(THEIRS["inputs"])
    return found


@pytest.mark.parametrize(
    ("name", "group_size", "ordered"),
    [("gptq", None, False), ("gptq_ordered", None, True), ("gptq8_ordered", 8, True)],
)
def test_gptq_rounds_every_weight_to_the_same_integer(name, group_size, ordered, statistics):
    scheme = Scheme(4, False, "group" if group_size else "channel", group_size)
    scale, zero_point = (THEIRS[f"{name}_{part}"].reshape(-1, 1) for part in ("scale", "zero_point"))
    grid = Grid(scale, zero_point.float() + SHIFT)
    found, _ = gptq(WEIGHT, statistics.hessian(), scheme, damp=0.01, ordered=ordered, grid=grid)
    torch.testing.assert_close(found, THEIRS[name], rtol=0, atol=1e-6)


def test_grids_with_a_zero_point_are_the_same():
    scheme = Scheme(4, False, "channel")
    scale, zero_point = grid_of(*range_of(rows_of(WEIGHT, scheme), scheme), scheme)
    torch.testing.assert_close(scale.flatten(), THEIRS["gptq_scale"].flatten(), rtol=1e-7, atol=0)
    assert (zero_point.flatten() - SHIFT).tolist() == THEIRS["gptq_zero_point"].flatten().tolist()


def test_sparsegpt_leaves_the_same_weights(statistics):
    found = sparsegpt(WEIGHT, statistics.hessian(), pattern=(2, 4))
    torch.testing.assert_close(found, THEIRS["sparsegpt_2_4"], rtol=0, atol=1e-5)


def test_sparsegpt_without_a_pattern_too_but_for_one_weight_per_block(statistics):
    """It removes what is at most the threshold, so one weight more than the share that was asked for."""
    removed = int((THEIRS["sparsegpt_half"] == 0).sum())
    assert removed == WEIGHT.numel() // 2 + 1
    found = sparsegpt(WEIGHT, statistics.hessian(), sparsity=removed / WEIGHT.numel())
    torch.testing.assert_close(found, THEIRS["sparsegpt_half"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"), [("wanda_half", {"sparsity": 0.5}), ("wanda_2_4", {"pattern": (2, 4)})]
)
def test_wanda_leaves_the_same_weights(name, words, statistics):
    torch.testing.assert_close(wanda(WEIGHT, statistics.norms(), **words), THEIRS[name], rtol=0, atol=0)
