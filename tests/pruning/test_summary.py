"""What pruning has left, counted by hand."""

import pytest
import torch

from lit_compress.benchmark.facts import model_facts
from lit_compress.callbacks.student import deployable
from lit_compress.pruning import achieved
from lit_compress.pruning.achieved import achieved_speedup
from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.summary import kept_units, pruning_facts
from lit_compress.pruning.target import Target
from tests.tiny import tiny_bert

BASE = "bert.encoder.layer"


def masked(closed, structures, **shape):
    """A model of 3 layers, 4 heads, 64 neurons, width 32 with some units closed."""
    model = tiny_bert(**{"layers": 3, **shape})
    apply_fixed_gates(model, structures)
    for group, gate in gates_of(model).pairs():
        gate.open[closed.get(group.name, [])] = 0
    return model


HEADS_AND_NEURONS = {
    f"{BASE}.0.attention.self.head": [1, 2],
    f"{BASE}.1.attention.self.head": [0, 1, 2, 3],
    f"{BASE}.2.intermediate.neuron": list(range(10, 64)),
}


def test_heads_are_numbered_as_in_the_full_model():
    kept = kept_units(shrink(masked(HEADS_AND_NEURONS, ["head", "neuron"])))
    assert kept == {
        "heads": [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]],
        "neurons": [[64, 64], [64, 64], [10, 64]],
    }


def test_hidden_dimensions_do_not_change_the_counts():
    closed = {"hidden": list(range(0, 32, 2)), f"{BASE}.0.attention.self.head": [3]}
    kept = kept_units(shrink(masked(closed, ["hidden", "head"])))
    assert kept["heads"] == [[1, 1, 1, 0], [1] * 4, [1] * 4] and kept["neurons"] == [[64, 64]] * 3


def test_nothing_is_told_of_a_model_that_was_not_cut():
    assert kept_units(tiny_bert(layers=2)) == {}
    assert pruning_facts(tiny_bert(layers=2), tiny_bert(layers=2)) == {}


def test_facts_for_the_manifest_by_hand():
    closed = {**HEADS_AND_NEURONS, f"{BASE}.0.layer": [0]}
    model = masked(closed, ["head", "neuron", "layer"])
    small = deployable(model)
    facts = pruning_facts(model, small)
    # A layer: 4 x 32 x 32 of attention, 2 x 32 x 64. Left: no head and all neurons, all heads and 10 neurons.
    layer = 4 * 32 * 32 + 2 * 32 * 64
    left = 2 * 32 * 64 + 4 * 32 * 32 + 2 * 32 * 10
    assert facts["encoder_sparsity"] == pytest.approx(1 - left / (3 * layer))
    assert facts["encoder_zeros"] == 0
    assert (facts["layers"], facts["heads"], facts["neurons"]) == ([2, 3], [4, 12], [74, 192])


def test_zeros_that_are_left_are_told_apart_from_what_is_gone():
    model = masked({f"{BASE}.0.attention.self.head": [0]}, ["head"])
    with torch.no_grad():
        # A diagonal of holes in one matrix: no neuron can go.
        model.bert.encoder.layer[1].intermediate.dense.weight[:, :16] = 0
    facts = pruning_facts(model, deployable(model))
    total = 3 * (4 * 32 * 32 + 2 * 32 * 64)
    assert facts["encoder_zeros"] == pytest.approx(64 * 16 / total)
    assert facts["encoder_sparsity"] == pytest.approx((4 * 8 * 32 + 64 * 16) / total)


def test_rows_of_results_get_the_map():
    facts = model_facts(deployable(masked(HEADS_AND_NEURONS, ["head", "neuron"])))
    assert facts["shape"]["heads"][0] == [1, 0, 0, 1] and facts["shape"]["neurons"][2] == [10, 64]
    assert "per_layer" not in facts["shape"]
    plain = model_facts(tiny_bert(layers=2).eval())["shape"]
    assert plain["per_layer"] == {"heads": 4, "neurons": 64} and "heads" not in plain


def test_a_masked_model_has_the_multiplications_of_the_full_one():
    full, model = tiny_bert(layers=3).eval(), masked(HEADS_AND_NEURONS, ["head", "neuron"]).eval()
    assert model_facts(model)["macs"] == model_facts(full)["macs"]
    assert model_facts(deployable(model))["macs"]["count"] < model_facts(full)["macs"]["count"]


def test_achieved_is_the_ratio_of_the_times_of_a_round(monkeypatch):
    model = masked(HEADS_AND_NEURONS, ["head", "neuron"])
    seen = []

    class Clock:
        """The machine is three times slower in every other round, for both models alike."""

        @staticmethod
        def time(call):
            size = sum(parameter.numel() for parameter in call.args[0].parameters())
            seen.append((size, tuple(call.args[1]["input_ids"].shape)))
            slow = 3.0 if len(seen) // 2 % 2 else 1.0
            return type("Took", (), {"seconds": slow * (0.5 if size == min(seen)[0] else 1.0)})

    small = deployable(model)
    small_size = sum(parameter.numel() for parameter in small.parameters())
    seen.append((small_size, ()))
    monkeypatch.setattr(achieved, "open_device", lambda device, threads: Clock)
    found = achieved_speedup(model, small, Target(speedup=1.5, batch=3, length=7))
    assert {shape for _, shape in seen[1:]} == {(3, 7)}
    assert found["asked"] == 1.5 and found["achieved"] == 2.0
    assert found["low"] < 2.0 < found["high"] < 2.1
    assert (found["device"], found["batch"], found["length"]) == ("cpu", 3, 7)
