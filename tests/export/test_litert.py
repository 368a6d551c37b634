import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("litert_torch")

from ai_edge_litert.interpreter import Interpreter
from transformers import XLNetConfig, XLNetForSequenceClassification

from lit_compress.benchmark.runtimes.litert import LiteRtFp32, LiteRtInt8, LiteRtSession
from lit_compress.export import litert, single_text
from lit_compress.export.litert import export_litert, graph_lengths
from lit_compress.export.parity import ParityError
from lit_compress.models.checkpoint import save_folder
from tests.export.single_texts import batches, full_disk, large_bert, run, segments, wanted
from tests.export.test_ragged import ragged
from tests.tiny import tiny_bert, tiny_model


@pytest.fixture(autouse=True)
def few_graphs(monkeypatch):
    """Graphs for 64, 128 and 130 tokens: every one takes its time."""
    monkeypatch.setattr(litert, "_SHORTEST", 64)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A model with a large vocabulary, its float32 file and its int8 file."""
    folder, model = tmp_path_factory.mktemp("litert"), large_bert()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litert, "_SHORTEST", 64)
        errors = [export_litert(model, folder / f"{kind}.tflite", kind, 0.5) for kind in ("fp32", "int8")]
    assert errors[0] < 1e-4 < errors[1]
    assert sorted(path.name for path in folder.iterdir()) == ["fp32.tflite", "int8.tflite"]
    return model, folder / "fp32.tflite", folder / "int8.tflite"


def test_each_length_is_twice_the_one_before_up_to_the_longest(monkeypatch):
    monkeypatch.undo()
    assert graph_lengths(512) == (16, 32, 64, 128, 256, 512)
    assert graph_lengths(130) == (16, 32, 64, 128, 130)
    assert (graph_lengths(16), graph_lengths(9)) == ((16,), (9,))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "albert"])
def test_file_computes_what_the_model_computes(family, tmp_path):
    model = tiny_model(family, layers=1, dropout=0.1).eval()
    assert export_litert(model, tmp_path / "model.tflite", "fp32", 1e-3) < 1e-4
    session = LiteRtSession(tmp_path / "model.tflite", threads=1)
    for batch in batches(pad=model.config.pad_token_id):
        np.testing.assert_allclose(run(session, batch), wanted(model, batch), atol=5e-5)
    assert not model.training and model.config._attn_implementation == "sdpa"


def test_logits_are_those_of_the_model_and_pairs_count(both):
    model, full, _ = both
    session = LiteRtSession(full, threads=1)
    for batch in batches(40_000):
        got = run(session, batch)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted(model, batch), atol=5e-5)
        if batch["input_ids"].shape[1] > 8:
            np.testing.assert_allclose(
                run(session, segments(batch)), wanted(model, segments(batch)), atol=5e-5
            )
            assert np.abs(run(session, segments(batch)) - got).max() > 1e-2


@pytest.mark.parametrize("which", [1, 2])
def test_what_stands_behind_a_text_changes_no_logit(both, which):
    session = LiteRtSession(both[which], threads=1)
    (batch,) = [batch for batch in batches(40_000) if batch["input_ids"].shape == (3, 64)]
    together = run(session, batch)
    noise = np.where(batch["attention_mask"] == 1, batch["input_ids"], 7)
    np.testing.assert_array_equal(run(session, {**batch, "input_ids": noise}), together)
    for row, length in enumerate((64, 3, 30)):
        alone = {name: array[row : row + 1, :length] for name, array in batch.items()}
        np.testing.assert_array_equal(run(session, alone)[0], together[row])


def test_graphs_read_int32_and_are_named_after_their_lengths(both):
    interpreter = Interpreter(str(both[1]))
    assert set(interpreter.get_signature_list()) == {"tokens_64", "tokens_128", "tokens_130"}
    for length in (64, 128, 130):
        found = interpreter.get_signature_runner(f"tokens_{length}").get_input_details()
        assert set(found) == {"input_ids", "attention_mask", "token_type_ids"}
        assert {tuple(entry["shape"]) for entry in found.values()} == {(1, length)}
        assert {entry["dtype"] for entry in found.values()} == {np.int32}


def test_graphs_share_the_weights_which_take_four_bytes_or_one(both):
    model, full, small = both
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert 4 * weights < full.stat().st_size < 4 * weights + 1e6
    assert weights < small.stat().st_size < 1.5 * weights


def test_int8_logits_are_near(both):
    model, _, small = both
    session = LiteRtSession(small, threads=1)
    for batch in batches(40_000):
        error = np.sqrt(np.mean((run(session, batch) - wanted(model, batch)) ** 2))
        assert 0 < error < 0.3 * np.sqrt(np.mean(wanted(model, batch) ** 2))


def test_refuses_a_text_that_no_graph_holds(both):
    ones = np.ones((1, 131), dtype=np.int64)
    with pytest.raises(ValueError, match="Expected texts of at most 130 tokens but got 131; truncate them"):
        LiteRtSession(both[1], threads=1).inputs({"input_ids": ones, "attention_mask": ones})


def test_a_process_that_runs_a_file_never_imports_torch(both, tmp_path):
    (tmp_path / "model.tflite").symlink_to(both[2])
    code = f"""
