"""Time as a cost: against a table made by hand and sums on paper. Nothing here looks at a clock."""

import copy
import json
import math
import os

import numpy as np
import pytest
import torch

from lit_compress.benchmark.runtimes.onnx import OnnxFp32
from lit_compress.export.parity import ParityError
from lit_compress.models.anatomy import dissect
from lit_compress.pruning import latency_cache, latency_measure, latency_sizes, timing
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.latency import Curve, LatencyTable, speedup_figures
from lit_compress.pruning.latency_cache import read_figures, table_key, table_path, write_figures
from lit_compress.pruning.latency_figures import Figures, monotone
from lit_compress.pruning.latency_runtime import forward_pass, to_integers
from lit_compress.pruning.latency_setting import Setting
from lit_compress.pruning.sample_inputs import make_inputs
from lit_compress.pruning.target import Target, cost_of
from tests.tiny import tiny_bert, tiny_model

HEADS = "bert.encoder.layer.*.attention.self.head/4"
NEURONS = "bert.encoder.layer.*.intermediate.neuron/64"
#: Two layers of 4 heads and 64 neurons: 1 + 2 x (0.5 + 4 + 8) = 26 ms.
BY_HAND = {
    "curves": {
        HEADS: {"units": [0, 1, 2, 4], "values": [0, 2, 3, 4]},
        NEURONS: {"units": [0, 32, 64], "values": [0, 6, 8]},
    },
    "layer": {"bert.encoder.layer.*": 0.5},
    "constant": 1,
    "hidden": None,
}
HIDDEN = {
    HEADS: {"units": [16, 32], "values": [0.5, 1]},
    NEURONS: {"units": [16, 32], "values": [0.25, 1]},
    "constant": {"units": [16, 32], "values": [0.5, 1]},
    "layer": {"units": [16, 32], "values": [0.8, 1]},
}


def name(layer, end):
    inside = {
        "head": "attention.self.head",
        "attention": "attention.self.attention",
        "neuron": "intermediate.neuron",
        "feed_forward": "intermediate.feed_forward",
        "layer": "layer",
    }
    return f"bert.encoder.layer.{layer}.{inside[end]}"


