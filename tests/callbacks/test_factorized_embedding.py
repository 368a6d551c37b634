"""Students with a factorised word embedding: what is frozen, pruned, rounded and shipped."""

import pytest
import torch

import lit_compress
from lit_compress.callbacks import QAT, L0Pruning, ModelFolder
from lit_compress.callbacks.checkpoint import BestAndLast
from lit_compress.models import LayerSubset, Pretrained, Teacher
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.rebuild import rebuild_student
from lit_compress.models.transforms import transforms_of
from lit_compress.modules import AdamW, Distillation
from lit_compress.objectives import LayerMatch, SoftTargets, TinyBERTEmbedding
from lit_compress.pruning.factorize_embedding import factorize_embedding
from lit_compress.pruning.target import Target
from lit_compress.quantization.fake_weights import fake_weights_of
from lit_compress.quantization.inputs import input_quantizers_of
from lit_compress.quantization.packed import packed_of
from tests.callbacks.conftest import data_module
from tests.quantization.test_fake_model import batch, logits, trained
from tests.tiny import tiny_bert

RANK = 8
EMBEDDING = "bert.embeddings.word_embeddings"


@pytest.fixture
def start(texts, tmp_path):
    model = lit_compress.load(texts / "teacher" / "model")
    factorize_embedding(model, RANK)
    return save_folder(tmp_path / "start", model, None, {})


def distillation(texts, start, freeze=None):
    return Distillation(
        # The second and the third read the hidden states, those of the embedding among them.
        objectives={"soft": SoftTargets(1.0), "words": TinyBERTEmbedding(1.0), "layers": LayerMatch(1.0)},
        teacher=Teacher(str(texts / "teacher" / "model"), precision="fp32"),
        student=Pretrained(str(start)),
        optimizer=AdamW(lr=1e-2),
        num_labels=2,
        freeze=freeze,
    )


def fit(texts, start, make_trainer, *callbacks, freeze=None):
    module = distillation(texts, start, freeze)
    # Lightning's own checkpoint would take one from before the rounding.
    keep = BestAndLast(
        start.parent / "run" / "checkpoints",
        monitor="val/accuracy",
        mode="max",
        filename="best",
        save_last=True,
    )
    trainer = make_trainer(ModelFolder(), *callbacks, keep, checkpoint=False)
    trainer.fit(module, data_module(texts))
    return module, trainer, lit_compress.load(start.parent / "run" / "model")


@pytest.mark.parametrize(
    ("freeze", "learns"), [(None, (True, True)), ("table", (False, True)), ("", (False, False))]
)
def test_the_table_can_be_frozen_alone(freeze, learns, texts, start, make_trainer):
    parts = None if freeze is None else [f"word_embeddings.{freeze}".rstrip(".")]
    _, _, shipped = fit(texts, start, make_trainer, freeze=parts)
    before, after = lit_compress.load(start).state_dict(), shipped.state_dict()
    changed = [
        not torch.equal(before[f"{EMBEDDING}.{part}.weight"], after[f"{EMBEDDING}.{part}.weight"])
        for part in ("table", "expand")
    ]
    assert tuple(changed) == learns
    assert transforms_of(shipped) == [["factorized_embedding", {"rank": RANK}]]


def test_pruned_with_hidden_dimensions_and_rounded(texts, start, make_trainer):
    """What is shipped computes what the checkpoint does, in few bits, with both factors."""
    pruning = L0Pruning(
        structures=["hidden"],
        target=Target(sparsity=0.5),
        evaluation="expected",
        freeze_at=0.4,
        gate_lr=1.0,
    )
    _, trainer, shipped = fit(texts, start, make_trainer, pruning, QAT(quantize_at=0.4, freeze_at=0.5))
    checkpoint = rebuild_student(trainer.checkpoint_callback.best_model_path)
    assert {name for name, _ in fake_weights_of(checkpoint)} >= {
        f"{EMBEDDING}.table.weight",
        f"{EMBEDDING}.expand.weight",
    }
    assert (logits(shipped) - logits(checkpoint)).abs().max() < 1e-5
    stored = {name: packed.values.shape for name, packed in packed_of(shipped)}
    left = shipped.bert.embeddings.LayerNorm.normalized_shape[0]
    assert left < 32
    assert stored[f"{EMBEDDING}.table.weight"] == (100, RANK)
    assert stored[f"{EMBEDDING}.expand.weight"] == (left, RANK)
    names = [name for name, _ in transforms_of(shipped)]
    assert names == ["factorized_embedding", "shape", "packed_weights", "input_quantizers"]


def test_a_student_of_its_layers_learns_from_a_narrow_teacher(texts, start, make_trainer):
    module = distillation(texts, start)
    module._student_source = LayerSubset([0, 3], source=str(start))
    make_trainer(checkpoint=False, max_epochs=1).fit(module, data_module(texts))
    assert module.student.get_input_embeddings().table.weight.shape == (100, RANK)


@pytest.mark.parametrize("kind", ["int8", "int4 groups", "uint4"])
def test_what_is_loaded_computes_what_was_trained(kind, tmp_path):
    from lit_compress.callbacks.student import deployable
    from tests.quantization.test_fake_model import SETTINGS

    model = tiny_bert(layers=2)
    factorize_embedding(model, RANK)
    model = trained(model, {} if kind == "int8" else SETTINGS[kind])
    assert f"{EMBEDDING}.expand" in dict(input_quantizers_of(model))
    folder = save_folder(tmp_path / "x", deployable(model), None, {})
    assert torch.equal(logits(lit_compress.load(folder)), logits(model))


def test_the_state_at_the_embedding_is_that_of_the_product():
    model = tiny_bert(layers=2).eval()
    factorize_embedding(model, RANK)
    dense = tiny_bert(layers=2).eval()
    with torch.no_grad():
        dense.get_input_embeddings().weight.copy_(model.get_input_embeddings().weight)
        states, wanted = (m(**batch(), output_hidden_states=True).hidden_states for m in (model, dense))
    assert len(states) == 3
    for one, other in zip(states, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
