import copy
import json

import pytest
import torch
from transformers import XLNetConfig, XLNetForSequenceClassification
from transformers.masking_utils import AttentionMaskInterface

from lit_compress.capture import ATTENTION_NAME, _recorder, model_inputs, prepare_capture, run_model
from lit_compress.models.architecture import block_list
from lit_compress.outputs import Capture
from tests.tiny import IMAGE_FAMILIES, TEXT_FAMILIES, tiny_batch, tiny_bert, tiny_images, tiny_model

LAYERS = 4
BLOCKS = frozenset(range(LAYERS))
EVERYTHING = Capture(frozenset(range(LAYERS + 1)), BLOCKS, BLOCKS, BLOCKS, BLOCKS)
FAMILIES = TEXT_FAMILIES + IMAGE_FAMILIES


def batch_for(family: str) -> dict[str, torch.Tensor]:
    return tiny_batch() if family in TEXT_FAMILIES else tiny_images()


def eager(model, inputs):
    """What transformers itself returns with eager attention."""
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    return other(**inputs, output_attentions=True, output_hidden_states=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_recording_does_not_change_the_outputs(family):
    model = tiny_model(family).eval()
    assert model.config._attn_implementation == "sdpa"
    inputs = model_inputs(model, batch_for(family))
    before = model(**inputs).logits
    prepare_capture(model, EVERYTHING)
    assert (run_model(model, inputs, EVERYTHING).logits - before).abs().max().item() == 0.0
    assert (model(**inputs).logits - before).abs().max().item() == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_softmax_of_scores_and_mask_is_eager_attention(family):
    model = tiny_model(family).eval()
    inputs = model_inputs(model, batch_for(family))
    expected = eager(model, inputs)
    assert len(expected.attentions) == LAYERS
    prepare_capture(model, EVERYTHING)
    outputs = run_model(model, inputs, EVERYTHING)
    assert sorted(outputs.attention_scores) == list(range(LAYERS))
    for block, attention in enumerate(expected.attentions):
        scores = outputs.attention_scores[block]
        if outputs.mask is not None:
            scores = scores.masked_fill(~outputs.mask[:, None, None, :], float("-inf"))
        torch.testing.assert_close(scores.softmax(-1), attention, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_follow_hugging_face_numbering(family):
    model = tiny_model(family).eval()
    inputs = model_inputs(model, batch_for(family))
    expected = model(**inputs, output_hidden_states=True).hidden_states
    outputs = run_model(model, inputs, Capture(hidden_states=frozenset({0, 2, LAYERS})))
    assert sorted(outputs.hidden_states) == [0, 2, LAYERS]
    for index, state in outputs.hidden_states.items():
        assert torch.equal(state, expected[index])


def test_queries_keys_and_values_by_hand():
    model = tiny_bert().eval()
    inputs = model_inputs(model, tiny_batch())
    prepare_capture(model, EVERYTHING)
    outputs = run_model(model, inputs, EVERYTHING)
    for block, layer in enumerate(block_list(model)):
        state = outputs.hidden_states[block]
        for name in ("query", "key", "value"):
            linear = getattr(layer.attention.self, name)
            joined = state @ linear.weight.T + linear.bias
            heads = torch.stack(joined.split(8, dim=-1), dim=1)
            recorded = getattr(outputs, {"query": "queries"}.get(name, name + "s"))[block]
            torch.testing.assert_close(recorded, heads, atol=1e-5, rtol=1e-5)


def test_scores_are_float32_under_bf16_autocast():
    model = tiny_bert().eval()
    capture = Capture(attention_scores=frozenset({0}), queries=frozenset({0}), keys=frozenset({0}))
    prepare_capture(model, capture)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = run_model(model, model_inputs(model, tiny_batch()), capture)
    query, key = outputs.queries[0], outputs.keys[0]
    assert query.dtype == torch.bfloat16 and outputs.attention_scores[0].dtype == torch.float32
    exact = query.double() @ key.double().transpose(-1, -2) / 8**0.5
    torch.testing.assert_close(outputs.attention_scores[0].double(), exact, atol=1e-5, rtol=1e-5)


def test_only_what_was_asked_for_is_recorded():
    model = tiny_bert()
    capture = Capture(attention_scores=frozenset({2}), values=frozenset({0, 3}))
    prepare_capture(model, capture)
    outputs = run_model(model, model_inputs(model, tiny_batch()), capture)
    assert [sorted(getattr(outputs, name)) for name in EVERYTHING.to_dict()] == [[], [2], [], [], [0, 3]]


def test_padding_is_not_attended():
    model = tiny_bert().eval()
    prepare_capture(model, EVERYTHING)
    plain, padded = tiny_batch(lengths=(7, 7)), tiny_batch(lengths=(7, 7), extra_padding=5)
    padded["input_ids"][:, 7:] = 42
    short = run_model(model, model_inputs(model, plain), EVERYTHING)
    long = run_model(model, model_inputs(model, padded), EVERYTHING)
    torch.testing.assert_close(long.logits, short.logits, atol=1e-4, rtol=1e-4)
    assert long.mask.sum(1).tolist() == [7, 7] and long.mask.dtype == torch.bool


def test_without_the_mask_registration_padding_would_be_attended(monkeypatch):
    """The mistake behind the test above: it must show, or the test above could not fail."""
    model = tiny_bert().eval()
    prepare_capture(model, EVERYTHING)
    batch = tiny_batch(lengths=(7, 3))
    right = run_model(model, model_inputs(model, batch), EVERYTHING).logits
    without = {k: v for k, v in AttentionMaskInterface._global_mapping.items() if k != ATTENTION_NAME}
    monkeypatch.setattr(AttentionMaskInterface, "_global_mapping", without)
    wrong = run_model(model, model_inputs(model, batch), EVERYTHING).logits
    assert (wrong[0] - right[0]).abs().max() < 1e-4
    assert (wrong[1] - right[1]).abs().max() > 0.01


def test_albert_gives_one_capture_per_call_of_its_shared_layer():
    model = tiny_model("albert", layers=6).eval()
    blocks = frozenset(range(6))
    capture = Capture(frozenset(range(7)), blocks, blocks, blocks, blocks)
    prepare_capture(model, capture)
    calls = []
    shared = model.albert.encoder.albert_layer_groups[0].albert_layers[0]
    shared.register_forward_hook(lambda module, args, output: calls.append((args[0], output)))
    outputs = run_model(model, model_inputs(model, tiny_batch()), capture)
    assert len(calls) == 6 and sorted(outputs.attention_scores) == list(range(6))
    for block, (entering, leaving) in enumerate(calls):
        assert torch.equal(outputs.hidden_states[block], entering)
        assert torch.equal(outputs.hidden_states[block + 1], leaving)
        query = entering @ shared.attention.query.weight.T + shared.attention.query.bias
        torch.testing.assert_close(outputs.queries[block].transpose(1, 2).flatten(2), query)
    assert not torch.allclose(outputs.attention_scores[0], outputs.attention_scores[5])


def test_dropout_draws_the_same_numbers_while_recording():
    model = tiny_bert(dropout=0.3)
    inputs = model_inputs(model, tiny_batch())
    torch.manual_seed(0)
    before = model(**inputs).logits
    prepare_capture(model, EVERYTHING)
    torch.manual_seed(0)
    assert torch.equal(run_model(model, inputs, EVERYTHING).logits, before)


def test_gradients_flow_through_everything_recorded():
    model = tiny_bert()
    prepare_capture(model, EVERYTHING)
    outputs = run_model(model, model_inputs(model, tiny_batch()), EVERYTHING)
    weight = model.bert.embeddings.word_embeddings.weight
    for name in EVERYTHING.to_dict():
        for tensor in getattr(outputs, name).values():
            (gradient,) = torch.autograd.grad(tensor.square().sum(), weight, retain_graph=True)
            assert gradient.abs().sum() > 0


def test_hidden_states_alone_keep_sdpa_and_our_name_never_reaches_disk(tmp_path):
    model = tiny_bert()
    prepare_capture(model, Capture(hidden_states=frozenset({1})))
    assert model.config._attn_implementation == "sdpa"
    prepare_capture(model, EVERYTHING)
    assert model.config._attn_implementation == ATTENTION_NAME
    model.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert (
        ATTENTION_NAME not in text and "lit_compress" not in text and json.loads(text)["model_type"] == "bert"
    )
    prepare_capture(model, Capture())
    assert model.config._attn_implementation == "sdpa"


def test_a_recording_ends_with_its_forward_even_a_failed_one():
    model = tiny_bert()
    prepare_capture(model, EVERYTHING)
    inputs = model_inputs(model, tiny_batch())
    with pytest.raises(IndexError):
        run_model(model, inputs | {"input_ids": inputs["input_ids"] + 1000}, EVERYTHING)
    assert _recorder.get() is None
    assert sorted(run_model(model, inputs, EVERYTHING).attention_scores) == list(range(LAYERS))
    assert _recorder.get() is None


def test_hidden_states_work_with_gradient_checkpointing():
    model, plain = tiny_bert(), tiny_bert()
    capture, batch = Capture(hidden_states=frozenset({2})), tiny_batch()
    model.gradient_checkpointing_enable()
    for each in (model, plain):
        state = run_model(each, model_inputs(each, batch), capture).hidden_states[2]
        state.square().mean().backward()
    weights = [each.bert.encoder.layer[0].output.dense.weight.grad for each in (model, plain)]
    torch.testing.assert_close(*weights)
    assert weights[0].abs().sum() > 0


def test_model_inputs_follow_the_models_signature():
    batch = tiny_batch()
    names = {family: set(model_inputs(tiny_model(family), batch)) for family in ("bert", "distilbert")}
    assert names["bert"] == {"input_ids", "attention_mask", "token_type_ids"}
    assert names["distilbert"] == {"input_ids", "attention_mask"}
    assert set(model_inputs(tiny_model("vit"), tiny_images())) == {"pixel_values"}


def test_teacher_inputs_come_from_the_second_tokenizer_where_there_is_one():
    model, batch = tiny_bert(), tiny_batch()
    assert model_inputs(model, batch, "teacher_")["input_ids"] is batch["input_ids"]
    own = {f"teacher_{name}": value + 1 for name, value in batch.items() if name != "token_type_ids"}
    inputs = model_inputs(model, batch | own, "teacher_")
    assert inputs["input_ids"] is own["teacher_input_ids"] and "token_type_ids" not in inputs
    assert model_inputs(model, batch | own)["input_ids"] is batch["input_ids"]


def test_refuses_indices_outside_the_model():
    model = tiny_bert()
    with pytest.raises(
        ValueError, match=r"hidden_states indices in 0\.\.4 .* 4 layers but got \[5\]; change"
    ):
        prepare_capture(model, Capture(hidden_states=frozenset({4, 5})))
    with pytest.raises(ValueError, match=r"values indices in 0\.\.3 .* but got \[-1, 4\]"):
        prepare_capture(model, Capture(values=frozenset({-1, 3, 4})))


def test_refuses_to_run_a_model_that_was_not_prepared():
    model = tiny_bert()
    with pytest.raises(RuntimeError, match=r"4 recorded attention calls .* but got 0; call prepare_capture"):
        run_model(model, model_inputs(model, tiny_batch()), EVERYTHING)


def test_refuses_attention_with_gradient_checkpointing():
    model = tiny_bert()
    model.gradient_checkpointing_enable()
    with pytest.raises(
        ValueError, match=r"gradient checkpointing to be off .*gradient_checkpointing_disable"
    ):
        prepare_capture(model, EVERYTHING)


def test_refuses_a_model_without_the_attention_interface():
    config = XLNetConfig(vocab_size=50, d_model=16, n_layer=2, n_head=2, d_inner=16)
    with pytest.raises(ValueError, match=r"supports transformers' AttentionInterface but got XLNetFor"):
        prepare_capture(XLNetForSequenceClassification(config), Capture(values=frozenset({0})))


def test_refuses_hidden_states_that_are_recorded_twice():
    source, model = tiny_bert().eval(), tiny_bert().eval()
    capture, inputs = Capture(hidden_states=frozenset({1})), model_inputs(model, tiny_batch())
    run_model(source, inputs, capture)
    model.bert.encoder.layer[0] = copy.deepcopy(source.bert.encoder.layer[0])
    with pytest.raises(RuntimeError, match=r"Expected 5 hidden states .* but got 6; layers were replaced"):
        run_model(model, inputs, capture)


def test_refuses_a_batch_without_inputs():
    with pytest.raises(ValueError, match=r"input_ids or pixel_values for Bert.* the keys \['labels'\]"):
        model_inputs(tiny_bert(), {"labels": torch.zeros(2)})
