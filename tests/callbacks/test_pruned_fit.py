"""The end of a fit in which units were closed: what is shipped, measured and reported is the smaller model."""

import json

import pytest
import torch
import yaml
from transformers import AutoTokenizer

import lit_compress
from lit_compress.__main__ import main
from lit_compress.benchmark.results import read_results
from lit_compress.callbacks import Benchmark, L0Pruning, ModelFolder, Pruning
from lit_compress.callbacks.student import deployable
from lit_compress.callbacks.transform import TransformCallback, rounding_of
from lit_compress.models import Pretrained
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.rebuild import rebuild_student
from lit_compress.models.transforms import transforms_of
from lit_compress.modules import AdamW, FineTuning
from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.source import texts_in
from lit_compress.pruning.target import Target
from tests.callbacks.conftest import data_module
from tests.tiny import WORDS, tiny_bert


class CloseUnits(TransformCallback):
    """Closes more units from step to step: all heads of block 0, every other neuron of the others."""

    def apply(self, model):
        apply_fixed_gates(model, ["head", "neuron"])

    def move(self, model, progress):
        for group, gate in gates_of(model).pairs():
            if group.structure == "head" and group.layer == 0:
                gate.open.zero_()
            if group.structure == "neuron" and group.layer:
                gate.open[1 :: 2 + group.layer] = 0


def module(student, **options):
    return FineTuning(student, optimizer=AdamW(lr=1e-2), num_labels=2, method="closing units", **options)


@pytest.fixture
def run(data, make_trainer, tmp_path):
    """A finished run folder with config-less checkpoints and a model folder."""
    trainer = make_trainer(CloseUnits(), ModelFolder())
    fitted = module(tiny_bert(labels=2, dropout=0.1))
    trainer.fit(fitted, data)
    return trainer, fitted, tmp_path / "run"


def batch(data):
    data.setup("validate")
    found = next(iter(data.val_dataloader()))
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def best(trainer):
    return FineTuning.load_from_checkpoint(
        trainer.checkpoint_callback.best_model_path, student=tiny_bert(labels=2), map_location="cpu"
    )


def test_the_folder_is_smaller_and_computes_what_the_checkpoint_does(run, data):
    trainer, fitted, folder = run
    loaded = lit_compress.load(folder / "model")
    blocks = loaded.bert.encoder.layer
    assert [getattr(block.intermediate.dense, "out_features", None) for block in blocks] == [64, 43, 48, 51]
    assert [name for name, _ in transforms_of(loaded)] == ["shape"]
    masked = best(trainer).student.eval()
    assert gates_of(masked) is not None
    with torch.no_grad():
        difference = loaded(**batch(data)).logits - masked(**batch(data)).logits
    assert difference.abs().max() < 1e-6
    assert gates_of(fitted.student) is not None and fitted.student.training  # what is shipped is a copy
    card = (folder / "model" / "README.md").read_text()
    assert "lit_compress.load" in card


def test_the_logged_metric_is_that_of_the_reloaded_folder(run, data, make_trainer, texts):
    trainer, _, folder = run
    logged = float(trainer.checkpoint_callback.best_model_score)
    manifest = json.loads((folder / "model" / "lit_compress.json").read_text())
    assert manifest["metrics"] == {"val/accuracy": pytest.approx(logged)}
    again = module(Pretrained(str(folder / "model")))
    found = make_trainer(checkpoint=False).validate(again, data_module(texts), verbose=False)
    assert found[0]["val/accuracy"] == pytest.approx(logged)


def test_a_ragged_folder_is_trained_on_and_stays_ragged(run, texts, make_trainer, tmp_path):
    _, _, folder = run
    start = lit_compress.load(folder / "model")
    again = module(Pretrained(str(folder / "model")))
    place = tmp_path / "recovered"
    trainer = make_trainer(ModelFolder(folder=str(place)))
    trainer.fit(again, data_module(texts))
    recovered = lit_compress.load(place)
    assert transforms_of(recovered) == transforms_of(start)
    assert {n: t.shape for n, t in recovered.state_dict().items()} == {
        n: t.shape for n, t in start.state_dict().items()
    }
    assert any(not torch.equal(t, start.state_dict()[n]) for n, t in recovered.state_dict().items())
    rebuilt = rebuild_student(trainer.checkpoint_callback.best_model_path)
    assert all(torch.equal(t, recovered.state_dict()[n]) for n, t in rebuilt.state_dict().items())


