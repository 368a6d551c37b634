"""Optimizers that remember in 8 bits: the formulas, what the rounding costs, memory, resume."""

import copy
import io
import sys

import pytest
import torch
from torch import nn

from lit_compress.modules import AdamW, AdamW8bit, Lion8bit
from lit_compress.modules.optim import parameter_groups

RATE, DECAY = 0.01, 0.1


def make(factory, seed=0):
    """Two matrices, one of them small, and a bias; with the optimizer and with gradients that follow a plan."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"large": (64, 128), "small": (8, 8), "bias": (64,)}
    model = nn.ParameterDict(
        {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    )
    return model, factory.build(parameter_groups(model.named_parameters(), factory.lr, factory.weight_decay))


def step(model, optimizer, number):
    generator = torch.Generator().manual_seed(1000 + number)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def bytes_of(optimizer):
    """Bytes of the moments; tables that all tensors share are no moments."""
    return sum(
        tensor.numel() * tensor.element_size()
        for state in optimizer.state.values()
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor) and tensor.ndim and not name.startswith("qmap")
    )


def test_first_step_is_that_of_adamw():
    model, optimizer = make(AdamW8bit(lr=RATE, weight_decay=DECAY))
    before = {name: parameter.detach().clone() for name, parameter in model.items()}
    step(model, optimizer, 0)
    for name, parameter in model.items():
        # The moments' bias corrections cancel: the sign of the gradient, after the decay of matrices.
        decayed = before[name] * (1 - RATE * (0.0 if name == "bias" else DECAY))
        assert torch.allclose(parameter, decayed - RATE * parameter.grad.sign(), atol=1e-5)


def test_later_steps_differ_by_the_rounding_of_the_moments():
    eight, full = make(AdamW8bit(lr=RATE, weight_decay=DECAY)), make(AdamW(lr=RATE, weight_decay=DECAY))
    start = eight[0]["large"].detach().clone()
    for number in range(20):
        step(*eight, number)
        step(*full, number)
    assert torch.allclose(eight[0]["small"], full[0]["small"], atol=1e-5)
    assert torch.allclose(eight[0]["bias"], full[0]["bias"], atol=1e-5)
    error = (eight[0]["large"] - full[0]["large"]).norm() / (full[0]["large"] - start).norm()
    assert 1e-4 < error < 0.1


def test_moments_are_those_of_adamw_within_half_a_step_of_their_code():
    model, optimizer = make(AdamW8bit(lr=RATE))
    step(model, optimizer, 0)
    state = optimizer.state[model["large"]]
    exact = 0.1 * model["large"].grad
    stored = state["qmap1"][state["state1"].long()].reshape(-1, 256) * state["absmax1"][:, None]
    gap = state["qmap1"].sort().values.diff().max() / 2
    assert ((stored - exact.reshape(-1, 256)).abs() <= gap * state["absmax1"][:, None] * 1.001).all()
    assert torch.allclose(state["absmax1"], exact.reshape(-1, 256).abs().amax(1))


def test_lion_steps_by_the_sign():
    model, optimizer = make(Lion8bit(lr=RATE, weight_decay=DECAY))
    before = {name: parameter.detach().clone() for name, parameter in model.items()}
    step(model, optimizer, 0)
    for name, parameter in model.items():
        decayed = before[name] * (1 - RATE * (0.0 if name == "bias" else DECAY))
        assert torch.allclose(parameter, decayed - RATE * parameter.grad.sign(), atol=1e-6)


def test_moments_take_a_quarter_and_an_eighth_of_the_bytes():
    parameter = nn.Parameter(torch.randn(256, 256))
    found = {}
    for factory in (AdamW(), AdamW8bit(), Lion8bit()):
        optimizer = factory.build([{"params": [parameter], "lr": 0.1, "weight_decay": 0.0}])
        parameter.grad = torch.randn(256, 256)
        optimizer.step()
        found[type(factory).__name__] = bytes_of(optimizer)
    # Each block of 256 has a scale of 4 bytes.
    assert found["AdamW8bit"] / found["AdamW"] == pytest.approx((1 + 4 / 256) / 4)
    assert found["Lion8bit"] / found["AdamW"] == pytest.approx((1 + 4 / 256) / 8)


@pytest.mark.parametrize("factory", [AdamW8bit(lr=RATE), Lion8bit(lr=RATE)])
def test_small_tensors_keep_32_bits(factory):
    model, optimizer = make(factory)
    step(model, optimizer, 0)
    types = {name: optimizer.state[parameter]["state1"].dtype for name, parameter in model.items()}
    assert types == {"large": torch.uint8, "small": torch.float32, "bias": torch.float32}
    smaller = copy.copy(factory)
    smaller.min_size = 64
    model, optimizer = make(smaller)
    step(model, optimizer, 0)
    assert optimizer.state[model["small"]]["state1"].dtype == torch.uint8


@pytest.mark.parametrize("factory", [AdamW8bit(lr=RATE), Lion8bit(lr=RATE)])
def test_goes_on_bit_by_bit_from_a_file(factory):
    model, optimizer = make(factory)
    for number in range(3):
        step(model, optimizer, number)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    for number in range(3, 6):
        step(model, optimizer, number)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    resumed, other = make(factory, seed=1)
    resumed.load_state_dict(kept["model"])
    other.load_state_dict(kept["optimizer"])
    for number in range(3, 6):
        step(resumed, other, number)
    assert all(torch.equal(resumed[name], parameter) for name, parameter in model.items())


def test_pages_only_on_a_gpu(recwarn):
    model, optimizer = make(AdamW8bit(paged=True))
    step(model, optimizer, 0)
    assert not [warning for warning in recwarn if "aged" in str(warning.message)]


@pytest.mark.parametrize("kind", [AdamW8bit, Lion8bit])
def test_refuses_settings_out_of_range(kind):
    with pytest.raises(ValueError, match="lr > 0 but got 0"):
        kind(lr=0)
    with pytest.raises(ValueError, match="weight_decay >= 0"):
        kind(weight_decay=-1.0)
    with pytest.raises(ValueError, match=r"min_size >= 0 \(entries of a tensor\) but got -1"):
        kind(min_size=-1)


@pytest.mark.parametrize("factory", [AdamW8bit(), Lion8bit()])
def test_refuses_without_the_package(factory, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    message = rf'the optimizer {type(factory).__name__} .* pip install "lit-compress\[bnb\]"'
    with pytest.raises(ImportError, match=message):
        make(factory)