import sys, numpy as np
from pathlib import Path
from lit_compress.benchmark.runtimes.litert import LiteRtInt8
way = LiteRtInt8()
way.imports(Path("nowhere"))
session = way.open(Path("nowhere"), Path({str(tmp_path)!r}), "cpu", 1)
ones = np.ones((2, 5), dtype=np.int64)
print(session.logits(session.run(session.inputs({{"input_ids": ones, "attention_mask": ones}}))).shape)
assert not {{"torch", "transformers", "jax", "litert_torch"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(2, 3)", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("way", [LiteRtFp32(), LiteRtInt8()], ids=["fp32", "int8"])
def test_blocks_may_differ_in_size_and_lack_attention_or_neurons(way, tmp_path):
    model = ragged()
    folder = save_folder(tmp_path / "model", model, None, {})
    (tmp_path / "out").mkdir()
    assert way.build(folder, tmp_path / "out") <= way.tolerance
    session = way.open(folder, tmp_path / "out", "cpu", 1)
    for batch in batches():
        error = np.sqrt(np.mean((run(session, batch) - wanted(model, batch)) ** 2))
        assert error <= way.tolerance * np.sqrt(np.mean(wanted(model, batch) ** 2))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.tflite"]


def test_refuses_a_file_that_ignores_padding_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the old one")
    monkeypatch.setattr(
        single_text, "_padding_scores", lambda *args, attention_mask, **kwargs: 0 * attention_mask[:, None]
    )
    with pytest.raises(ParityError, match=r"Expected the LiteRT file in fp32 to compute .* nothing was kept"):
        export_litert(tiny_bert(layers=1), path, "fp32", 1e-3)
    assert path.read_bytes() == b"the old one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tflite"]


def test_a_wrong_graph_for_long_texts_is_found():
    model = tiny_bert(layers=1).eval()

    def forward(batch):
        return wanted(model, batch) + (batch["input_ids"].shape[1] == 130)

    assert litert._check_lengths(forward, model, [64, 128], 1e-3, "it") == 0
    with pytest.raises(
        ParityError, match=r"Expected it to compute .* for texts of 130 tokens; nothing was kept"
    ):
        litert._check_lengths(forward, model, [64, 128, 130], 1e-3, "it")


def test_a_text_whose_logits_are_next_to_nothing_may_differ_as_the_others_do():
    """Relative to the logits of that text alone, the error would be five times as large as they are."""
    logits = {16: 1.0, 32: 0.01, 64: -1.0}

    def model(input_ids, **_):
        return SimpleNamespace(logits=torch.full((2, 2), logits[input_ids.shape[1]]))

    model.config = SimpleNamespace(vocab_size=100, pad_token_id=0)

    def forward(batch):
        return model(batch["input_ids"]).logits.numpy() + 0.05

    error = litert._check_lengths(forward, model, list(logits), 0.1, "it")
    assert error == pytest.approx(0.05 / math.sqrt((1 + 0.0001 + 1) / 3))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_full_disk_leaves_nothing(both, tmp_path, monkeypatch, precision):
    content = both[1].read_bytes()
    monkeypatch.setattr(
        "litert_torch.Converter.convert",
        lambda *args: type("Done", (), {"model_content": lambda self: content})(),
    )
    with (
        full_disk(100_000),
        pytest.raises(OSError, match=r"Expected to write .*model\.tflite but got: File too"),
    ):
        export_litert(both[0], tmp_path / "model.tflite", precision, 0.5)
    assert not list(tmp_path.iterdir())


def test_refuses_an_operator_that_has_no_counterpart(tmp_path, monkeypatch):
    model = tiny_bert(layers=1)
    forward = model.classifier.forward
    monkeypatch.setattr(model.classifier, "forward", lambda x: forward(x + x.cpu().detach().numpy().sum()))
    with pytest.raises(
        ValueError, match="Expected a text classifier that LiteRT can express but got BertFor"
    ):
        export_litert(model, tmp_path / "model.tflite", "fp32", 1e-3)
    assert not list(tmp_path.iterdir())


def test_refuses_a_model_that_computes_its_attention_itself(tmp_path):
    config = XLNetConfig(vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=16)
    with pytest.raises(
        ValueError, match="Expected a model that supports.*got XLNetForSequenceClassification"
    ):
        export_litert(XLNetForSequenceClassification(config), tmp_path / "model.tflite", "fp32", 1e-3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_last_block_computes_one_token_where_the_head_reads_no_other(precision, tmp_path):
    from ai_edge_litert import schema_py_generated as schema

    path = tmp_path / "model.tflite"
    export_litert(tiny_bert(layers=2).eval(), path, precision, 0.2)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    code = schema.BuiltinOperator.FULLY_CONNECTED
    for graph in model.subgraphs:
        length = graph.tensors[graph.inputs[0]].shape[1]
        rows = [
            math.prod(graph.tensors[op.outputs[0]].shape[:-1])
            for op in graph.operators
            if model.operatorCodes[op.opcodeIndex].builtinCode == code
        ]
        # Of the last block keys and values are of all tokens; query, output and feed-forward network, pooler and
        # head are not.
        assert sorted(rows) == [1] * 6 + [length] * 8