def test_a_checkpoint_alone_gives_the_student(run):
    trainer, _, _ = run
    path = trainer.checkpoint_callback.best_model_path
    rebuilt = rebuild_student(path)
    state = torch.load(path, weights_only=True)["state_dict"]
    wanted = {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
    assert rebuilt.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in rebuilt.state_dict().items())
    assert transforms_of(rebuilt) == transforms_of(best(trainer).student)


def test_what_was_masked_is_still_there_to_train_on_after_shipping(run):
    """Deep copies of parametrized modules share their class: folding the copy must not touch the original."""
    _, fitted, _ = run
    before = {name: value.clone() for name, value in fitted.student.state_dict().items()}
    deployable(fitted.student)
    assert gates_of(fitted.student) is not None
    after = fitted.student.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    fitted.student(input_ids=torch.ones(1, 3, dtype=torch.long))


def test_the_benchmark_measures_the_smaller_model(fake_workers, data, make_trainer, tmp_path):
    trainer = make_trainer(CloseUnits(), Benchmark(rounds=3), ModelFolder())
    trainer.fit(module(tiny_bert(labels=2)), data)
    row = read_results(tmp_path / "run" / "results.jsonl")[-1]
    shipped = lit_compress.load(tmp_path / "run" / "model")
    parameters, full = (sum(p.numel() for p in m.parameters()) for m in (shipped, tiny_bert(labels=2)))
    # 4 bytes a parameter, and names and shapes in front of them.
    assert 0 < row["bytes"] - 4 * parameters < 20_000 < 4 * (full - parameters)


def test_widths_are_rounded_for_the_benchmark_and_for_what_is_shipped(
    fake_workers, data, make_trainer, tmp_path
):
    callback = CloseUnits()
    callback.round_to = 16
    trainer = make_trainer(callback, Benchmark(rounds=3), ModelFolder())
    trainer.fit(module(tiny_bert(labels=2)), data)
    shipped = lit_compress.load(tmp_path / "run" / "model")
    widths = [block.intermediate.dense.out_features for block in shipped.bert.encoder.layer]
    assert widths == [64, 48, 48, 64]  # 43, 48 and 51 rounded up
    added = [int((block.output.dense.weight == 0).all(0).sum()) for block in shipped.bert.encoder.layer]
    assert added == [0, 5, 0, 13]
    with torch.no_grad():
        difference = shipped(**batch(data)).logits - best(trainer).student.eval()(**batch(data)).logits
    assert difference.abs().max() < 1e-6
    row = read_results(tmp_path / "run" / "results.jsonl")[-1]
    assert 0 < row["bytes"] - 4 * sum(parameter.numel() for parameter in shipped.parameters()) < 20_000


