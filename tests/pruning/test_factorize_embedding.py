"""Factorised word embeddings: the best approximation, the same hidden dimensions, model folders, refusals."""

import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import lit_compress
from lit_compress.benchmark.facts import model_facts
from lit_compress.commands import run_verb
from lit_compress.models import LayerSubset
from lit_compress.models.anatomy import UniformShape, dissect
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.ragged import NOTE
from lit_compress.models.transforms import restore, transforms_of
from lit_compress.pruning.factorize_embedding import (
    apply_factorized_embedding,
    best_factors,
    factorize_embedding,
)
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.latency_cache import table_key
from lit_compress.pruning.latency_setting import Setting
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.sizes import ModelSize
from lit_compress.pruning.vocabulary import count_pieces, keep_used, trim_vocabulary
from tests.families import HIDDEN, VOCABULARY, family_batch, family_model
from tests.pruning.gating import close_at_random, fix
from tests.tiny import tiny_bert, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("exact_norms")
#: Every adapter whose word embedding is its own; Llama and Mistral have no norm behind it.
FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "electra",
    "electra_without_projection",
    "distilbert",
    "llama",
    "mistral",
)
TIED = ("qwen2", "qwen3", "gpt2", "whisper")
RANK = 5
TEXTS = ["the good film was not bad", "a really awful movie", "one great actor and five poor scenes"]


def table(rows=40, columns=12):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@torch.no_grad()
def run(model, name):
    return model(**family_batch(name)).logits


def factorised(name, rank=RANK):
    model = family_model(name)
    factorize_embedding(model, rank)
    return model


# -- the approximation -------------------------------------------------------------------------------


def test_the_error_is_that_of_eckart_and_young():
    whole = table()
    values = torch.linalg.svdvals(whole)
    for rank in (1, 5, 11):
        first, second = best_factors(whole, rank)
        assert first.shape == (40, rank) and second.shape == (12, rank)
        error = torch.linalg.matrix_norm(whole - first @ second.T)
        assert error.item() == pytest.approx(values[rank:].norm().item(), rel=1e-9)
        # Rows keep their length.
        assert torch.allclose(second.T @ second, torch.eye(rank, dtype=torch.float64), atol=1e-12, rtol=0)


def test_with_weights_it_is_the_weighted_error():
    whole, weights = table(), torch.arange(40.0, dtype=torch.float64)
    scaled = weights.sqrt()[:, None] * whole
    values = torch.linalg.svdvals(scaled)
    first, second = best_factors(whole, 4, weights)
    error = torch.linalg.matrix_norm(weights.sqrt()[:, None] * (whole - first @ second.T))
    assert error.item() == pytest.approx(values[4:].norm().item(), rel=1e-9)
    plain = best_factors(whole, 4)
    worse = torch.linalg.matrix_norm(weights.sqrt()[:, None] * (whole - plain[0] @ plain[1].T))
    assert worse > 1.001 * error


def test_full_rank_computes_the_same():
    whole = table()
    for weights in (None, torch.rand(40, dtype=torch.float64)):
        first, second = best_factors(whole, 12, weights)
        assert (first @ second.T - whole).abs().max() < 1e-10


@pytest.mark.parametrize("name", FAMILIES)
def test_a_table_of_low_rank_is_kept_exactly(name):
    """The model computes what it did where the table has no more directions than the rank."""
    model = family_model(name)
    dense = model.get_input_embeddings().weight
    first, second = best_factors(dense.detach(), RANK)
    with torch.no_grad():
        dense.copy_(first @ second.T)
    before = run(model, name)
    assert factorize_embedding(model, RANK) < 1e-7
    assert (run(model, name) - before).abs().max() < 1e-10
    assert (run(family_model(name), name) - before).abs().max() > 1e-3
    columns = dense.shape[1]
    assert ModelSize.of(model).parameters == ModelSize.of(family_model(name)).parameters - (
        VOCABULARY * columns - RANK * (VOCABULARY + columns)
    )
    assert (ModelSize.of(model).vocabulary, ModelSize.of(model).embedding) == (VOCABULARY, RANK)


def test_the_error_that_is_told_is_relative_and_weighted():
    model, weights = family_model("bert"), torch.rand(VOCABULARY, dtype=torch.float64)
    dense = model.get_input_embeddings().weight.detach().clone()
    error = factorize_embedding(model, RANK, weights)
    root = weights.sqrt()[:, None]
    lost = torch.linalg.matrix_norm(root * (dense - model.get_input_embeddings().weight))
    assert error == pytest.approx((lost / torch.linalg.matrix_norm(root * dense)).item(), rel=1e-9)


def test_the_row_of_the_padding_and_frozen_weights_stay_so():
    model = family_model("bert")
    model.get_input_embeddings().requires_grad_(False)
    factorize_embedding(model, RANK)
    new = model.get_input_embeddings()
    assert new.table.padding_idx == 0 and not any(p.requires_grad for p in new.parameters())


