"""Real data, tiny random models: two tokenizers in Russian, pairs of sentences, similarity scores."""

import json
import math

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lit_compress.data import Files, TextClassificationDataModule
from lit_compress.models import FromConfig, LayerSubset, Teacher
from lit_compress.modules import AdamW, Distillation, Regression
from lit_compress.objectives import PKD, HardLabels, LogitMSE, SoftTargets, TinyBERTHidden
from tests.modules.build import trainer
from tests.tiny import tiny_bert


def train_tokenizer(folder, texts, size):
    """Save a WordPiece tokenizer of at most ``size`` tokens trained on texts; return its size."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fit(data, folder, objectives, student, task=None):
    """Take six steps; return the module, its metrics and its predictions of some validation rows."""
    torch.manual_seed(0)
    module = Distillation(
        student=student,
        teacher=Teacher(data.teacher_tokenizer or data.tokenizer, precision="fp32"),
        objectives=objectives,
        task=task,
        optimizer=AdamW(lr=1e-3),
    )
    run = trainer(folder, limit_train_batches=6, limit_val_batches=4, num_sanity_val_steps=0)
    run.fit(module, data)
    metrics = {key: float(value) for key, value in run.callback_metrics.items()}
    assert all(math.isfinite(value) for value in metrics.values())
    assert {f"train/{name}" for name in objectives} <= metrics.keys()
    with torch.inference_mode():
        logits = module.eval()(next(iter(data.val_dataloader())))
    # A model that does not look at its input gives all rows the same answer.
    assert logits.std(dim=0).min() > 1e-3
    return module, metrics, logits


class Data(TextClassificationDataModule):
    """A data module that remembers how its tokenizers are called."""

    def __init__(self, source, tokenizer, teacher_tokenizer=None, **options):
        super().__init__(
            source, str(tokenizer), teacher_tokenizer=teacher_tokenizer, batch_size=16, **options
        )
        self.tokenizer, self.teacher_tokenizer = str(tokenizer), teacher_tokenizer


# -- Russian, two tokenizers -----------------------------------------------------------------------

LABELS = ["negative", "neutral", "positive", "skip", "speech"]


@pytest.fixture(scope="module")
def russian(tmp_path_factory):
    return tmp_path_factory.mktemp("russian")


@pytest.fixture
def tweets(shared_data, russian):
    """Folder with a teacher of 3,000 tokens, and a student's tokenizer of 600 on other texts."""
    source = shared_data("rusentitweet")
    if not (russian / "student").exists():
        texts = [row["text"] for row in rows_of(source / "train.jsonl")]
        size = train_tokenizer(russian / "teacher", texts[:4000], 3000)
        assert size > 2500
        tiny_bert(layers=4, vocab=size, labels=5, dropout=0.1).save_pretrained(russian / "teacher")
        assert train_tokenizer(russian / "student", texts[4000:6000], 600) <= 600
    return source


def tweet_data(source, russian):
    files = Files(folder=str(source), train="train.jsonl", validation="test.jsonl")
    return Data(
        files,
        russian / "student",
        str(russian / "teacher"),
        text="text",
        limit_train=512,
        max_length=64,
        cache_dir=str(russian / "cache"),
    )


def small_student(**sizes):
    return FromConfig(num_hidden_layers=2, vocab_size=600, **sizes)


def test_russian_student_with_its_own_smaller_vocabulary(tweets, russian, tmp_path):
    data = tweet_data(tweets, russian)
    batch = next(iter(data.train_dataloader()))
    assert batch["teacher_input_ids"].max() >= 600 > batch["input_ids"].max()
    # Fewer tokens in the vocabulary, more in a text.
    assert batch["attention_mask"].sum() > batch["teacher_attention_mask"].sum()
    objectives = {"hard": HardLabels(0.5), "soft": SoftTargets(0.5), "pkd": PKD(1.0)}
    module, metrics, logits = fit(data, tmp_path, objectives, small_student())
    assert logits.shape == (32, 5)
    assert module.label_names == data.label_names == LABELS
    assert module.student.config.vocab_size == 600
    assert "val/accuracy" in metrics


