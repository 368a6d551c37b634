"""The int8 products of a graph, on activations as real encoders have them: with outliers."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lit_compress.export.onnx_int8 import Range, activations, quantize_graph

WIDTH, INNER, TOKENS = 64, 96, 40
DRAW = np.random.default_rng(0)


def weights(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


CONSTANTS = {
    "gamma": np.where(np.isin(np.arange(WIDTH), [3, 17]), 4, 1).astype(np.float32),
    "beta": np.zeros(WIDTH, np.float32),
    "up": weights(WIDTH, INNER),
    "bias": weights(INNER),
    "down": weights(INNER, WIDTH),
    "table": weights(50, WIDTH),
    "positions": weights(50, WIDTH),
}


def graph(nodes, inputs, output):
    kinds = {
        "x": (TensorProto.FLOAT, ["texts", "tokens", "width"]),
        "mask": (TensorProto.INT32, ["texts", "tokens"]),
    }
    ids = (TensorProto.INT64, ["texts", "tokens"])
    read = {name for node in nodes for name in node.input}
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *kinds.get(name, ids)) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items() if name in read],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def run(model, **inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def outliers(width=WIDTH):
    """Two texts whose first token is far larger than the others in two dimensions."""
    x = weights(2, TOKENS, width)
    x[:, 0, [3, 17]] = [100, 60]
    x[:, 1:, [3, 17]] /= 4
    return x


def error(got, expected):
    """Return the error of the tokens that are no outliers."""
    return np.sqrt(np.mean((got - expected)[:, 1:] ** 2) / np.mean(expected[:, 1:] ** 2))


def product(before, name="up"):
    return [
        *before,
        helper.make_node("MatMul", ["before", name], ["product"]),
        helper.make_node("Add", ["bias", "product"], ["y"]),
    ]


NORM = [helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["before"], axis=-1)]
RELU = [helper.make_node("Relu", ["x"], ["before"])]
NEGATIVE = [helper.make_node("Elu", ["x"], ["made"]), helper.make_node("Neg", ["made"], ["before"])]
GELU = [helper.make_node("Gelu", ["x"], ["before"])]
ATTENTION = [
    helper.make_node("MultiHeadAttention", ["x", "x", "x"], ["before"], domain="com.microsoft", num_heads=4)
]


def ranges_of(values):
    flat = values.reshape(-1, values.shape[-1])
    return {"before": Range(flat.min(0), flat.max(0))}


@pytest.mark.parametrize("before", [NORM, GELU, ATTENTION])
def test_activations_are_known_by_what_they_come_from(before):
    made = onnx.NodeProto.FromString(before[0].SerializeToString())
    made.output[0] = "made"
    turned = [made, helper.make_node("Transpose", ["made"], ["before"], perm=[1, 0, 2])]
    for nodes in (before, turned):
        assert activations(graph(product(nodes), ["x"], "y")) == {"before": made.op_type}


@pytest.mark.parametrize("before", [GELU, RELU, NEGATIVE])
def test_one_large_token_does_not_spoil_the_others_in_a_feed_forward_network(before):
    model, x = graph(product(before), ["x"], "y"), outliers()
    # A token whose activations are all far below zero, or hardly anything.
    x[1, 7] = -3
    expected = run(model, x=x)
    quantize_graph(model, {})
    assert "MatMul" not in {node.op_type for node in model.graph.node}
    # With one scale for all tokens it is 0.18 behind a Gelu.
    assert 0 < error(run(model, x=x), expected) < 0.01


@pytest.mark.parametrize("fixed", [False, True])
def test_large_dimensions_do_not_spoil_the_others_behind_a_normalisation(fixed):
    model, x = graph(product(NORM), ["x"], "y"), outliers()
    expected = run(model, x=x)
    quantize_graph(model, ranges_of(run(graph(NORM, ["x"], "before"), x=x)), fixed)
    kinds = [node.op_type for node in model.graph.node]
    assert ("QuantizeLinear" in kinds, "DynamicQuantizeLinear" in kinds) == (fixed, not fixed)
    assert "Add" not in kinds, "the bias is part of the product"
    # With the dimensions as they are it is 0.034.
    assert 0 < error(run(model, x=x), expected) < 0.02


def test_what_attention_gives_has_one_scale():
    model, x = graph(product(ATTENTION), ["x"], "y"), weights(2, TOKENS, WIDTH)
    expected = run(model, x=x)
    quantize_graph(model, {})
    assert [node.op_type for node in model.graph.node] == [
        "MultiHeadAttention",
        "DynamicQuantizeLinear",
        "MatMulIntegerToFloat",
    ]
    assert 0 < error(run(model, x=x), expected) < 0.02


def test_values_beyond_a_fixed_range_become_its_edge():
    model, x = graph(product(ATTENTION), ["x"], "y"), weights(2, TOKENS, WIDTH)
    edge = np.full(WIDTH, 0.5, np.float32)
    quantize_graph(model, {"before": Range(-edge, edge)}, fixed=True)
    attended = run(graph(ATTENTION, ["x"], "before"), x=4 * x)
    expected = np.clip(attended, -0.5, 0.5) @ CONSTANTS["up"] + CONSTANTS["bias"]
    assert error(run(model, x=4 * x), expected) < 0.02
    assert np.abs(attended).max() > 1


def test_weights_are_the_nearest_ones_with_a_scale_per_output():
    model = graph(product(GELU), ["x"], "y")
    quantize_graph(model, {})
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values, scale = stored["up_weights"], stored["up_weights_scale"]
    assert values.dtype == np.int8
    np.testing.assert_allclose(scale, np.abs(CONSTANTS["up"]).max(0) / 127, rtol=1e-6)
    assert (np.abs(values * scale - CONSTANTS["up"]) <= 0.501 * scale).all()
    assert "up" not in stored


def test_tokens_of_zeros_stay_zeros():
    model, x = graph(product(GELU), ["x"], "y"), outliers()
    x[0, 5:] = 0
    quantize_graph(model, {})
    np.testing.assert_allclose(run(model, x=x)[0, 5:], np.tile(CONSTANTS["bias"], (TOKENS - 5, 1)), atol=1e-3)


def test_words_are_int8_with_a_scale_per_row_and_positions_float16():
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Gather", ["positions", "position_ids"], ["places"]),
        helper.make_node("Concat", ["words", "places"], ["y"], axis=-1),
    ]
    model = graph(nodes, ["input_ids", "position_ids"], "y")
    quantize_graph(model, {})
    ids = np.arange(50)[None]
    words, places = np.split(run(model, input_ids=ids, position_ids=ids)[0], 2, axis=-1)
    steps = np.abs(CONSTANTS["table"]).max(1, keepdims=True) / 127
    assert (np.abs(words - CONSTANTS["table"]) <= 0.501 * steps).all() and (words != CONSTANTS["table"]).any()
    np.testing.assert_array_equal(places, CONSTANTS["positions"].astype(np.float16).astype(np.float32))


def test_matrices_without_rows_stay():
    constants = {**CONSTANTS, "empty": np.zeros((0, INNER), np.float32)}
    x = np.zeros((1, 2, 0), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONSTANTS, "empty", constants["empty"])
        model = graph(product(GELU, "empty"), ["x"], "y")
    quantize_graph(model, {})
    np.testing.assert_array_equal(run(model, x=x)[0, 0], CONSTANTS["bias"])


def test_shapes_that_are_no_longer_true_are_dropped():
    model, x = graph(product(GELU), ["x"], "y"), weights(1, 3, WIDTH)
    # The dynamo exporter writes the shapes of its own example.
    model.graph.value_info.append(helper.make_tensor_value_info("product", TensorProto.FLOAT, [7, 7]))
    quantize_graph(model, {})
    assert not model.graph.value_info
    assert run(model, x=x).shape == (1, 3, INNER)
