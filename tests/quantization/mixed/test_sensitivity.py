"""Sensitivity of blocks against Hessians by hand, and `lit-compress sensitivity` as a user calls it."""

import json
import math

import pytest
import torch

from lit_compress.__main__ import main
from lit_compress.benchmark.folders import weight_bytes
from lit_compress.models.checkpoint import save_folder
from lit_compress.objectives.hard_labels import hard_labels
from lit_compress.quantization import Scheme
from lit_compress.quantization.choice import choose
from lit_compress.quantization.mixed.file import read_mixed
from lit_compress.quantization.mixed.sensitivity import Sensitivity, draw_subsets, parts_of, sensitivities
from tests.callbacks.conftest import data_module, texts  # noqa: F401
from tests.families import EVERY_FAMILY, SHARED, family_batch, family_model
from tests.quantization.test_command import data  # noqa: F401
from tests.tiny import tiny_bert


def labelled(seed, rows=2):
    return {**family_batch("bert", seed), "labels": torch.tensor([seed % 3, 1])[:rows]}


def projections(model):
    return choose(model, None, ())[0]


def test_omega_is_mean_and_spread():
    one = Sensitivity((-3.0, -1.0))
    assert (one.mean, one.std, one.omega) == (-2.0, 1.0, 3.0)
    assert Sensitivity((2.5,)).omega == 2.5


def test_the_sensitivity_is_the_top_eigenvalue_of_the_mean_loss():
    model = family_model("bert", 1)
    bias = "bert.encoder.layer.0.attention.self.query.bias"
    subsets = [[labelled(0), labelled(1)], [labelled(2)]]
    found = sensitivities(model, {"bias": [bias]}, subsets, tolerance=1e-6, most=300)["bias"]
    model.set_attn_implementation("eager")
    leaf = model.get_parameter(bias)
    for value, subset in zip(found.eigenvalues, subsets, strict=True):
        # All rows in one batch: the mean over rows, not over batches.
        batch = {name: torch.cat([one[name] for one in subset]) for name in subset[0]}
        loss = hard_labels(model(**{k: v for k, v in batch.items() if k != "labels"}).logits, batch["labels"])
        flat = torch.autograd.grad(loss, leaf, create_graph=True)[0]
        rows = [torch.autograd.grad(entry, leaf, retain_graph=True)[0] for entry in flat]
        spectrum = torch.linalg.eigvalsh(torch.stack(rows))
        assert value == pytest.approx(float(spectrum[spectrum.abs().argmax()]), rel=1e-2)


def test_a_block_with_more_curvature_is_more_sensitive():
    model = family_model("bert", 2)
    parts = parts_of(model, projections(model))
    assert list(parts) == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    assert [len(names) for names in parts.values()] == [6, 6]
    subsets = [[labelled(0)]]
    before = sensitivities(model, parts, subsets, most=2)
    again = sensitivities(model, parts, subsets, most=2)
    assert before == again
    # Weights a tenth as large with a product ten times as large compute the same: curvature by them is a hundred times
    # as large.
    name = "bert.encoder.layer.1.intermediate.dense"
    matrix = {"m": [f"{name}.weight"]}
    small = sensitivities(model, matrix, subsets, most=4)["m"].omega
    module = model.get_submodule(name)
    module.weight.data /= 10
    module.register_forward_hook(lambda module, inputs, output: 10 * (output - module.bias) + module.bias)
    large = sensitivities(model, matrix, subsets, most=4)["m"].omega
    assert large == pytest.approx(100 * small, rel=1e-3)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_blocks_of_every_family(family):
    model = family_model(family, 2)
    names = projections(model)
    parts = parts_of(model, names)
    least = 1 if family in SHARED else 2
    assert len(parts) >= least
    single = parts_of(model, names, "matrix")
    assert [name for part in parts.values() for name in part] == [f"{name}.weight" for name in single]


def test_subsets_are_random_rows_with_their_labels(texts):  # noqa: F811
    module = data_module(texts)
    subsets = draw_subsets(module, 0.5, 3, seed=1)
    rows = [torch.cat([batch["example_id"] for batch in subset]).tolist() for subset in subsets]
    assert [len(set(ids)) for ids in rows] == [12, 12, 12]
    assert len({tuple(sorted(ids)) for ids in rows}) == 3
    labels = dict(enumerate(module.rows("train")["labels"]))
    for subset in subsets:
        for batch in subset:
            assert batch["labels"].tolist() == [labels[row] for row in batch["example_id"].tolist()]
    again = draw_subsets(module, 0.5, 3, seed=1)
    assert all(torch.equal(a[0]["input_ids"], b[0]["input_ids"]) for a, b in zip(subsets, again, strict=True))


@pytest.fixture
def folder(tmp_path):
    return str(save_folder(tmp_path / "model", tiny_bert(layers=2, labels=2), None, {}))


def run(folder, out, *words):
    return main(["sensitivity", str(folder), "--out", str(out), *map(str, words)])