@pytest.mark.parametrize(
    ("target", "given", "multiple"),
    [
        ({"speedup": 2.0}, None, 16),
        ({"speedup": 2.0}, 1, 1),
        ({"sparsity": 0.5}, None, 1),
        ({"sparsity": 0.5}, 8, 8),
    ],
)
def test_a_speedup_is_shipped_in_sizes_that_are_fast(target, given, multiple):
    for make in (Pruning, L0Pruning):
        assert make(["head", "neuron"], target=Target(**target), round_to=given).round_to == multiple
        assert make(["head"], target=Target(**target)).round_to == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: L0Pruning(["head"], penalty=1.0, round_to=8),
            "structure neuron for round_to=8, .* got head;",
        ),
        (
            lambda: Pruning("weight", target=Target(sparsity=0.5), round_to=8),
            "got weight; leave round_to out",
        ),
        (lambda: Pruning(["neuron"], target=Target(sparsity=0.5), round_to=0), "round_to >= 1 .* got 0"),
    ],
)
def test_refuses_a_rounding_that_means_nothing(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_several_roundings_are_all_kept():
    class Trainer:
        callbacks = (
            Pruning("head", target=Target(sparsity=0.5)),
            Pruning(["neuron"], target=Target(sparsity=0.5), round_to=16),
            L0Pruning(penalty=1.0, round_to=24),
            ModelFolder(),
        )

    assert rounding_of(Trainer()) == 48


# -- the verb --------------------------------------------------------------------------------------


def test_the_verb_makes_the_same_folder_from_the_checkpoint(run, tmp_path, capsys):
    _, _, folder = run
    assert main(["shrink", str(folder), "--out", str(tmp_path / "small")]) == 0
    shown = capsys.readouterr().out
    assert "heads per layer    4 in each of 4 → 0 4 4 4" in shown
    assert "(for lit_compress.load)" in shown
    first, second = lit_compress.load(folder / "model"), lit_compress.load(tmp_path / "small")
    assert all(torch.equal(t, second.state_dict()[n]) for n, t in first.state_dict().items())
    manifest = json.loads((tmp_path / "small" / "lit_compress.json").read_text())
    source = json.loads((folder / "model" / "lit_compress.json").read_text())
    for key in ("method", "task", "label_names", "input_lengths", "metrics"):
        assert manifest[key] == source[key], key
    assert (tmp_path / "small" / "tokenizer.json").is_file()


def test_the_verb_makes_a_uniform_folder_with_fewer_words(run, tmp_path, capsys):
    from transformers import AutoModelForSequenceClassification

    _, _, folder = run
    texts = tmp_path / "texts.txt"
    texts.write_text("the good film\n\nnot a bad plot\nthe film\n")
    command = ["shrink", str(folder), "--out", str(tmp_path / "small"), "--neurons", "16", "--layers", "2"]
    others = tmp_path / "others.txt"
    others.write_text("the good film\nan awful movie\n")
    command += ["--vocabulary-from", str(texts), "--min-count", "1"]
    assert main([*command, "--held-out", str(others), "--most-changed", "0.4"]) == 1
    assert (
        "at most 40.0 % of the held-out texts to become other pieces but 50.0 % do" in capsys.readouterr().err
    )
    assert not (tmp_path / "small").exists()
    assert main([*command, "--held-out", str(others)]) == 0
    shown = capsys.readouterr().out
    assert "Of 2 held-out texts 50.0 % become other pieces" in shown
    assert "left out units that did something" in shown and "AutoModel…from_pretrained" in shown
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "small")
    assert (model.config.intermediate_size, model.config.num_hidden_layers) == (16, 2)
    assert model.config.vocab_size == len(tokenizer) < 90
    manifest = json.loads((tmp_path / "small" / "lit_compress.json").read_text())
    assert "metrics" not in manifest and manifest["label_names"] == ["a", "b"]
    assert manifest["vocabulary"]["changed"] == 0.5


def test_the_verb_shrinks_a_folder_again(run, tmp_path, capsys):
    _, _, folder = run
    assert main(["shrink", str(folder / "model"), "--out", str(tmp_path / "second")]) == 0
    first, second = lit_compress.load(folder / "model"), lit_compress.load(tmp_path / "second")
    assert transforms_of(first) == transforms_of(second)


@pytest.fixture
def closed_words(data, make_trainer, tmp_path):
    """A finished run in which a third of the word pieces were closed."""
    callback = Pruning("vocabulary", target=Target(sparsity=0.3), every_n_steps=1)
    trainer = make_trainer(callback, ModelFolder())
    trainer.fit(module(tiny_bert(labels=2)), data)
    return trainer, tmp_path / "run"