def gate(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def table(model=None, **changes):
    figures = read_figures({**BY_HAND, **changes})
    model = model or tiny_bert(layers=2)
    return LatencyTable(figures.curves, figures.layer, figures.constant, model, figures.hidden)


def test_a_full_model_costs_the_sum_of_its_parts():
    assert table().total == 26.0
    assert float(table().removed({})) == 0.0 and float(table().speedup({})) == 1.0


@pytest.mark.parametrize(
    ("gates", "ms"),
    [
        ({name(0, "head"): gate(1, 0, 1, 0)}, 26 - 4 + 3),
        # 3 heads lie between 2 (3 ms) and 4 (4 ms); 1.5 expected heads between 1 and 2.
        ({name(0, "head"): gate(1, 1, 1, 0)}, 26 - 4 + 3.5),
        ({name(1, "head"): gate(0.5, 0.5, 0.5, 0)}, 26 - 4 + 2.5),
        ({name(0, "head"): gate(0, 0, 0, 0)}, 26 - 4),
        ({name(0, "neuron"): torch.full((64,), 0.25, dtype=torch.float64)}, 26 - 8 + 3),
        ({name(0, "attention"): gate(0)}, 26 - 4),
        # A gate of the whole multiplies what the kept heads cost.
        ({name(0, "attention"): gate(0.5), name(0, "head"): gate(1, 1, 0, 0)}, 26 - 4 + 0.5 * 3),
        ({name(0, "feed_forward"): gate(0.25)}, 26 - 0.75 * 8),
        # A layer takes its parts and its norms with it.
        ({name(1, "layer"): gate(0)}, 13.5),
        ({name(1, "layer"): gate(0.5), name(1, "head"): gate(1, 0, 0, 0)}, 13.5 + 0.5 * (0.5 + 2 + 8)),
        ({f"{name(n, 'layer')}": gate(0) for n in (0, 1)}, 1.0),
    ],
)
def test_milliseconds_under_gates_by_hand(gates, ms):
    costs = table()
    assert float(costs.latency_ms(gates)) == pytest.approx(ms, abs=1e-12)
    assert float(costs.removed(gates)) == pytest.approx(1 - ms / 26, abs=1e-12)
    assert float(costs.speedup(gates)) == pytest.approx(26 / ms, abs=1e-12)


def test_gradients_are_the_slopes_of_the_segments():
    heads, whole = gate(1, 0.5, 0, 0, grad=True), gate(0.5, grad=True)
    layer = gate(0.8, grad=True)
    gates = {name(0, "head"): heads, name(0, "attention"): whole, name(0, "layer"): layer}
    table().latency_ms(gates).backward()
    # 1.5 heads: slope 1 ms per head, 2.5 ms in all.
    assert heads.grad.tolist() == pytest.approx([0.5 * 0.8 * 1.0] * 4)
    assert whole.grad.item() == pytest.approx(0.8 * 2.5)
    assert layer.grad.item() == pytest.approx(0.5 + 8 + 0.5 * 2.5)


def test_gradient_at_the_ends_and_between_the_points_agrees_with_differences():
    curve = Curve((0, 1, 2, 4), (0, 2, 3, 4))
    for at in (0.25, 1.75, 3.9):
        x = gate(at, grad=True)
        curve(x).sum().backward()
        step = 1e-6
        slope = (curve(gate(at + step)) - curve(gate(at - step))) / (2 * step)
        assert x.grad.item() == pytest.approx(slope.item(), rel=1e-6)
    assert curve(gate(-3.0, 0.0, 4.0, 9.0)).tolist() == [0, 0, 4, 4]


def test_hidden_dimensions_multiply_every_part():
    costs = table(hidden=HIDDEN)
    ones = torch.ones(32, dtype=torch.float64)
    half = torch.cat([ones[:16], 0 * ones[16:]])
    assert float(costs.latency_ms({"hidden": ones})) == 26.0
    assert float(costs.latency_ms({"hidden": half})) == pytest.approx(0.5 + 2 * (0.4 + 2 + 2))
    both = {"hidden": half, name(0, "head"): gate(1, 0, 0, 0)}
    assert float(costs.latency_ms(both)) == pytest.approx(0.5 + 2 * 0.4 + 1 + 2 + 2 * 2)


def test_refuses_hidden_gates_without_factors():
    with pytest.raises(ValueError, match="measured at several hidden sizes"):
        table().latency_ms({"hidden": torch.ones(32)})


def test_refuses_a_model_with_another_shape():
    with pytest.raises(ValueError, match="all parts of the model"):
        table(tiny_bert(layers=2, heads=2))


def test_figures_to_log_stand_beside_what_was_asked():
    gates = {name(n, "layer"): gate(0) for n in (0,)}
    figures = speedup_figures(table(), Target(speedup=2.0), gates)
    assert figures == {"compress/speedup_asked": 2.0, "compress/speedup_table": pytest.approx(26 / 13.5)}
    assert speedup_figures(table(), Target(sparsity=0.5), gates) == {}


# -- the cache -------------------------------------------------------------------------------------


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A cache of its own, and a measurement that only counts how often it is asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def fake(*arguments):
        asked.append(arguments[1:])
        return read_figures(BY_HAND)

    monkeypatch.setattr(latency_cache, "measure_figures", fake)
    return asked


def of(model, **changes):
    groups = find_groups(model, changes.pop("structures", ["head", "neuron"]))
    known = changes.pop("known", None)
    return LatencyTable.of(model, groups, Setting(**{"batch": 2, "length": 8, **changes}), known)


def files(tmp_path):
    return sorted((tmp_path / "lit_compress" / "latency").glob("*"))


def test_a_table_is_measured_once_for_a_shape_and_not_for_weights(measured, tmp_path):
    first, second = of(tiny_bert(layers=2)), of(tiny_bert(layers=2, seed=5))
    assert measured == [(False, Setting(batch=2, length=8))]
    assert first.total == second.total == 26.0
    (file,) = files(tmp_path)
    assert json.loads(file.read_text())["key"]["batch"] == 2


def test_the_target_gets_it(measured):
    model = tiny_bert(layers=2)
    cost = cost_of(Target(speedup=2.0, batch=3, length=9), model, find_groups(model, ["head"]))
    assert isinstance(cost, LatencyTable) and measured == [(False, Setting(batch=3, length=9))]


def test_a_known_table_counts_whatever_is_in_the_cache(measured, tmp_path):
    model = tiny_bert(layers=2)
    known = of(model).record
    assert known["constant"] == 1 and json.loads(json.dumps(known)) == known
    for file in files(tmp_path):
        file.unlink()
    slower = {**known, "constant": 101}
    assert of(model, known=slower).total == 126.0 and of(model, known=slower).record == slower
    assert len(measured) == 1 and not files(tmp_path)
    # That of another batch is of no use.
    assert of(model, batch=4, known=slower).total == 26.0 and len(measured) == 2


@pytest.mark.parametrize("changes", [{"batch": 4}, {"length": 9}, {"threads": 2}])
def test_other_settings_are_measured_anew(measured, changes):
    model = tiny_bert(layers=2)
    of(model)
    of(model, **changes)
    assert len(measured) == 2


def test_other_machine_library_or_model_is_measured_anew(measured, monkeypatch):
    of(tiny_bert(layers=2))
    of(tiny_bert(layers=3))
    of(tiny_bert(layers=2), structures=["head", "hidden"])
    of(tiny_bert(layers=2).bfloat16())
    monkeypatch.setattr(latency_cache, "cpu_name", lambda: "Another CPU")
    of(tiny_bert(layers=2))
    monkeypatch.setattr(latency_cache, "library_version", lambda library: "9.9")
    of(tiny_bert(layers=2))
    assert len(measured) == 6 and [varied for varied, _ in measured].count(True) == 1


def broken(text):
    found = json.loads(text)
    found["curves"][HEADS]["values"][2] = float("nan")
    return json.dumps(found)


def falling(text):
    found = json.loads(text)
    found["curves"][NEURONS]["values"] = [0, 9, 8]
    return json.dumps(found)


def foreign(text):
    found = json.loads(text)
    found["key"]["processor"] = "Another CPU"
    return json.dumps(found)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-40],
        lambda text: "[]",
        lambda text: "{}",
        broken,
        falling,
        foreign,
    ],
)
def test_a_damaged_or_foreign_file_is_measured_again_with_a_warning(measured, tmp_path, damage):
    model = tiny_bert(layers=2)
    of(model)
    (file,) = files(tmp_path)
    file.write_text(damage(file.read_text()))
    with pytest.warns(UserWarning, match="cannot be used"):
        assert of(model).total == 26.0
    assert len(measured) == 2
    of(model)
    assert len(measured) == 2