def test_the_command_writes_bits_that_quantize_takes(folder, data, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "bits.json"
    words = ("--average-bits", 3, "--data", data, "--share", 0.3, "--subsets", 2)
    assert run(folder, out, *words) == 0
    text = capsys.readouterr().out
    assert "| part | mean λ | std λ | Ω | bits | bytes |" in text
    assert "| bert.encoder.layer.1 |" in text and "bits per weight of the blocks" in text
    content = json.loads(out.read_text())
    for part in content["parts"].values():
        values = part["eigenvalues"]
        mean = sum(values) / 2
        assert part["omega"] == pytest.approx(abs(mean) + math.sqrt(sum((v - mean) ** 2 for v in values) / 2))
    assert 2 <= sum(part["bits"] for part in content["parts"].values()) / 2 <= 3
    schemes = read_mixed(out, tiny_bert(layers=2, labels=2))
    assert schemes["classifier.weight"] == Scheme(8) == schemes["bert.embeddings.word_embeddings.weight"]
    assert schemes["bert.encoder.layer.0.output.dense.weight"].per == "rows"
    small = tmp_path / "small"
    assert main(["quantize", folder, "--out", str(small), "--mixed", str(out)]) == 0
    # What was counted is what is stored, but for the header of the file.
    assert 0 <= weight_bytes(small) - content["bytes"] < 20_000
    assert json.loads((small / "lit_compress.json").read_text())["quantization"]["mixed"]


def test_another_budget_takes_what_was_measured_and_reads_no_texts(folder, data, tmp_path, capsys):  # noqa: F811
    first, anew, again = (tmp_path / f"{name}.json" for name in ("first", "anew", "again"))
    common = ("--data", data, "--share", 0.3, "--subsets", 2)
    assert run(folder, first, "--average-bits", 3, *common) == 0
    assert run(folder, anew, "--average-bits", 2.5, *common) == 0
    assert run(folder, again, "--average-bits", 2.5, "--measured", first) == 0
    contents = [json.loads(path.read_text()) for path in (anew, again)]
    for content in contents:
        del content["seconds"]
    assert contents[0] == contents[1] and contents[0] != json.loads(first.read_text())
    assert "2 subsets of 30 % of the training rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--measured", "none.json"), "a file that lit-compress sensitivity wrote at --measured none.json"),
        (("--measured", "other.json"), "other.json but got KeyError: 'parts'"),
        (
            ("--measured", "bits.json", "--share", 0.2),
            "Expected either --measured, whose file has the eigenvalues",
        ),
        (
            ("--measured", "bits.json", "--per", "matrix"),
            "Expected the eigenvalues of the parts of this model",
        ),
    ],
)
def test_refuses_what_was_not_measured(words, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one = {"eigenvalues": [1.0, 2.0]}
    parts = {f"bert.encoder.layer.{number}": one for number in range(2)}
    (tmp_path / "bits.json").write_text(json.dumps({"parts": parts, "share": 0.1, "seed": 0, "seconds": 1.0}))
    (tmp_path / "other.json").write_text("{}")
    assert run(folder, tmp_path / "out.json", "--average-bits", 3, *words) == 1
    assert message in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "out.json").exists()
    assert run(folder, tmp_path / "out.json", "--average-bits", 3, "--measured", "bits.json") == 0


def test_a_budget_in_megabytes_holds_for_all_weights(folder, data, tmp_path):  # noqa: F811
    common = ("--data", data, "--share", 0.2, "--subsets", 1, "--zero-points", "--per", "matrix")
    assert run(folder, tmp_path / "bits.json", "--budget-mb", 0.02, *common) == 0
    content = json.loads((tmp_path / "bits.json").read_text())
    assert 0.018e6 < content["bytes"] <= 0.02e6 and len(content["parts"]) == 12
    assert {entry["symmetric"] for name, entry in content["matrices"].items() if "layer" in name} == {False}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Expected one budget, --budget-mb or --average-bits, but got none"),
        (("--budget-mb", 1, "--average-bits", 3), "but got both"),
        (("--budget-mb", 0.001), "Expected a budget of at least"),
        (("--average-bits", 1.5), "Expected a budget of at least"),
        (("--average-bits", 3), "Expected training texts but nothing names data"),
        (("--average-bits", 3, "--bits", 1, 2), "Expected bits from 2 to 8 but got 1"),
        (("--average-bits", 3, "--group-size", 7), "divides the 32 outputs but got 7"),
        (("--average-bits", 3, "--per", "head"), "Expected per to be one of block, matrix but got 'head'"),
        (("--average-bits", 3, "--exclude", "encoder"), "Expected projections inside of blocks but"),
    ],
)
def test_refuses_in_one_paragraph_and_writes_nothing(words, message, folder, tmp_path, capsys):
    assert run(folder, tmp_path / "bits.json", *words) == 1
    text = capsys.readouterr().err
    assert message in " ".join(text.split()) and text.count("\n") == 1
    assert not (tmp_path / "bits.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--share", 0), "Expected a share of the training rows, 0 < share <= 1, but got 0.0"),
        (("--subsets", 0), "Expected at least one subset but got 0"),
    ],
)
def test_refuses_subsets_that_are_none(words, message, folder, data, tmp_path, capsys):  # noqa: F811
    assert run(folder, tmp_path / "bits.json", "--average-bits", 3, "--data", data, *words) == 1
    assert message in capsys.readouterr().err


def test_refuses_a_model_that_is_rounded_or_broken(folder, data, tmp_path, capsys):  # noqa: F811
    assert main(["quantize", folder, "--out", str(tmp_path / "small")]) == 0
    assert run(tmp_path / "small", tmp_path / "bits.json", "--average-bits", 3) == 1
    assert "Expected a model that rounds nothing yet but it has packed_weights" in capsys.readouterr().err
    model = tiny_bert(layers=2, labels=2)
    model.bert.pooler.dense.bias.data[0] = float("nan")
    broken = save_folder(tmp_path / "broken", model, None, {})
    assert run(broken, tmp_path / "bits.json", "--average-bits", 3, "--data", data) == 1
    assert "Expected a finite loss on the training texts but got nan" in capsys.readouterr().err


def test_refuses_no_texts():
    model = tiny_bert(layers=1)
    with pytest.raises(ValueError, match="Expected labelled texts to measure the loss on but got none"):
        sensitivities(model, parts_of(model, projections(model)), [])
