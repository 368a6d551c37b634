"""Every width and every sharing of scales in every runtime of rounded models: computed as trained, or refused."""

import itertools
from dataclasses import asdict

import pytest
import torch
from torch import nn

from lit_compress.__main__ import main
from lit_compress.callbacks.student import deployable
from lit_compress.export.trained import notes_of
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.student import LayerSubset
from lit_compress.quantization import Scheme
from lit_compress.quantization.fake_weights import apply_fake_weights, fake_weights_of
from lit_compress.quantization.inputs import apply_input_quantizers, input_quantizers_of
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.stage import FROZEN
from tests.export.computes import INTEGERS, error_of
from tests.export.test_ragged import ragged
from tests.quantization.test_fake_model import batch
from tests.tiny import tiny_bert

RUNTIMES = ("onnx-int8", "openvino-int8", "litert-int8")
BITS = (8, 6, 4, 3, 2)
ROWS = [
    Scheme(bits, symmetric, per)
    for bits in BITS
    for per in ("channel", "tensor")
    for symmetric in (True, False)
]
GROUPS = [Scheme(bits, symmetric, "group", 8) for bits in BITS for symmetric in (True, False)]
# Products of LiteRT have their weights around zero, in eight bits.
TOO_WIDE = ("uint8 per channel", "uint8 per tensor")


def rounded(model, schemes, ranges):
    """A model whose projections have one scheme after the other, after a few forward passes."""
    modules = dict(model.named_modules())
    projections = [
        name for name, module in modules.items() if isinstance(module, nn.Linear) and module.weight.numel()
    ]
    turns = dict(zip(projections, itertools.cycle(schemes), strict=False))
    for scheme in dict.fromkeys(schemes):
        names = [f"{name}.weight" for name, found in turns.items() if found == scheme]
        if names:
            apply_fake_weights(model, names, asdict(scheme), part=str(scheme))
    tables = [f"{name}.weight" for name, module in modules.items() if isinstance(module, nn.Embedding)]
    apply_fake_weights(model, tables, asdict(Scheme()), part="embeddings")
    if ranges != "none":
        apply_input_quantizers(model, projections, asdict(Scheme(8, False, "tensor")), ranges)
    model.train()
    with torch.no_grad():
        for seed in range(3):
            model(**batch(seed))
    for _, step in [*fake_weights_of(model), *input_quantizers_of(model)]:
        step.set_stage(FROZEN)
    return deployable(model.eval())


def distilled(tmp_path):
    teacher = save_folder(tmp_path / "teacher", tiny_bert(layers=4), None, {})
    return LayerSubset(source=str(teacher), layers=[0, 3]).build(None, 3)


every_runtime = pytest.mark.parametrize("way", RUNTIMES, indirect=True)


def check(way, model, tmp_path):
    """The folder of the model, built and run, computes what the model computes."""
    assert error_of(way, model, tmp_path) < INTEGERS[way.name]


@every_runtime
@pytest.mark.parametrize("ranges", ["min_max", "dynamic", "none"])
def test_every_width_computes_what_was_trained_or_is_refused(way, ranges, tmp_path):
    schemes = ROWS + GROUPS
    if way.name == "litert-int8":
        schemes = [scheme for scheme in ROWS if str(scheme) not in TOO_WIDE]
    model = rounded(tiny_bert(layers=5), schemes, ranges)
    assert {packed.scheme for _, packed in packed_of(model)} == {*schemes, Scheme()}
    if ranges == "dynamic" and way.name != "onnx-int8":
        with pytest.raises(
            ValueError, match="Expected activations with fixed ranges for .* dynamic ones; train"
        ):
            check(way, model, tmp_path)
    else:
        check(way, model, tmp_path)


@every_runtime
@pytest.mark.parametrize("kind", ["ragged", "distilled"])
def test_pruned_and_distilled_models(way, kind, tmp_path):
    model = ragged() if kind == "ragged" else distilled(tmp_path)
    check(way, rounded(model, [Scheme(4), Scheme(3, False), Scheme(8)], "min_max"), tmp_path)


@pytest.mark.parametrize("way", ["litert-int8"], indirect=True)
@pytest.mark.parametrize("scheme", [*GROUPS, Scheme(8, False), Scheme(8, False, "tensor")], ids=str)
def test_refuses_what_products_of_litert_cannot_have(way, scheme, tmp_path):
    with pytest.raises(ValueError, match=f"LiteRT but .* {scheme}; train with weights"):
        check(way, rounded(tiny_bert(layers=1), [scheme], "min_max"), tmp_path)


GROUPED = "Weights with scales per group are stored as integers and multiplied in float32."
WIDER = "Weights of 4 bits take a byte each: OpenVINO multiplies no smaller integers."


@pytest.mark.parametrize(
    ("scheme", "ranges", "notes"),
    [
        (GROUPS[0], "none", [GROUPED]),
        (Scheme(4, True, "group", 8), "min_max", [GROUPED]),
        (Scheme(4), "none", []),
        (Scheme(4), "min_max", [WIDER]),
        (Scheme(6), "min_max", []),
    ],
)
def test_the_export_tells_how_weights_are_held(scheme, ranges, notes, tmp_path):
    folder = save_folder(tmp_path / "model", rounded(tiny_bert(layers=1), [scheme], ranges), None, {})
    assert notes_of(folder, "openvino-int8") == notes
    assert notes_of(folder, "onnx-int8") == [note for note in notes if note != WIDER]
    assert notes_of(save_folder(tmp_path / "plain", tiny_bert(layers=1), None, {}), "openvino-int8") == []


def test_the_export_tells_that_codebooks_are_rounded_again(tmp_path):
    save_folder(tmp_path / "model", tiny_bert(layers=1), None, {})
    for method in ("kmeans", "nearest"):
        words = ["quantize", str(tmp_path / "model"), "--out", str(tmp_path / method), "--method", method]
        assert main(words) == 0
    for runtime in ("onnx-int8", "onnx-int8-static", "openvino-int8", "litert-int8", "gguf-q8_0"):
        (note,) = notes_of(tmp_path / "kmeans", runtime)
        assert note.startswith(f"Weights in codebooks are rounded again: {runtime} has integers of its own")
    for folder, runtime in (("kmeans", "onnx-fp32"), ("kmeans", "gguf-f16"), ("nearest", "onnx-int8")):
        assert notes_of(tmp_path / folder, runtime) == []
