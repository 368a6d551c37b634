import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lit_compress.models import LayerSubset, Teacher
from lit_compress.modules import Distillation, Regression
from lit_compress.objectives import HardLabels, SoftTargets, TinyBERTHidden
from lit_compress.schedules import Switch
from tests.modules.build import RECIPES, data_module, distillation, trainer
from tests.tiny import tiny_bert


@pytest.mark.parametrize("name", RECIPES)
def test_teacher_stays_frozen_and_outside(name, task, tmp_path):
    module = distillation(task, RECIPES[name]())
    fit = trainer(tmp_path, max_steps=3)
    fit.fit(module, data_module(task))
    module.train()
    teacher = module._teacher.model
    reference = tiny_bert(layers=4, labels=2, dropout=0.1).state_dict()
    assert all(torch.equal(value, reference[key]) for key, value in teacher.state_dict().items())
    assert not teacher.training and not any(m.training for m in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert not [key for key in module.state_dict() if "teacher" in key]
    owned = {id(p) for g in fit.optimizers[0].param_groups for p in g["params"]}
    assert owned == {id(p) for p in module.parameters()}


def test_no_teacher_in_the_checkpoint(task, tmp_path):
    module = distillation(task, RECIPES["soft"]())
    fit = trainer(tmp_path, max_steps=1)
    fit.fit(module, data_module(task))
    fit.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    student = sum(p.numel() for p in module.student.parameters())
    assert sum(v.numel() for v in checkpoint["state_dict"].values()) <= student + 10


def test_loss_is_the_weighted_sum_by_hand(task, tmp_path):
    """One step against plain torch: 0.3 CE + 0.7 T² KL on the same batch."""
    student = LayerSubset("every_other", depth=2)
    module = distillation(
        task, {"hard": HardLabels(0.3), "soft": SoftTargets(0.7, temperature=2.0)}, student=student
    )
    seen = {}

    original = module.training_step

    def record(batch, batch_idx):
        module.student.eval()  # no dropout, so that the step can be repeated
        loss = original(batch, batch_idx)
        with torch.no_grad():
            inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}
            s = module.student(**inputs).logits.double()
            t = module._teacher.model(**inputs).logits.double()
            p, q = (t / 2).softmax(-1), (s / 2).softmax(-1)
            kl = (p * (p.log() - q.log())).sum(-1).mean()
            ce = -s.log_softmax(-1)[torch.arange(len(s)), batch["labels"]].mean()
        seen["pair"] = (loss.item(), (0.3 * ce + 0.7 * 4 * kl).item())
        return loss

    module.training_step = record
    trainer(tmp_path, max_steps=1).fit(module, data_module(task))
    assert seen["pair"][0] == pytest.approx(seen["pair"][1], rel=1e-5)


def test_tinybert_stages_switch_in_one_run(task, tmp_path):
    module = distillation(task, RECIPES["tinybert"]())
    logged: list[dict[str, float]] = []
    heads: list[torch.Tensor] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            logged.append({k: float(v) for k, v in trainer.logged_metrics.items() if k.startswith("train/")})
            heads.append(pl_module.student.classifier.bias.detach().clone())

    trainer(tmp_path, max_epochs=2, callbacks=[Watch()]).fit(module, data_module(task))
    steps = len(logged) // 2
    assert {"train/embedding", "train/hidden", "train/attention"} <= logged[0].keys()
    assert "train/prediction" not in logged[steps - 1]
    # The trainer keeps showing the last value of a metric that is no longer logged.
    for key in ("train/embedding", "train/hidden", "train/attention"):
        assert len({row[key] for row in logged[:steps]}) > 1
        assert len({row[key] for row in logged[steps:]}) == 1
    assert len({row["train/prediction"] for row in logged[steps:]}) > 1
    assert torch.equal(heads[0], heads[steps - 1])  # the head's bias waits for its stage
    assert not torch.equal(heads[steps - 1], heads[-1])