def test_refuses_token_by_token_objectives_with_two_tokenizers(tweets, russian, tmp_path):
    message = "objectives.hidden compare token by token; keep SoftTargets, LogitMSE, HardLabels"
    objectives = {"soft": SoftTargets(0.5), "hidden": TinyBERTHidden(1.0)}
    with pytest.raises(ValueError, match=message):
        fit(tweet_data(tweets, russian), tmp_path, objectives, small_student())


# -- pairs -----------------------------------------------------------------------------------------


def pair_teacher(folder, rows, **options):
    """Save a teacher with a tokenizer trained on pairs of sentences."""
    texts = [row[key] for row in rows for key in ("sentence1", "sentence2")]
    size = train_tokenizer(folder, texts, 1500)
    tiny_bert(layers=4, vocab=size, **options).save_pretrained(folder)
    return folder


def pair_data(source, teacher, label, cache):
    files = Files(folder=str(source), train="train.jsonl", validation="dev.jsonl", test="test.jsonl")
    text = ["sentence1", "sentence2"]
    return Data(files, teacher, text=text, label=label, limit_train=512, cache_dir=str(cache))


def test_mrpc_pairs(shared_data, tmp_path):
    source = shared_data("mrpc")
    teacher = pair_teacher(tmp_path / "teacher", rows_of(source / "train.jsonl")[:1500], labels=2)
    data = pair_data(source, teacher, "label", tmp_path / "cache")
    batch = next(iter(data.train_dataloader()))
    # Both sentences are there, the second under its own type, and the order of the two matters.
    separators = (batch["input_ids"] == 3).sum(dim=1)
    assert separators.tolist() == [2] * len(separators)
    assert (batch["token_type_ids"].sum(dim=1) > 0).all()
    objectives = {"hard": HardLabels(0.5), "soft": SoftTargets(0.5), "pkd": PKD(10.0)}
    module, metrics, _ = fit(data, tmp_path, objectives, LayerSubset("every_other", depth=2))
    assert {"val/accuracy", "val/f1", "val/mcc"} <= metrics.keys()
    swapped = dict(batch, token_type_ids=torch.zeros_like(batch["token_type_ids"]))
    with torch.inference_mode():
        assert not torch.allclose(module(batch), module(swapped))


# -- scores ----------------------------------------------------------------------------------------


@pytest.fixture
def similarity(shared_data, tmp_path):
    source = shared_data("stsb_en")
    teacher = pair_teacher(tmp_path / "teacher", rows_of(source / "train.jsonl")[:1500], regression=True)
    return pair_data(source, teacher, "score", tmp_path / "cache")


def test_similarity_scores_with_logit_mse(similarity, tmp_path):
    student = LayerSubset("every_other", depth=2)
    objectives = {"hard": HardLabels(0.5), "logits": LogitMSE(0.5)}
    _, metrics, logits = fit(similarity, tmp_path, objectives, student, Regression())
    assert logits.shape == (32, 1)
    assert {"val/pearson", "val/spearman", "val/mse"} <= metrics.keys()
    assert similarity.is_regression and similarity.num_labels == 1


def test_refuses_soft_targets_of_a_single_score(similarity, tmp_path):
    with pytest.raises(ValueError, match=r"objectives\.soft \(SoftTargets\).*LogitMSE"):
        fit(similarity, tmp_path, {"soft": SoftTargets(1.0)}, LayerSubset("every_other"), Regression())


def test_refuses_a_classification_of_scores(similarity, tmp_path):
    with pytest.raises(ValueError, match="Expected task: Regression for the labels of the data"):
        fit(similarity, tmp_path, {"logits": LogitMSE(1.0)}, LayerSubset("every_other"))