# -- what is done to the model before and after ---------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("structures", [["hidden"], ["head", "neuron"], ["head", "neuron", "hidden"]])
def test_masked_is_shrunk(name, structures):
    model = factorised(name)
    gates = fix(model, structures)
    close_at_random(gates, seed=3)
    before = run(model, name)
    small = shrink(model)
    assert (run(small, name) - before).abs().max() < 1e-10
    assert (run(factorised(name), name) - before).abs().max() > 1e-3
    new = small.get_input_embeddings()
    assert new.table.weight.shape == (VOCABULARY, RANK)
    if "hidden" in structures and not hasattr(small.base_model, "embeddings_project"):
        left = int(next(gate.open.sum() for group, gate in gates.pairs() if group.structure == "hidden"))
        assert new.expand.weight.shape == (left, RANK) and left < HIDDEN


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("first", ["factors", "cut"])
def test_folders_load_whatever_came_first(name, first, tmp_path):
    model = family_model(name)
    if first == "factors":
        factorize_embedding(model, RANK)
    gates = fix(model, ["head", "neuron", "hidden"])
    close_at_random(gates, seed=3)
    # A multiple of the number of heads, which the configuration of Llama asks for.
    hidden = next(gate for group, gate in gates.pairs() if group.structure == "hidden")
    hidden.open.copy_(torch.arange(HIDDEN) % 3 != 1)
    small = shrink(model)
    if first == "cut":
        factorize_embedding(small, RANK)
    expected = ["factorized_embedding", "shape"] if first == "factors" else ["shape", "factorized_embedding"]
    assert [entry[0] for entry in transforms_of(small)] == expected
    again = lit_compress.load(save_folder(tmp_path / "x", small, None, {}))
    assert torch.equal(run(again, name), run(small, name))
    assert transforms_of(again) == transforms_of(small)


def test_rows_are_the_units_of_the_vocabulary():
    model = factorised("bert")
    (group,) = find_groups(model, ["vocabulary"])
    assert group.units == VOCABULARY
    assert [slot.name for slot in group.cut] == ["bert.embeddings.word_embeddings.table.weight"]
    assert dissect(model).word_embedding == "bert.embeddings.word_embeddings.table"


def test_one_shape_for_all_blocks(tmp_path):
    small = shrink(factorised("bert"), UniformShape(layers=2, heads=2, neurons=8, hidden=12))
    assert transforms_of(small) == [["factorized_embedding", {"rank": RANK}]]
    again = lit_compress.load(save_folder(tmp_path / "x", small, None, {}))
    assert torch.equal(run(again, "bert"), run(small, "bert"))
    assert again.get_input_embeddings().expand.weight.shape == (12, RANK)


@pytest.mark.parametrize("first", ["factors", "vocabulary"])
def test_a_smaller_vocabulary_before_and_after(first, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer(tmp_path / "tokenizer"))
    model = tiny_bert(layers=2).double().eval()
    kept = keep_used(tokenizer, TEXTS)
    if first == "factors":
        factorize_embedding(model, RANK)
        small, trimmed, old_ids = trim_vocabulary(model, tokenizer, kept)
        difference = (
            small(**trimmed(TEXTS, padding=True, return_tensors="pt")).logits
            - model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
        ).abs()
        assert difference.max() < 1e-10
    else:
        small, trimmed, old_ids = trim_vocabulary(model, tokenizer, kept)
        factorize_embedding(small, RANK)
    assert small.get_input_embeddings().table.weight.shape == (len(old_ids), RANK)
    assert small.config.vocab_size == len(trimmed) == len(old_ids) < 100
    again = lit_compress.load(save_folder(tmp_path / "x", small, trimmed, {}))
    inputs = trimmed(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(again(**inputs).logits, small(**inputs).logits)


def test_layers_of_a_factorised_model_are_a_student(tmp_path):
    model = tiny_bert(layers=4)
    factorize_embedding(model, RANK)
    folder = save_folder(tmp_path / "x", model, None, {})
    student = LayerSubset(source=str(folder), layers=[0, 3]).build(None, 3)
    assert len(student.bert.encoder.layer) == 2
    assert torch.equal(student.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_restored_from_its_record_without_random_numbers():
    model, twin = factorised("bert"), family_model("bert")
    state = torch.get_rng_state()
    restore(twin, transforms_of(model))
    restore(twin, transforms_of(model))
    assert torch.equal(state, torch.get_rng_state())
    assert not twin.get_input_embeddings().weight.any()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(run(twin, "bert"), run(model, "bert"))


def test_the_benchmark_counts_both_factors():
    model = tiny_bert(layers=1)
    before = model_facts(model.eval())
    factorize_embedding(model, RANK)
    after = model_facts(model)
    assert after["params"] == before["params"] - 100 * 32 + RANK * (100 + 32)
    assert after["macs"]["count"] == before["macs"]["count"] + 128 * RANK * 32


def test_latency_tables_are_apart():
    """The table of a model that has a dense embedding keeps its key."""
    plain, narrow = (
        table_key(model, False, Setting(length=8)) for model in (tiny_bert(), factorised("bert"))
    )
    assert "factorized_embedding" not in plain
    assert narrow["factorized_embedding"] == {"rank": RANK}


def test_stock_transformers_refuses_the_folder(tmp_path):
    model = tiny_bert(layers=1)
    factorize_embedding(model, RANK)
    folder = save_folder(tmp_path / "x", model, None, {})
    assert "embedding is factorised" in (folder / "config.json").read_text() and NOTE == "lit_compress"
    with pytest.raises(OSError, match="no file named"):
        AutoModelForSequenceClassification.from_pretrained(folder)


# -- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer(tmp_path / "tokenizer"))
    folder = save_folder(tmp_path / "big", tiny_bert(layers=2), tokenizer, {"metrics": {"val/accuracy": 0.9}})
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return folder


FRESH = """
import sys, lit_compress
model = lit_compress.load(sys.argv[1])
print(sum(p.numel() for p in model.parameters()), model.config.vocab_size, len(model.bert.encoder.layer))
"""


def test_the_command_with_all_that_goes_with_it(source, tmp_path, capfd):
    options = ["--vocabulary-from", str(tmp_path / "texts.txt"), "--embedding-rank", "8", "--layers", "1"]
    assert run_verb("shrink", [str(source), "--out", str(tmp_path / "small"), *options]) == 0
    told = capfd.readouterr().out
    assert "Error of the word embedding of rank 8: " in told and "embedding width    32 → 8" in told
    assert "(for lit_compress.load)" in told
    small = lit_compress.load(tmp_path / "small")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "small")], capture_output=True, text=True, cwd=tmp_path
    )
    counted = sum(p.numel() for p in small.parameters())
    assert done.stdout.split() == [str(counted), str(small.config.vocab_size), "1"], done.stderr
    # What it is no more is not said of it.
    assert "accuracy" not in (tmp_path / "small" / "README.md").read_text()