def test_projections_are_trained_and_not_in_the_student(task, tmp_path):
    from lit_compress.models import FromConfig

    torch.manual_seed(0)
    module = distillation(
        task,
        {"hidden": TinyBERTHidden(1.0)},
        student=FromConfig(num_hidden_layers=2, hidden_size=16, num_attention_heads=4),
        projection_lr=0.01,
    )
    fit = trainer(tmp_path, max_steps=2)
    module.trainer = fit
    before = None

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            nonlocal before
            before = {k: v.detach().clone() for k, v in pl_module.objectives.named_parameters()}

    fit.callbacks.append(Watch())
    fit.fit(module, data_module(task))
    after = dict(module.objectives.named_parameters())
    assert before and all(not torch.equal(before[k], after[k]) for k in before)
    assert {g["initial_lr"] for g in fit.optimizers[0].param_groups} == {0.001, 0.01}
    assert not [k for k in module.student.state_dict() if "projection" in k or "objective" in k]


def test_reloads_from_its_checkpoint_in_plain_python(task, tmp_path):
    module = distillation(task, RECIPES["soft"]())
    fit = trainer(tmp_path, max_steps=2)
    data = data_module(task)
    fit.fit(module, data)
    fit.save_checkpoint(tmp_path / "x.ckpt")
    again = Distillation.load_from_checkpoint(
        tmp_path / "x.ckpt",
        weights_only=True,
        student=LayerSubset("every_other", depth=2),
        teacher=Teacher(str(task / "teacher")),
        objectives=RECIPES["soft"](),
    )
    for key, value in module.student.state_dict().items():
        assert torch.equal(value, again.student.state_dict()[key])


def test_logged_metric_equals_the_reloaded_checkpoint(task, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    keep = ModelCheckpoint(dirpath=tmp_path, monitor="val/accuracy", mode="max", filename="best")
    module = distillation(task, RECIPES["soft"]())
    fit = trainer(tmp_path, max_epochs=3, enable_checkpointing=True, callbacks=[keep])
    fit.fit(module, data_module(task))
    (again,) = trainer(tmp_path).validate(
        distillation(task, RECIPES["soft"]()), data_module(task), ckpt_path=keep.best_model_path
    )
    assert again["val/accuracy"] == pytest.approx(float(keep.best_model_score), abs=1e-7)


def test_predict_gives_ids_and_predictions(task, tmp_path):
    data = data_module(task)
    module = distillation(task, RECIPES["soft"]())
    rows = trainer(tmp_path).predict(module, data)
    ids = torch.cat([r["example_id"] for r in rows])
    assert sorted(ids.tolist()) == list(range(40))
    assert all(torch.equal(r["prediction"], r["logits"].argmax(-1)) for r in rows)


def test_bf16_mixed_runs_and_losses_are_float32(task, tmp_path):
    module = distillation(task, RECIPES["distilbert"]())
    fit = trainer(tmp_path, max_steps=2, precision="bf16-mixed")
    fit.fit(module, data_module(task))
    assert fit.logged_metrics["train/soft"].dtype == torch.float32


def test_accumulation_equals_the_larger_batch(task, tmp_path):
    def fit(batch_size, accumulate):
        torch.manual_seed(0)
        module = distillation(
            task, RECIPES["distilbert"](), teacher=Teacher(str(task / "teacher"), precision="fp32")
        )
        run = trainer(tmp_path, max_steps=3, accumulate_grad_batches=accumulate)

        class NoDropout(Callback):
            def on_train_start(self, trainer, pl_module):
                for m in pl_module.modules():
                    if isinstance(m, nn.Dropout):
                        m.p = 0.0
                pl_module.student.config.attention_probs_dropout_prob = 0.0
                for m in pl_module.student.modules():
                    if hasattr(m, "dropout") and isinstance(m.dropout, float):
                        m.dropout = 0.0

        run.callbacks.append(NoDropout())
        # One pool, no buckets: the micro-batches are exactly the halves of the larger batches.
        run.fit(module, data_module(task, batch_size=batch_size, bucket_pool=0))
        return module.student.state_dict()

    whole, halves = fit(16, 1), fit(8, 2)
    # The softmax does not see a key bias: its gradient is rounding noise, which Adam scales up to full steps.
    for key in (k for k in whole if not k.endswith("key.bias")):
        torch.testing.assert_close(
            whole[key], halves[key], rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}"
        )