def test_figures_survive_json():
    figures = read_figures({**BY_HAND, "hidden": HIDDEN})
    assert read_figures(json.loads(json.dumps(write_figures(figures)))) == figures


@pytest.mark.parametrize(
    "changes",
    [
        {"constant": -1},
        {"constant": "1"},
        {"layer": {"bert.encoder.layer.*": None}},
        {"curves": {HEADS: {"units": [0, 4], "values": [1, 4]}}},
        {"curves": {HEADS: {"units": [0, 4, 4], "values": [0, 1, 4]}}},
        {"curves": {HEADS: {"units": [0, 4], "values": [0, math.inf]}}},
    ],
)
def test_refuses_figures_that_cannot_be(changes):
    with pytest.raises(ValueError, match="Expected"):
        read_figures({**BY_HAND, **changes})


def test_refuses_settings_that_cannot_be_measured(measured):
    model = tiny_bert(layers=2)
    for changes in ({"device": "tpu"}, {"batch": 0}, {"threads": 0}):
        with pytest.raises(ValueError, match="Expected target.device cpu or cuda"):
            of(model, **changes)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch finds none"):
            of(model, device="cuda")


# -- measuring -------------------------------------------------------------------------------------


def measure_with(monkeypatch, clock, model, varied=False, length=8):
    """Measure with a clock that looks at the model that is run instead of at the time."""

    class Clock:
        @staticmethod
        def time(call):
            return type("Took", (), {"seconds": clock(call.args[0]) / 1000})

    monkeypatch.setattr(latency_measure, "open_device", lambda device, threads: Clock)
    monkeypatch.setattr(timing, "_ROUNDS", 2)
    return latency_measure.measure_figures(model, varied, Setting(batch=2, length=length))


def cost_of_parts(model):
    """2 ms, 0.5 per layer, 1 and 0.25 per head for an attention that has any, 0.125 per neuron."""
    ms = 2.0
    for block in dissect(model).blocks:
        ms += 0.5 + sum(1 + 0.25 * attention.heads for attention in block.attentions)
        ms += 0.125 * block.feed_forward.neurons if block.feed_forward is not None else 0
    return ms


