"""Students: the right tensors in the right places, ready to train."""

import pytest
import torch
from jsonargparse import ArgumentParser
from transformers import AlbertConfig, AlbertForSequenceClassification

from lit_compress.capture import model_inputs, prepare_capture
from lit_compress.models.architecture import describe
from lit_compress.models.student import FromConfig, LayerSubset, Pretrained, StudentFactory
from lit_compress.outputs import Capture
from tests.tiny import IMAGE_FAMILIES, TEXT_FAMILIES, tiny_batch, tiny_bert, tiny_images, tiny_model

FAMILIES = [*TEXT_FAMILIES, *IMAGE_FAMILIES]
#: Prefix of a block's keys, written out by hand.
BLOCK = {
    "bert": "bert.encoder.layer.{}.",
    "roberta": "roberta.encoder.layer.{}.",
    "electra": "electra.encoder.layer.{}.",
    "distilbert": "distilbert.transformer.layer.{}.",
    "vit": "vit.layers.{}.",
    "deit": "deit.layers.{}.",
}


def logits(model, family):
    batch = tiny_images() if family in IMAGE_FAMILIES else tiny_batch()
    with torch.no_grad():
        return model.eval()(**model_inputs(model, batch)).logits


@pytest.mark.parametrize("family", BLOCK)
def test_layer_subset_copies_exactly_the_chosen_blocks_and_everything_around_them(family):
    teacher = tiny_model(family, layers=6)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = LayerSubset([0, 3, 5]).build(lambda: teacher, 3)
    state, moved = student.state_dict(), 0
    for position, block in enumerate([0, 3, 5]):
        there, here = BLOCK[family].format(block), BLOCK[family].format(position)
        for name in [n for n in before if n.startswith(there)]:
            assert torch.equal(state[here + name.removeprefix(there)], before[name]), name
            moved += 1
    around = [n for n in before if not any(n.startswith(BLOCK[family].format(i)) for i in range(6))]
    for name in around:
        assert torch.equal(state[name], before[name]), name
    assert moved > 30 and len(state) == moved + len(around)
    # the student is its own: training it leaves the teacher alone
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_subset_of_all_layers_is_the_teacher(family):
    teacher = tiny_model(family)
    student = LayerSubset([0, 1, 2, 3]).build(lambda: teacher, 3)
    assert type(student) is type(teacher) and student.training
    assert torch.equal(logits(student, family), logits(teacher, family))


def test_an_albert_student_repeats_the_shared_block_less_often():
    teacher = tiny_model("albert", layers=4)
    student = LayerSubset("first_k", 2).build(lambda: teacher, 3)
    assert describe(student).num_layers == 2
    assert torch.equal(
        student.albert.encoder.albert_layer_groups[0].albert_layers[0].ffn.weight,
        teacher.albert.encoder.albert_layer_groups[0].albert_layers[0].ffn.weight,
    )


def test_a_student_of_a_running_teacher_trains_in_float32_with_sdpa():
    teacher = tiny_bert().eval().requires_grad_(False).to(torch.bfloat16)
    prepare_capture(teacher, Capture(attention_scores=frozenset({1})))
    student = LayerSubset("every_other").build(lambda: teacher, 3)
    assert student.training and all(
        p.requires_grad and p.dtype == torch.float32 for p in student.parameters()
    )
    assert student.config._attn_implementation == "sdpa"


def test_the_head_is_copied_only_where_it_fits():
    teacher = tiny_bert(labels=3)
    assert torch.equal(LayerSubset().build(lambda: teacher, 3).classifier.weight, teacher.classifier.weight)
    student = LayerSubset().build(lambda: teacher, 5, list("abcde"))
    assert student.classifier.weight.shape == (5, 32)
    assert torch.equal(student.bert.pooler.dense.weight, teacher.bert.pooler.dense.weight)
    assert student.config.id2label == dict(enumerate("abcde"))
    score = LayerSubset().build(lambda: teacher, 1, is_regression=True)
    assert score.config.problem_type == "regression"


def test_layers_can_come_from_another_model(tmp_path):
    source = tiny_bert(seed=7)
    source.bert.save_pretrained(tmp_path)
    student = LayerSubset("last_k", 1, source=str(tmp_path)).build(
        lambda: pytest.fail("teacher was loaded"), 2
    )
    assert torch.equal(
        student.bert.encoder.layer[0].output.dense.weight, source.bert.encoder.layer[3].output.dense.weight
    )