def test_the_verb_cuts_closed_word_pieces_out_with_the_tokenizer(closed_words, data, tmp_path, capsys):
    trainer, folder = closed_words
    masked = best(trainer).student.double().eval()
    closed = set((gates_of(masked).decided()["vocabulary"] == 0).nonzero().flatten().tolist())
    assert len(closed) == 30
    logged = int(trainer.callback_metrics["compress/params"])
    # What the fit ends in computes what was judged: all rows are there, and the tokenizer is the full one.
    shipped = lit_compress.load(folder / "model").double()
    assert shipped.config.vocab_size == 100 and logged == shipped.num_parameters() - 30 * 32
    for source in (folder, folder / "model"):
        out = tmp_path / f"small-{source.name}"
        assert main(["shrink", str(source), "--out", str(out)]) == 0
        shown = capsys.readouterr().out
        assert "30 word pieces with zeros for rows are gone" in shown and "100 → 70" in shown
        small, tokenizer = lit_compress.load(out).double(), AutoTokenizer.from_pretrained(out)
        assert (small.num_parameters(), small.config.vocab_size, len(tokenizer)) == (logged, 70, 70)
        assert "metrics" not in json.loads((out / "lit_compress.json").read_text())
        full = AutoTokenizer.from_pretrained(folder / "model")
        words = [word for word, index in full.get_vocab().items() if word in WORDS and index not in closed]
        text = " ".join(words)
        with torch.no_grad():
            found = small(**tokenizer(text, return_tensors="pt")).logits
            wanted = masked(**full(text, return_tensors="pt")).logits
        assert len(words) > 2 and (found - wanted).abs().max() < 1e-10
        gone = next(word for word in WORDS if full.get_vocab()[word] in closed)
        assert tokenizer.tokenize(gone) == [gone[0], *(f"##{letter}" for letter in gone[1:])]


def test_the_verb_says_so_where_there_is_no_tokenizer_to_cut_with(tmp_path, capsys):
    model = tiny_bert(labels=2)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[60:] = 0
    folder = save_folder(tmp_path / "model", model, None, {})
    assert main(["shrink", str(folder), "--out", str(tmp_path / "small")]) == 0
    assert "41 rows of the word embedding stay as zeros" in capsys.readouterr().out
    assert lit_compress.load(tmp_path / "small").config.vocab_size == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--ckpt", "epoch_9.ckpt"],
            "Expected a checkpoint at epoch_9.ckpt but there are best.ckpt, last.ckpt",
        ),
        (["--neurons", "65"], "Expected at most 64 neurons"),
        (["--heads", "2"], "set hidden="),
        (["--layers", "0"], "uniform layers to be at least 1"),
        (["--round-to", "0"], "round_to to be at least 1"),
        (["--vocabulary-from", "nowhere.txt"], "Expected a file of texts"),
        (["--most-changed", "0.1"], "with --vocabulary-from, whose choice they check"),
    ],
)
def test_the_verb_refuses(run, tmp_path, capsys, arguments, message):
    _, _, folder = run
    assert main(["shrink", str(folder), "--out", str(tmp_path / "small"), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "small").exists()


def test_the_verb_refuses_an_occupied_place_and_a_ckpt_for_a_folder(run, tmp_path, capsys):
    _, _, folder = run
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("important")
    assert main(["shrink", str(folder), "--out", str(tmp_path / "thesis")]) == 1
    assert "something else is there" in capsys.readouterr().err
    assert main(["shrink", str(folder / "model"), "--out", str(tmp_path / "x"), "--ckpt", "last"]) == 1
    assert "leave --ckpt out" in capsys.readouterr().err


def test_the_verb_refuses_a_ragged_folder_for_more_than_it_has(run, tmp_path, capsys):
    _, _, folder = run
    assert main(["shrink", str(folder / "model"), "--out", str(tmp_path / "x"), "--neurons", "40"]) == 1
    error = capsys.readouterr().err
    assert "same number of heads in all blocks but got [0, 4]; start from the masked model" in error


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        rebuild_student(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="KeyError"):
        rebuild_student(path)


def test_texts_of_a_data_section(texts, tmp_path):
    files = {"folder": str(texts), "train": "train.csv", "validation": "dev.csv"}
    data = {
        "class_path": "TextClassificationDataModule",
        "init_args": {
            "source": {"class_path": "Files", "init_args": files},
            "tokenizer": str(texts / "tokenizer"),
            "cache_dir": str(tmp_path),
        },
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    lines = (texts / "train.csv").read_text().splitlines()[1:]
    assert list(texts_in(tmp_path / "data.yaml")) == [line.rpartition(",")[0] for line in lines]
    (tmp_path / "none.yaml").write_text("seed_everything: 1\n")
    with pytest.raises(ValueError, match="Expected a data section"):
        list(texts_in(tmp_path / "none.yaml"))