def test_the_command_keeps_what_is_common(source, tmp_path):
    """An error in a piece counts as often as texts have it, special tokens among them, and once more."""
    folder = tmp_path / "small"
    options = ["--vocabulary-from", str(tmp_path / "texts.txt"), "--embedding-rank", "8"]
    assert run_verb("shrink", [str(source), "--out", str(folder), *options]) == 0
    tokenizer = AutoTokenizer.from_pretrained(folder)
    counts = count_pieces(tokenizer, TEXTS, special_tokens=True)
    assert counts[tokenizer.cls_token_id] == 3 and counts[tokenizer.convert_tokens_to_ids("good")] == 1
    small = lit_compress.load(folder).get_input_embeddings().weight
    full = lit_compress.load(source).get_input_embeddings().weight.detach().double()
    big = AutoTokenizer.from_pretrained(source)
    full = full[
        [big.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(i)) for i in range(len(tokenizer))]
    ]
    root = torch.tensor([1.0 + counts[i] for i in range(len(tokenizer))]).double().sqrt()[:, None]
    values = torch.linalg.svdvals(root * full)
    assert torch.linalg.matrix_norm(root * (full - small)).item() == pytest.approx(
        values[8:].norm().item(), rel=1e-5
    )


@pytest.mark.parametrize("rank", ["0", "-3", "25", "200"])
def test_refuses_a_rank_that_saves_nothing(source, tmp_path, capfd, rank):
    """100 x 32: 24 * 132 < 3200 <= 25 * 132."""
    assert run_verb("shrink", [str(source), "--out", str(tmp_path / "x"), "--embedding-rank", rank]) == 1
    told = " ".join(capfd.readouterr().err.split())
    assert (
        "Expected an embedding rank from 1 to 24, the largest whose factors of 100 x rank and rank x 32"
        in told
    )
    assert f"smaller than the table of 100 x 32, but got {rank}; lower it" in told
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", TIED)
def test_refuses_tied_output_layers(name):
    with pytest.raises(
        ValueError, match=r"weights of its own but that of \w+ is tied to (lm_head|proj_out).weight"
    ):
        factorize_embedding(family_model(name), RANK)


def test_refuses_what_has_no_word_embedding_to_factorise():
    with pytest.raises(ValueError, match="AlbertForSequenceClassification has a factorised one already"):
        factorize_embedding(family_model("albert"), RANK)
    with pytest.raises(ValueError, match="word embedding but ViTForImageClassification reads no tokens"):
        factorize_embedding(family_model("vit"), RANK)


def test_refuses_to_factorise_twice():
    model = factorised("bert")
    with pytest.raises(ValueError, match="not factorised yet but bert.embeddings.word_embeddings of Bert"):
        factorize_embedding(model, RANK)
    with pytest.raises(ValueError, match="Expected 'factorized_embedding' with the settings"):
        apply_factorized_embedding(model, RANK - 1)


def test_refuses_an_embedding_with_gates():
    model = family_model("llama")
    fix(model, ["hidden"])
    with pytest.raises(
        ValueError, match=r"ordinary embedding at model.embed_tokens .* ParametrizedEmbedding"
    ):
        factorize_embedding(model, RANK)
    assert transforms_of(model)[-1][0] == "fixed_gates"
