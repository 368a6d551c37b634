"""Fits with weight clustering: when it begins, resume, what is shipped, and its metric."""

import json

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import lit_compress
from lit_compress.callbacks import ModelFolder, Pruning, WeightClustering
from lit_compress.callbacks.student import deployable
from lit_compress.models import Pretrained
from lit_compress.models.rebuild import rebuild_student
from lit_compress.modules import AdamW, FineTuning
from lit_compress.pruning.target import Target
from lit_compress.quantization.clustering.clustered_weights import clustered_weights_of
from lit_compress.quantization.clustering.codebook import blocks_of
from lit_compress.quantization.clustering.codebook_weights import codebooks_of
from lit_compress.schedules import Progress
from tests.callbacks.conftest import data_module
from tests.callbacks.foreign import Foreign, fit
from tests.callbacks.test_pruning_resume import same
from tests.tiny import tiny_bert

KINDS = {
    "float32": {},
    "hybrid with zeros": {"centroid_bits": 8, "keep_zeros": True, "init": "density"},
    "blocks": {"rows": 4, "embedding_rows": 8, "clusters": 4, "entropy": True},
}


def module(student):
    return FineTuning(student, optimizer=AdamW(lr=1e-2), num_labels=2, method="clusters")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("killed", [1, 5])
def test_killed_and_resumed_is_bit_identical(kind, killed, tmp_path):
    # Of 8 steps: before clustering begins, and after.
    settings = {"cluster_at": 0.25, "centroid_lr": 1e-3, **KINDS[kind]}
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=killed, save_top_k=-1, filename="{step}")
    whole_callback, again_callback = WeightClustering(**settings), WeightClustering(**settings)
    whole = fit([whole_callback, keep], tmp_path)
    again = fit([again_callback], tmp_path, resume=tmp_path / f"step={killed}.ckpt")
    assert same(whole.state_dict(), again.state_dict())
    assert same(whole_callback.state_dict(), again_callback.state_dict())
    assert all(step.rounds for _, step in clustered_weights_of(again.net))


def test_clustering_begins_when_it_should():
    model = tiny_bert(layers=1)
    callback = WeightClustering(cluster_at=0.3, clusters=4)
    callback.apply(model)
    (_, step), *_ = clustered_weights_of(model)
    found = []
    for number in range(10):
        progress = Progress(number, 10, 0.0)
        callback.move(model, progress)
        found.append(step.rounds)
        assert callback.settled(progress) == step.rounds
        assert callback.figures(model)["compress/clusters"] == float(step.rounds)
    assert found == [False] * 3 + [True] * 7
    bits = callback.figures(model)["compress/weight_bits"]
    assert 2 < bits < 4  # projections have two, embeddings four


def test_centroids_and_weights_are_trained_and_few_values_are_left(tmp_path):
    callback = WeightClustering(clusters=8, embedding_clusters=8, cluster_at=0.0, centroid_lr=1e-2)
    starts = {}
    callback.move = lambda model, progress, move=callback.move: (
        move(model, progress),
        starts or starts.update({name: step.centroids.clone() for name, step in clustered_weights_of(model)}),
    )
    fitted = fit([callback], tmp_path)
    for name, step in clustered_weights_of(fitted.net):
        weight = fitted.net.get_submodule(name.rpartition(".")[0]).weight
        assert all(len(block.unique()) <= 8 for block in blocks_of(weight, step.codebook.rows)), name
        moved = (step.centroids - starts[name]).abs()
        # Eight steps of Adam with this rate: no further, however large a cluster and its sum are.
        assert moved.max() < 8.5e-2, name
        assert moved.max() > 1e-4 or "token_type" in name or "position" in name, name
    own = {id(p) for group in fitted.trainer.optimizers[0].param_groups for p in group["params"]}
    assert not any(id(step.centroids) in own for _, step in clustered_weights_of(fitted.net))


def test_the_folder_computes_what_the_best_checkpoint_does(data, texts, make_trainer, tmp_path):
    trainer = make_trainer(WeightClustering(cluster_at=0.3, centroid_bits=8), ModelFolder())
    trainer.fit(module(tiny_bert(labels=2, dropout=0.1)), data)
    best = trainer.checkpoint_callback.best_model_path
    folder = tmp_path / "run" / "model"
    loaded = lit_compress.load(folder)
    assert len(list(codebooks_of(loaded))) > 20
    data.setup("validate")
    rows = next(iter(data.val_dataloader()))
    rows = {name: rows[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(loaded(**rows).logits, rebuild_student(best)(**rows).logits)
    # Contract 5: the logged metric is that of the folder.
    logged = float(trainer.checkpoint_callback.best_model_score)
    assert json.loads((folder / "lit_compress.json").read_text())["metrics"]["val/accuracy"] == logged
    found = make_trainer(checkpoint=False).validate(
        module(Pretrained(str(folder))), data_module(texts), verbose=False
    )
    assert found[0]["val/accuracy"] == pytest.approx(logged)


@pytest.mark.parametrize("first", ["pruning", "clustering"])
def test_with_pruning_in_either_order(first, tmp_path):
    callbacks = [
        Pruning("weight", target=Target(sparsity=0.5), every_n_steps=1),
        WeightClustering(clusters=4, keep_zeros=True, cluster_at=0.6),
    ]
    fitted = fit(
        callbacks if first == "pruning" else callbacks[::-1], tmp_path, module=Foreign(tiny_bert(layers=2))
    )
    small = deployable(fitted.net)
    weights = [stored.values for name, stored in codebooks_of(small) if ".layer." in name]
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    assert zeros == pytest.approx(0.5, abs=0.01)


def test_attention_alone(tmp_path):
    fitted = fit([WeightClustering(include=["attention"], cluster_at=0.0)], tmp_path)
    names = [name for name, _ in codebooks_of(deployable(fitted.net))]
    assert len(names) == 8 and all("attention" in name for name in names)


def test_a_fit_that_was_stopped_before_clustering_is_refused(data, make_trainer):
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = True

    trainer = make_trainer(WeightClustering(cluster_at=0.9), ModelFolder(), Stop(), checkpoint=False)
    with pytest.raises(ValueError, match="is not clustered yet"):
        trainer.fit(module(tiny_bert(labels=2)), data)


def test_the_shortest_fit_ends_with_clusters(data, make_trainer, tmp_path):
    trainer = make_trainer(WeightClustering(cluster_at=0.9), ModelFolder(), max_epochs=-1, max_steps=1)
    trainer.fit(module(tiny_bert(labels=2)), data)
    assert list(codebooks_of(lit_compress.load(tmp_path / "run" / "model")))
