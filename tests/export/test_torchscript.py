"""TorchScript files: free in batch size and length, and nothing is left of one that failed."""

import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from transformers.models.bert.modeling_bert import BertPooler

from lit_compress.benchmark.runtimes.torchscript import TorchScriptFp32, TorchScriptSession
from lit_compress.benchmark.workload import token_batch
from lit_compress.export import torchscript as export
from lit_compress.export.infer import torchscript as infer
from lit_compress.export.parity import ParityError
from lit_compress.export.torchscript import export_torchscript
from tests.export.single_texts import refusal_of_a_full_disk
from tests.export.test_ragged import ragged
from tests.tiny import tiny_bert, tiny_model

LONGEST = 129  # of every tiny family

# Reads a batch and writes the logits, in a process that must not import anything of ours.
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from infer_part import open_model
forward = open_model(Path(sys.argv[1]), json.loads(sys.argv[2]), 1)
batch = {name: np.array(rows) for name, rows in json.load(sys.stdin).items()}
print(json.dumps(forward(batch).tolist()))
assert not {"lit_compress", "transformers", "lightning"} & set(sys.modules)
"""


def run(session, batch):
    return session.logits(session.run(session.inputs(batch)))


@torch.inference_mode()
def wanted(model, batch):
    return model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()


def batches(model):
    """Texts of 1, 3, 17, 128 tokens and the most that the tiny models read, alone and in batches of 32."""
    for length in (1, 3, 17, 128, LONGEST):
        for size in (1, 32):
            lengths = [length] + [1 + (7 * n) % length for n in range(size - 1)]
            yield token_batch(lengths, model.config.vocab_size, model.config.pad_token_id, seed=length)


def clean_process(module, folder, settings, batch):
    """Return what ``open_model`` of an infer module gives in a process of its own."""
    shutil.copy(module.__file__, folder / "infer_part.py")
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, str(folder), json.dumps(settings)],
        input=json.dumps({name: rows.tolist() for name, rows in batch.items()}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return np.array(json.loads(done.stdout))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert"])
def test_file_computes_what_the_model_computes(family, tmp_path):
    # Dropout: a model that is traced in train mode is found out.
    model = tiny_model(family, layers=2, dropout=0.1)
    assert export_torchscript(model, tmp_path / "model.pt") < 1e-4
    assert model.training
    model.eval()
    session = TorchScriptSession(tmp_path / "model.pt", threads=1)
    for batch in batches(model):
        np.testing.assert_allclose(run(session, batch), wanted(model, batch), atol=5e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("headless", [(1,), range(4)], ids=["one block", "all blocks"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_blocks_may_differ_and_lack_attention(family, headless, tmp_path):
    model = ragged(family, headless)
    export_torchscript(model, tmp_path / "model.pt")
    session = TorchScriptSession(tmp_path / "model.pt", threads=1)
    for batch in batches(model):
        np.testing.assert_allclose(run(session, batch), wanted(model, batch), atol=5e-5)


def test_segments_of_pairs_count(tmp_path):
    model = tiny_bert(layers=1).eval()
    export_torchscript(model, tmp_path / "model.pt")
    batch = token_batch([9, 6], 100, 0, seed=1)
    pairs = {**batch, "token_type_ids": (np.arange(9) > 3) * batch["attention_mask"]}
    session = TorchScriptSession(tmp_path / "model.pt", threads=1)
    np.testing.assert_allclose(run(session, pairs), wanted(model, pairs), atol=5e-5)
    assert np.abs(wanted(model, pairs) - wanted(model, batch)).max() > 1e-2


def test_weights_in_half_precision_are_exported_in_float32(tmp_path):
    model = tiny_bert(layers=1).to(torch.bfloat16)
    export_torchscript(model, tmp_path / "model.pt")
    batch = token_batch([9, 6], 100, 0, seed=1)
    got = run(TorchScriptSession(tmp_path / "model.pt", threads=1), batch)
    assert model.dtype == torch.bfloat16
    np.testing.assert_allclose(got, wanted(model.float().eval(), batch), atol=5e-5)


def test_the_part_of_infer_runs_in_a_clean_process_without_warnings(tmp_path):
    model = tiny_bert(layers=2).eval()
    model.save_pretrained(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TorchScriptFp32().build(tmp_path / "model", tmp_path) < 1e-4
        TorchScriptFp32().open(tmp_path / "model", tmp_path, "cpu", threads=1)
    batch = token_batch([9, 6, 17], 100, 0, seed=1)
    got = clean_process(infer, tmp_path, {}, batch)
    np.testing.assert_allclose(got, wanted(model, batch), atol=5e-5)


def test_refuses_a_file_that_ignores_padding_and_leaves_the_old_one(tmp_path, monkeypatch):
    class Ignores(export.Logits):
        def forward(self, input_ids, attention_mask, token_type_ids):
            return super().forward(input_ids, attention_mask * 0 + 1, token_type_ids)

    (tmp_path / "model.pt").write_bytes(b"the old one")
    monkeypatch.setattr(export, "Logits", Ignores)
    with pytest.raises(ParityError, match=r"Expected the TorchScript file to compute .* nothing was kept"):
        export_torchscript(tiny_bert(layers=1), tmp_path / "model.pt")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.pt": b"the old one"}


def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"the old one")
    told = refusal_of_a_full_disk(export_torchscript, tmp_path / "model.pt", 20_000)
    assert told == f"Expected to write {tmp_path / 'model.pt'} but got: File too large; check the disk."
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.pt": b"the old one"}


def test_refuses_a_model_that_it_cannot_trace(tmp_path, monkeypatch):
    def forward(self, states):
        raise RuntimeError("depends on the values\nof a tensor")

    monkeypatch.setattr(BertPooler, "forward", forward)
    with pytest.raises(
        ValueError, match="TorchScript can trace but got BertFor.* RuntimeError: depends on the values; use"
    ) as caught:
        export_torchscript(tiny_model("bert"), tmp_path / "model.pt")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
