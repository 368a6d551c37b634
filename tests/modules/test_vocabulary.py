import pytest

from lit_compress.models import Teacher
from tests.modules.build import RECIPES, data_module, distillation, trainer
from tests.tiny import WORDS, tiny_bert, tiny_tokenizer


def test_refuses_a_student_with_too_few_embeddings(task, tmp_path):
    module = distillation(task, RECIPES["soft"](), student=tiny_bert(layers=2, labels=2, vocab=60))
    with pytest.raises(
        ValueError, match="at most 60 tokens, the embeddings of the student, but data.tokenizer has 100"
    ):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task))


def test_refuses_a_teacher_with_another_vocabulary_of_the_same_size(task, tmp_path):
    tiny_tokenizer(tmp_path / "teacher", words=WORDS[::-1])
    tiny_bert(layers=4, labels=2).save_pretrained(tmp_path / "teacher")
    module = distillation(task, RECIPES["soft"](), teacher=Teacher(str(tmp_path / "teacher")))
    with pytest.raises(ValueError, match="another vocabulary.*set data.teacher_tokenizer="):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task))


def test_two_tokenizers_are_accepted_where_they_belong(task, tmp_path):
    tiny_tokenizer(tmp_path / "teacher", words=WORDS[::-1])
    tiny_bert(layers=4, labels=2).save_pretrained(tmp_path / "teacher")
    folder = str(tmp_path / "teacher")
    module = distillation(
        task, RECIPES["soft"](), teacher=Teacher(folder), student=tiny_bert(layers=2, labels=2, seed=1)
    )
    fit = trainer(tmp_path, max_steps=2)
    fit.fit(module, data_module(task, teacher_tokenizer=folder))
    assert fit.global_step == 2


def test_refuses_token_objectives_with_two_tokenizers(task, tmp_path):
    tiny_tokenizer(tmp_path / "teacher", words=WORDS[::-1])
    tiny_bert(layers=4, labels=2).save_pretrained(tmp_path / "teacher")
    folder = str(tmp_path / "teacher")
    module = distillation(task, RECIPES["tinybert"](), teacher=Teacher(folder))
    with pytest.raises(ValueError, match="data.teacher_tokenizer is set.*objectives.hidden.*token by token"):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task, teacher_tokenizer=folder))