@pytest.mark.parametrize("scale", [1, 300])
def test_parts_are_told_apart_whatever_the_depth_of_the_copies(monkeypatch, scale):
    # With 300 a pass seems to take seconds, and copies have two blocks of the three.
    model = tiny_bert(layers=3)
    found = measure_with(monkeypatch, lambda m: scale * cost_of_parts(m), model)
    assert found.constant == pytest.approx(2 * scale)
    assert found.layer == {"bert.encoder.layer.*": pytest.approx(0.5 * scale)}
    heads, neurons = found.curves[HEADS], found.curves[NEURONS]
    assert heads.units == (0, 1, 2, 3, 4)
    assert heads.values == pytest.approx([0, *(scale * (1 + 0.25 * k) for k in (1, 2, 3, 4))])
    assert neurons.units[0] == 0 and neurons.units[-1] == 64
    assert neurons.values == pytest.approx([scale * 0.125 * k for k in neurons.units])
    total = LatencyTable(found.curves, found.layer, found.constant, model).total
    assert total == pytest.approx(scale * cost_of_parts(model))


def test_the_full_model_decides_what_the_parts_take_together(monkeypatch):
    model = tiny_bert(layers=3)

    def clock(m):
        # All parts in one model are a tenth slower than each of them alone.
        both = all(b.attentions and b.feed_forward is not None for b in dissect(m).blocks)
        return cost_of_parts(m) + (3.0 if both else 0.0)

    found = measure_with(monkeypatch, clock, model)
    parts = 3 * (2 + 8)
    assert found.curves[HEADS].values[-1] == pytest.approx(2 * (parts + 3) / parts)
    total = LatencyTable(found.curves, found.layer, found.constant, model).total
    assert total == pytest.approx(cost_of_parts(model) + 3)


def test_hidden_sizes_are_told_apart(monkeypatch):
    model = tiny_bert(layers=2)

    def clock(m):
        return cost_of_parts(m) * dissect(m).stream.size / 32

    found = measure_with(monkeypatch, clock, model, varied=True)
    assert set(found.hidden) == {HEADS, NEURONS, "constant", "layer"}
    for factors in found.hidden.values():
        assert factors.units == (8, 16, 24, 32)
        assert factors.values == pytest.approx([0.25, 0.5, 0.75, 1])


def test_short_passes_are_timed_with_their_weights_in_the_cache():
    """The first pass of a turn finds the cache full of other models and does not count."""
    turns = {"short": [], "long": []}

    def clock(call):
        name = call()
        turns[name].append(len(turns[name]))
        return 1.0 if name == "long" else 0.02 if len(turns[name]) % 4 == 1 else 0.01

    calls = {name: (lambda name=name: name) for name in turns}
    times = timing.time_in_turns(calls, clock, "", seconds=60)
    assert times["short"][1:] == pytest.approx([0.01] * (len(times["short"]) - 1), rel=0.5)
    assert len(turns["long"]) == timing._ROUNDS + 2
    assert len(turns["short"]) == 1 + 4 * (timing._ROUNDS + 1)


def test_noise_does_not_make_a_larger_part_faster():
    assert monotone([1, 3, 2, 4, 4, 1]) == pytest.approx([1, 2.5, 2.5, 3, 3, 3])
    assert monotone([1, 2, 3]) == [1, 2, 3]


def test_measuring_leaves_the_model_and_the_threads_alone(monkeypatch):
    model = tiny_bert(layers=2)
    before, threads = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_num_threads()
    measure_with(monkeypatch, cost_of_parts, model, varied=True)
    assert model.training and torch.get_num_threads() == threads
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert model.config.num_hidden_layers == 2 and model.config.hidden_size == 32