def test_from_config_counts_its_parameters():
    student = FromConfig(
        num_hidden_layers=2, hidden_size=16, num_attention_heads=2, vocab_size=50
    ).build(lambda: tiny_bert(), 3)  # fmt: skip
    h, f = 16, 64
    block = 4 * (h * h + h) + 2 * 2 * h + (h * f + f) + (f * h + h)
    embeddings = (50 + 130 + 2) * h + 2 * h
    assert sum(p.numel() for p in student.parameters()) == embeddings + 2 * block + (h * h + h) + (3 * h + 3)
    assert student.training and describe(student).head_dim == 8


def test_from_config_weights_are_random_and_seeded():
    def weight(seed):
        torch.manual_seed(seed)
        return FromConfig(num_hidden_layers=2).build(lambda: tiny_bert(), 3).bert.pooler.dense.weight

    assert torch.equal(weight(1), weight(1)) and not torch.equal(weight(1), weight(2))
    assert not torch.equal(weight(1), tiny_bert().bert.pooler.dense.weight)


def test_from_config_of_another_family(tmp_path):
    student = FromConfig(
        model_type="distilbert",
        num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=24,
        vocab_size=60,
    ).build(None, 4)  # fmt: skip
    assert describe(student).family == "distilbert" and student.training
    assert student.distilbert.transformer.layer[0].ffn.lin1.weight.shape == (24, 16)
    tiny_model("electra").save_pretrained(tmp_path)
    narrow = FromConfig(source=str(tmp_path), num_hidden_layers=1).build(None, 2)
    assert describe(narrow).family == "electra" and describe(narrow).num_layers == 1


def test_students_of_half_precision_files_are_float32(tmp_path):
    tiny_bert().half().save_pretrained(tmp_path)
    for factory in (
        FromConfig(source=str(tmp_path)),
        LayerSubset(source=str(tmp_path)),
        Pretrained(str(tmp_path)),
    ):
        assert {p.dtype for p in factory.build(None, 3).parameters()} == {torch.float32}


def test_pretrained_is_the_model_itself(tmp_path):
    model = tiny_bert(layers=2)
    model.save_pretrained(tmp_path)
    student = Pretrained(str(tmp_path)).build(None, 3)
    assert student.training and torch.equal(logits(student, "bert"), logits(model, "bert"))


@pytest.mark.parametrize(
    "config",
    [
        {"class_path": "LayerSubset"},
        {"class_path": "LayerSubset", "init_args": {"layers": [0, 2]}},
        {"class_path": "FromConfig", "init_args": {"model_type": "bert", "hidden_size": 16}},
        {"class_path": "Pretrained", "init_args": {"name": "a/b"}},
    ],
)
def test_factories_survive_yaml(config):
    parser = ArgumentParser()
    parser.add_argument("--student", type=StudentFactory)
    parsed = parser.parse_object({"student": config})
    again = parser.parse_string(parser.dump(parsed))
    assert again == parsed
    assert type(parser.instantiate_classes(again).student).__name__ == config["class_path"]


def test_refuses_a_layer_subset_of_nothing():
    with pytest.raises(ValueError, match=r"teacher or a source to take layers from.*init_args\.source"):
        LayerSubset().build(None, 2)


def test_refuses_albert_groups():
    config = AlbertConfig(
        vocab_size=50, embedding_size=8, hidden_size=16, num_attention_heads=2, intermediate_size=16,
        num_hidden_layers=4, num_hidden_groups=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"ALBERT with one group .* but got 2 groups"):
        LayerSubset().build(lambda: AlbertForSequenceClassification(config), 2)


def test_refuses_a_config_of_nothing():
    with pytest.raises(ValueError, match=r"no teacher, source or\s+model_type"):
        FromConfig(num_hidden_layers=2).build(None, 2)


def test_refuses_source_and_model_type_together():
    with pytest.raises(ValueError, match=r"source or model_type but got both \('a/b', 'bert'\)"):
        FromConfig(source="a/b", model_type="bert")


def test_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match=r"multiple of num_attention_heads but got 18 and 4"):
        FromConfig(hidden_size=18).build(lambda: tiny_bert(), 3)


def test_refuses_sizes_that_are_not_positive():
    with pytest.raises(ValueError, match=r"positive sizes but got num_hidden_layers=0"):
        FromConfig(num_hidden_layers=0)


def test_refuses_an_unknown_model_type():
    with pytest.raises(ValueError, match=r"model_type that transformers knows.*but got 'brt'"):
        FromConfig(model_type="brt").build(None, 2)
