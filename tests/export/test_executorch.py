import numpy as np
import pytest

pytest.importorskip("executorch")

from transformers import XLNetConfig, XLNetForSequenceClassification

from lit_compress.benchmark.runtimes.executorch import ExecuTorchFp32, ExecuTorchInt8, ExecuTorchSession
from lit_compress.export import single_text
from lit_compress.export.executorch import export_executorch
from lit_compress.export.parity import ParityError
from lit_compress.models.checkpoint import save_folder
from tests.export.single_texts import batches, full_disk, large_bert, run, segments, wanted
from tests.export.test_ragged import ragged
from tests.tiny import tiny_bert, tiny_model


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A model with a large vocabulary, its float32 program and its int8 program."""
    folder, model = tmp_path_factory.mktemp("executorch"), large_bert()
    errors = [export_executorch(model, folder / f"{kind}.pte", kind, 0.5) for kind in ("fp32", "int8")]
    assert errors[0] < 1e-4 < errors[1]
    assert sorted(path.name for path in folder.iterdir()) == ["fp32.pte", "int8.pte"]
    return model, folder / "fp32.pte", folder / "int8.pte"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "albert"])
def test_program_computes_what_the_model_computes(family, tmp_path):
    model = tiny_model(family, layers=1, dropout=0.1).eval()
    assert export_executorch(model, tmp_path / "model.pte", "fp32", 1e-3) < 1e-4
    session = ExecuTorchSession(tmp_path / "model.pte", threads=1)
    for batch in batches(pad=model.config.pad_token_id):
        np.testing.assert_allclose(run(session, batch), wanted(model, batch), atol=5e-5)
    assert not model.training and model.config._attn_implementation == "sdpa"


def test_logits_are_those_of_the_model_and_pairs_count(both):
    model, full, _ = both
    session = ExecuTorchSession(full, threads=1)
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
    session = ExecuTorchSession(both[which], threads=1)
    (batch,) = [batch for batch in batches(40_000) if batch["input_ids"].shape == (3, 64)]
    together = run(session, batch)
    noise = np.where(batch["attention_mask"] == 1, batch["input_ids"], 7)
    np.testing.assert_array_equal(run(session, {**batch, "input_ids": noise}), together)
    for row, length in enumerate((64, 3, 30)):
        alone = {name: array[row : row + 1, :length] for name, array in batch.items()}
        np.testing.assert_array_equal(run(session, alone)[0], together[row])


def test_programs_read_one_text_in_int32_up_to_the_longest(both):
    from executorch.runtime import Runtime

    facts = Runtime.get().load_program(both[1]).load_method("forward").metadata
    found = [facts.input_tensor_meta(n) for n in range(facts.num_inputs())]
    assert [(entry.sizes(), entry.dtype()) for entry in found] == [((1, 130), 3)] * 2  # 3 is int32


def test_weights_take_four_bytes_or_one(both):
    model, full, small = both
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert 4 * weights < full.stat().st_size < 4 * weights + 5e5
    assert weights < small.stat().st_size < 1.5 * weights


def test_int8_logits_are_near(both):
    model, _, small = both
    session = ExecuTorchSession(small, threads=1)
    for batch in batches(40_000):
        error = np.sqrt(np.mean((run(session, batch) - wanted(model, batch)) ** 2))
        assert 0 < error < 0.3 * np.sqrt(np.mean(wanted(model, batch) ** 2))


def test_xnnpack_computes_everything_between_two_layer_norms(both):
    from executorch.exir._serialize import _deserialize_pte_binary
    from executorch.exir.schema import DelegateCall

    program = _deserialize_pte_binary(both[2].read_bytes()).program
    plan = program.execution_plan[0]
    calls = [i for i in plan.chains[0].instructions if isinstance(i.instr_args, DelegateCall)]
    assert {entry.id for entry in plan.delegates} == {"XnnpackBackend"}
    # The sum of the embeddings, two parts in each of two layers, and the head; taking the first token out of what keys
    # and values of the last layer read parts them from its queries.
    assert len(calls) == 1 + 2 * 2 + 1 + 1


def test_refuses_a_text_that_is_too_long(both):
    ones = np.ones((1, 131), dtype=np.int64)
    with pytest.raises(ValueError, match="Expected texts of at most 130 tokens but got 131; truncate them"):
        ExecuTorchSession(both[1], threads=1).inputs({"input_ids": ones, "attention_mask": ones})


@pytest.mark.slow
@pytest.mark.parametrize("way", [ExecuTorchFp32(), ExecuTorchInt8()], ids=["fp32", "int8"])
def test_blocks_may_differ_in_size_and_lack_attention_or_neurons(way, tmp_path):
    model = ragged()
    folder = save_folder(tmp_path / "model", model, None, {})
    (tmp_path / "out").mkdir()
    assert way.build(folder, tmp_path / "out") <= way.tolerance
    session = way.open(folder, tmp_path / "out", "cpu", 1)
    for batch in batches():
        error = np.sqrt(np.mean((run(session, batch) - wanted(model, batch)) ** 2))
        assert error <= way.tolerance * np.sqrt(np.mean(wanted(model, batch) ** 2))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.pte"]


def test_refuses_a_program_that_computes_something_else_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "model.pte"
    path.write_bytes(b"the old one")
    right = single_text._attention
    monkeypatch.setattr(
        single_text, "_attention", lambda *args, scaling=None, **kwargs: right(*args, scaling=0.0, **kwargs)
    )
    with pytest.raises(ParityError, match=r"Expected the ExecuTorch program in fp32 to .* nothing was kept"):
        export_executorch(tiny_bert(layers=1), path, "fp32", 1e-3)
    assert path.read_bytes() == b"the old one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pte"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "model.pte").write_bytes(b"the old one")
    with (
        full_disk(20_000),
        pytest.raises(OSError, match=r"Expected to write .*model\.pte but got: File too large"),
    ):
        export_executorch(tiny_bert(layers=1), tmp_path / "model.pte", "fp32", 0.5)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.pte": b"the old one"}


def test_refuses_an_operator_that_has_no_counterpart(tmp_path, monkeypatch):
    model = tiny_bert(layers=1)
    forward = model.classifier.forward
    monkeypatch.setattr(model.classifier, "forward", lambda x: forward(x + x.cpu().detach().numpy().sum()))
    with pytest.raises(
        ValueError, match="Expected a text classifier that ExecuTorch can express but got BertFor"
    ):
        export_executorch(model, tmp_path / "model.pte", "fp32", 1e-3)
    assert not list(tmp_path.iterdir())


def test_refuses_a_model_that_computes_its_attention_itself(tmp_path):
    config = XLNetConfig(vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=16)
    with pytest.raises(
        ValueError, match="Expected a model that supports.*got XLNetForSequenceClassification"
    ):
        export_executorch(XLNetForSequenceClassification(config), tmp_path / "model.pte", "fp32", 1e-3)
    assert not list(tmp_path.iterdir())