def test_a_real_clock_gives_a_table_that_rises(monkeypatch, tmp_path):
    """The one measurement with a real clock: only what is true of any clock is looked at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(timing, "_SECONDS", 0.1)
    model = tiny_bert(layers=2)
    groups = find_groups(model, ["head", "neuron", "layer"])
    found = LatencyTable.of(model, groups, Setting(batch=2, length=8))
    assert found.total > 0
    closed = {group.name: torch.zeros(group.units) for group in groups if group.structure != "layer"}
    assert 0 <= float(found.removed(closed)) <= 1
    assert LatencyTable.of(model, groups, Setting(batch=2, length=8)).total == found.total


def test_refuses_texts_that_the_model_cannot_read():
    with pytest.raises(ValueError, match="length from 1 to 130"):
        make_inputs(tiny_bert(layers=1), 1, 513)


# -- other runtimes --------------------------------------------------------------------------------


def calls_of(monkeypatch, model, runtime, varied):
    """Return what is timed, by the size of the model, instead of timing it."""
    kept = {}

    def collect(calls, clock, title):
        kept.update(calls)
        return {size: [1.0] for size in calls}

    monkeypatch.setattr(latency_measure, "time_in_turns", collect)
    monkeypatch.setattr(latency_sizes, "_HIDDEN", (1 / 2, 1))
    latency_measure.measure_figures(model, varied, Setting(batch=2, length=8, runtime=runtime))
    return kept


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_every_size_is_exported_for_the_runtime_and_computes_what_it_does_in_torch(monkeypatch, family):
    pytest.importorskip("onnxruntime")
    model = tiny_model(family)
    exported = calls_of(monkeypatch, model, "onnx-fp32", varied=True)
    monkeypatch.setattr(latency_measure, "runtime", lambda name: OnnxFp32())  # its sizes, in torch
    in_torch = calls_of(monkeypatch, model, "torch-fp32", varied=True)
    assert exported.keys() < in_torch.keys()  # a table of few sizes
    sizes = {(variant.kind.split("/")[1], variant.units) for variant in exported if variant and variant.kind}
    kinds = {(end, most) for end in ("", " of the last block") for most in (4, 64)}
    steps = {4: (1, 2, 4), 64: (2, 8, 16, 32, 64)}
    # A head of the last block is in all sizes.
    assert sizes == {(f"{most}{end}", units) for end, most in kinds for units in steps[most]} - {
        ("4 of the last block", 1)
    }
    for size, call in exported.items():
        small, inputs = in_torch[size].args
        with torch.inference_mode():
            np.testing.assert_allclose(call(), small(**inputs).logits.numpy(), atol=1e-4, err_msg=str(size))


LAST_HEADS, LAST_NEURONS = f"{HEADS} of the last block", f"{NEURONS} of the last block"
#: Heads and neurons of the second layer take a fourth and a tenth: 1 + 2 x 0.5 + 4 + 8 + 1 + 0.8 = 15.8 ms.
NARROW = {
    **BY_HAND["curves"],
    LAST_HEADS: {"units": [0, 1, 2, 4], "values": [0, 0.5, 0.75, 1]},
    LAST_NEURONS: {"units": [0, 32, 64], "values": [0, 0.6, 0.8]},
}


def test_the_last_block_has_prices_of_its_own_where_the_table_has_them():
    costs = table(curves=NARROW)
    assert costs.total == pytest.approx(15.8)
    for layer, heads, neurons in ((0, 3.0, 6.0), (1, 0.75, 0.6)):
        kept = {name(layer, "head"): gate(1, 0, 1, 0), name(layer, "neuron"): gate(*[1] * 32, *[0] * 32)}
        other = 1.8 if layer == 0 else 12.0
        assert float(costs.latency_ms(kept)) == pytest.approx(2 + other + heads + neurons)
    with pytest.raises(ValueError, match="64 of the last block is missing"):
        table(curves={key: curve for key, curve in NARROW.items() if key != LAST_NEURONS})


def cost_with_a_narrow_end(model):
    """As :func:`cost_of_parts`, but a tenth behind the keys and values of the last attention that is left."""
    blocks = dissect(model).blocks
    last = max((number for number, block in enumerate(blocks) if block.attentions), default=len(blocks))
    ms = 2.0
    for number, block in enumerate(blocks):
        ms += sum(1 + 0.25 * attention.heads for attention in block.attentions)
        behind = 0.5 + (0.125 * block.feed_forward.neurons if block.feed_forward is not None else 0)
        ms += 0.1 * behind if number >= last else behind
    return ms


@pytest.mark.parametrize("scale", [1, 300])
def test_what_the_last_block_costs_is_told_apart_from_what_others_do(monkeypatch, scale):
    model = tiny_bert(layers=3)
    monkeypatch.setattr(latency_measure, "runtime", lambda name: OnnxFp32())
    found = measure_with(monkeypatch, lambda m: scale * cost_with_a_narrow_end(m), model)
    assert found.layer == {"bert.encoder.layer.*": pytest.approx(0.5 * scale)}
    assert found.curves[HEADS].values == pytest.approx([0, *(scale * (1 + 0.25 * k) for k in (1, 2, 3, 4))])
    assert found.curves[NEURONS].values == pytest.approx(
        [scale * 0.125 * k for k in found.curves[NEURONS].units]
    )
    # What its attention costs besides its heads is constant: without it others would be computed for one token.
    assert found.curves[LAST_HEADS].values == pytest.approx([scale * 0.25 * k for k in range(5)])
    assert found.constant == pytest.approx(scale * (2 + 1 - 0.45))
    neurons = found.curves[LAST_NEURONS]
    assert neurons.values == pytest.approx([scale * 0.0125 * k for k in neurons.units])
    total = LatencyTable(found.curves, found.layer, found.constant, model).total
    assert total == pytest.approx(scale * cost_with_a_narrow_end(model))


def test_a_table_is_of_the_kinds_that_its_runtime_tells_apart():
    model = tiny_bert(layers=2)
    kinds = {
        runtime: [kind for kind, _ in table_key(model, False, Setting(length=8, runtime=runtime))["parts"]]
        for runtime in ("torch-fp32", "onnx-int8")
    }
    assert kinds == {
        "torch-fp32": [HEADS, NEURONS] * 2,
        "onnx-int8": [HEADS, NEURONS, LAST_HEADS, LAST_NEURONS],
    }


def test_integers_are_measured_with_8_bits_everywhere():
    pytest.importorskip("onnxruntime")
    model = tiny_bert(layers=2).eval()
    inputs = make_inputs(model, 2, 8)
    rounded = copy.deepcopy(model)
    to_integers(rounded, inputs)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = torch.from_numpy(forward_pass(model, inputs, "onnx-int8", threads=1)())
    with torch.inference_mode():
        exact, expected = model(**inputs).logits, rounded(**inputs).logits
    assert (found - expected).abs().max() < 0.1 * (exact - expected).abs().max()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_model_that_is_only_timed_need_not_be_near_to_be_exported(monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    from lit_compress.export.onnx import export_onnx

    monkeypatch.setattr(OnnxFp32, "tolerance", 0.0)
    model = tiny_bert(layers=1).eval()
    inputs = make_inputs(model, 1, 8)
    assert forward_pass(model, inputs, "onnx-fp32", threads=1)().shape == (1, 3)
    with pytest.raises(ParityError, match="within 0 of their size"):  # and it is checked again
        export_onnx(model, tmp_path / "model.onnx")


def test_an_export_leaves_random_numbers_and_the_terminal_alone(capfd):
    pytest.importorskip("onnxruntime")
    model = tiny_bert(layers=1).eval()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    forward_pass(model, make_inputs(model, 1, 8), "onnx-int8", threads=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr().err == ""
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


def test_a_table_is_of_its_runtime_and_of_what_exports_for_it(measured, monkeypatch):
    model = tiny_bert(layers=2)
    of(model)
    of(model, runtime="onnx-int8")
    of(model, runtime="openvino-int8")
    known = of(model, runtime="onnx-int8").record
    assert [setting.runtime for _, setting in measured] == ["torch-fp32", "onnx-int8", "openvino-int8"]
    assert known["key"]["runtime"] == "onnx-int8" and "onnxruntime" in known["key"]["libraries"]
    monkeypatch.setattr("lit_compress.benchmark.artefacts.BUILD_VERSION", -1)
    of(model, runtime="onnx-int8", known=known)
    assert len(measured) == 4
    cost_of(Target(speedup=2.0, runtime="onnx-fp32"), model, find_groups(model, ["head"]))
    assert measured[-1] == (False, Setting(runtime="onnx-fp32"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"runtime": "onnx-int9"}, "did you mean onnx-int8"),
        ({"runtime": "onnx-int8-static"}, "onnx-int8-static is calibrated with some; use onnx-int8,"),
        ({"runtime": "onnx-int8", "device": "cuda"}, "a target.runtime for cuda but onnx-int8 runs on cpu"),
    ],
)
def test_refuses_a_runtime_that_nothing_can_be_timed_in(changes, said):
    with pytest.raises(ValueError, match=said):
        Target(speedup=2.0, **changes)


def test_a_missing_library_names_its_extra(monkeypatch):
    def missing(*names):
        raise ImportError("pip install 'lit_compress[onnx]'")

    monkeypatch.setattr("lit_compress.benchmark.runtimes.onnx.require", missing)
    model = tiny_bert(layers=1)
    with pytest.raises(ImportError, match="pip install"):
        forward_pass(model, make_inputs(model, 1, 8), "onnx-int8", threads=1)


def test_key_names_what_a_table_depends_on():
    key = table_key(tiny_bert(layers=2), False, Setting(length=8))
    assert {"processor", "threads", "torch", "dtype", "parts", "batch", "length"} <= key.keys()
    assert table_path(key) != table_path({**key, "processor": "x"})
    assert isinstance(read_figures(BY_HAND), Figures)