def test_refuses_no_objectives(task):
    with pytest.raises(ValueError, match="at least one objective"):
        distillation(task, {})


def test_refuses_an_objective_named_loss(task):
    with pytest.raises(ValueError, match="another name than 'loss'"):
        distillation(task, {"loss": HardLabels()})


def test_refuses_a_student_in_eval_mode(task, tmp_path):
    module = distillation(task, RECIPES["soft"](), student=tiny_bert(layers=2, labels=2).eval())
    module.build_student = lambda: module._student_source
    with pytest.raises(ValueError, match=r"in train mode.*call .train\(\)"):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task))


def test_refuses_a_teacher_with_other_labels(task, tmp_path):
    tiny_bert(layers=4, labels=5).save_pretrained(tmp_path / "teacher5")
    module = distillation(task, RECIPES["soft"](), teacher=Teacher(str(tmp_path / "teacher5")))
    with pytest.raises(ValueError, match="student's 2 labels but .*teacher5 has 5"):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task))


def test_refuses_regression_on_classes(task, tmp_path):
    module = distillation(task, RECIPES["soft"](), task=Regression())
    with pytest.raises(
        ValueError, match="task: Classification for the labels of the data but got task: Regression"
    ):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task))


def test_refuses_num_labels_that_the_data_do_not_have(task, tmp_path):
    module = distillation(task, RECIPES["soft"](), num_labels=7)
    with pytest.raises(ValueError, match="num_labels=2, as the data has, but got num_labels=7"):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task))


def test_refuses_a_moment_without_objectives(task, tmp_path):
    module = distillation(task, {"soft": SoftTargets(Switch(1, 0.0, 1.0))})
    with pytest.raises(ValueError, match="at least one objective with a weight at epoch 0.00"):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task))


def test_refuses_an_endless_fit(task, tmp_path):
    module = distillation(task, RECIPES["soft"]())
    with pytest.raises(ValueError, match="a fit with an end"):
        trainer(tmp_path, max_epochs=-1, max_steps=-1).fit(module, data_module(task))


def test_error_names_the_objective_that_does_not_fit(task, tmp_path):
    tiny_bert(layers=4, labels=2, heads=2).save_pretrained(tmp_path / "teacher")
    module = distillation(
        task,
        {"att": RECIPES["tinybert"]()["attention"]},
        teacher=Teacher(str(tmp_path / "teacher")),
        student=tiny_bert(layers=2, labels=2, heads=4),
    )
    with pytest.raises(ValueError, match=r"objectives.att \(TinyBERTAttention\)"):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task))


def test_refuses_a_cache_without_a_data_module(task, tmp_path):
    data = data_module(task)
    module = distillation(
        task,
        RECIPES["soft"](),
        teacher=Teacher(str(task / "teacher"), cache=str(tmp_path / "c")),
        num_labels=2,
    )
    data.prepare_data()
    with pytest.raises(ValueError, match="data module with stable example ids for teacher.cache"):
        trainer(tmp_path, max_steps=1).fit(module, data.train_dataloader())


def test_frozen_parameters_stay_and_the_rest_moves(task, tmp_path):
    module = distillation(task, RECIPES["soft"](), freeze=["word_embeddings"])
    trainer(tmp_path, max_steps=2).fit(module, data_module(task))
    start = tiny_bert(layers=4, labels=2, dropout=0.1).state_dict()
    after = module.student.state_dict()
    assert torch.equal(
        after["bert.embeddings.word_embeddings.weight"], start["bert.embeddings.word_embeddings.weight"]
    )
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(after[name], start[name])


def test_refuses_to_freeze_what_is_not_there(task, tmp_path):
    module = distillation(task, RECIPES["soft"](), freeze=["word_embedings"])
    with pytest.raises(ValueError, match="freeze to match parameters.*'word_embedings' is in no name"):
        trainer(tmp_path, max_steps=1).fit(module, data_module(task))
