"""GGUF files in llama.cpp itself, each test in a process of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from lit_compress.__main__ import main
from lit_compress.export.gguf import export_gguf
from lit_compress.models.checkpoint import load
from lit_compress.models.student import LayerSubset
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.uniform import UniformShape
from tests.export.gguf_models import (
    LLAMA_SPLIT,
    TEXT,
    byte_level,
    decoder,
    exact,
    ragged,
    reload,
    save,
    sentence_pieces,
)
from tests.modules.build import RECIPES, data_module, distillation, trainer
from tests.runs import write_task
from tests.tiny import tiny_bert, tiny_model

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

# Prints what llama.cpp gives for each input, a text or a list of ids: logits of a classifier (pooling 4), else the
# state of the last token (pooling 3). Its flash attention and its cache would compute in half precision.
LLAMA_CPP = """
import json, sys, xllamacpp
path, pooling, inputs = json.load(sys.stdin)
params = xllamacpp.CommonParams()
params.model.path, params.embedding, params.embd_normalize = path, True, -1
params.pooling_type = xllamacpp.llama_pooling_type(pooling)
params.n_ctx = params.n_batch = params.n_ubatch = 256
params.n_parallel, params.warmup, params.verbosity = 1, False, -1
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
ask = lambda one: server.handle_embeddings({"input": one, "embd_normalize": -1})
print(json.dumps([ask(one)["data"][0]["embedding"] for one in inputs]))
"""


def llama_cpp(path, inputs, pooling=4):
    request = json.dumps([str(path), pooling, inputs])
    command = [sys.executable, "-c", LLAMA_CPP]
    found = subprocess.run(command, input=request, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    return np.array(json.loads(found.stdout.strip().splitlines()[-1]), dtype=np.float32)


def ids(rows, lengths=(1, 9, 30)):
    draw = np.random.default_rng(0)
    return [draw.integers(5, rows, length).tolist() for length in lengths]


@torch.inference_mode()
def wanted(model, rows):
    """Logits of a classifier; of a language model the last state of each text."""
    if hasattr(model, "lm_head"):
        return torch.stack(
            [model.model(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        ).numpy()
    return torch.cat([model(torch.tensor([row])).logits for row in rows]).numpy()


def distance(got, right):
    return np.abs(got[:, : right.shape[1]] - right).max() / np.abs(right).max()


def classifier(kind):
    if kind == "uniform":
        return shrink(exact(tiny_bert(layers=3)), UniformShape(layers=2, heads=3, hidden=24, neurons=40))
    if kind == "ragged":
        return ragged(exact(tiny_bert(layers=3, hidden=24, heads=4)), {("head", 1), ("neuron", 2)})
    return tiny_bert()


@pytest.mark.parametrize("kind", ["ordinary", "uniform", "ragged"])
def test_a_classifier_gives_its_logits(kind, tmp_path):
    model = exact(classifier(kind))
    export_gguf(save(model, tmp_path / "model"), tmp_path / "model.gguf", "f32")
    rows = ids(100)
    # llama.cpp looks GELU up in a table of half precision.
    assert distance(llama_cpp(tmp_path / "model.gguf", rows), wanted(model, rows)) < 3e-3


@pytest.mark.parametrize("precision", ["f16", "bf16", "q8_0", "q4_0"])
def test_every_precision_is_read(precision, tmp_path):
    model = tiny_bert(layers=1, hidden=64).eval()
    export_gguf(save(model, tmp_path / "model"), tmp_path / "model.gguf", precision)
    error = distance(llama_cpp(tmp_path / "model.gguf", ids(100)), wanted(model, ids(100)))
    assert error < {"f16": 0.02, "bf16": 0.05, "q8_0": 0.05, "q4_0": 0.6}[precision]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "ragged llama", "ragged qwen2"])
def test_a_language_model_gives_its_states(kind, tmp_path):
    model = decoder(kind.split()[-1])
    if "ragged" in kind:
        ragged(model, {("head", 0), ("neuron", 1), ("head", 2), ("neuron", 2)})
    export_gguf(save(model, tmp_path / "model", byte_level()), tmp_path / "model.gguf", "f32")
    rows = ids(290)
    assert distance(llama_cpp(tmp_path / "model.gguf", rows, pooling=3), wanted(model, rows)) < 1e-4


@pytest.mark.parametrize("kind", ["wordpiece", "roberta", "gpt2", "llama3", "qwen2", "llama2"])
def test_a_text_becomes_the_same_tokens(kind, tmp_path):
    texts = [*TEXT, "A Very  unknown w0rd, 12345's", "x"]
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = {
        "wordpiece": lambda: None,
        "roberta": lambda: byte_level(around=True, **names, cls_token="<s>", sep_token="</s>"),
        "gpt2": byte_level,
        "llama3": lambda: byte_level(split=LLAMA_SPLIT, bos=True),
        "qwen2": lambda: byte_level(split=LLAMA_SPLIT.replace("{1,3}", "")),
        "llama2": sentence_pieces,
    }[kind]()
    rows = 100 if tokenizer is None else len(tokenizer)
    if kind in ("wordpiece", "roberta"):
        model = tiny_model("bert" if kind == "wordpiece" else "roberta", vocab=rows).eval()
        model.config.pad_token_id = int(kind == "roberta")
        model = reload(model)
    else:
        model = decoder("llama", rows=rows)
    folder = save(model, tmp_path / "model", tokenizer)
    export_gguf(folder, tmp_path / "model.gguf", "f32")
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = [own.encode(text).ids for text in texts]
    pooling = 4 if kind in ("wordpiece", "roberta") else 3
    # What lies behind the three logits of a classifier is whatever was in the memory.
    found = llama_cpp(tmp_path / "model.gguf", [*texts, *encoded], pooling)[:, : 3 if pooling == 4 else None]
    np.testing.assert_allclose(found[: len(texts)], found[len(texts) :], atol=1e-4)
    assert len({tuple(row) for row in found[: len(texts)].round(3)}) == len(texts)


def test_infer_gives_the_logits_of_single_texts_and_refuses_pairs(tmp_path):
    model = exact(tiny_bert())
    export_gguf(save(model, tmp_path / "model"), tmp_path / "model.gguf", "f32")
    rows = ids(100, (4, 9))
    batch = {
        "input_ids": [rows[0] + [0] * 5, rows[1]],
        "attention_mask": [[1] * 4 + [0] * 5, [1] * 9],
        "token_type_ids": [[0] * 9, [0] * 9],
    }
    program = (
        "import json, sys, pathlib, numpy as np; from lit_compress.export.infer.gguf import open_model\n"
        "folder, batch = json.load(sys.stdin)\n"
        "batch = {name: np.array(rows, dtype=np.int64) for name, rows in batch.items()}\n"
        "settings = {'labels': ['a', 'b', 'c'], 'max_length': 130, 'model_type': 'bert'}\n"
        "run = open_model(pathlib.Path(folder), settings, 1)\n"
        "print(json.dumps(run(batch).tolist()))\n"
        "batch['token_type_ids'][0, 3] = 1\n"
        "try: run(batch)\n"
        "except ValueError as error: print(error)"
    )
    request = json.dumps([str(tmp_path), batch])
    found = subprocess.run(
        [sys.executable, "-c", program],
        input=request,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    logits, refusal = found.stdout.strip().splitlines()[-2:]
    assert distance(np.array(json.loads(logits)), wanted(model, rows)) < 5e-3
    assert refusal.startswith("Expected single texts but got a pair")


@pytest.mark.slow
def test_an_exported_language_model_goes_on_as_the_model_does(tmp_path):
    torch.manual_seed(3)  # with which no two tokens are nearly as likely: half precision would decide
    model = decoder("llama")
    folder = save(model, tmp_path / "model", byte_level())
    out = tmp_path / "out"
    assert main(["export", str(folder), "--format", "gguf", "--precision", "f32", "--out", str(out)]) == 0
    assert json.loads((out / "export.json").read_text())["labels"] == []
    assert 'pip install "xllamacpp' in (out / "README.md").read_text()
    command = [sys.executable, "infer.py", TEXT[0], "--tokens", "6"]
    found = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=300, check=True)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = torch.tensor([own.encode(TEXT[0]).ids])
    for _ in range(6):
        with torch.inference_mode():
            logits, likely = model(tokens).logits[0, -1].topk(2)
        assert logits[1] < 0.95 * logits[0]
        tokens = torch.cat([tokens, likely[None, :1]], 1)
    assert found.stdout.rstrip("\n") == own.decode(tokens[0].tolist())


@pytest.mark.slow
def test_an_exported_distilled_student_names_the_labels_that_it_names_itself(tmp_path):
    write_task(tmp_path)
    module = distillation(tmp_path, RECIPES["soft"](), student=LayerSubset("every_other"))
    trainer(tmp_path, max_steps=3).fit(module, data_module(tmp_path))
    folder = save(exact(module.student), tmp_path / "student", label_names=["bad", "good"])
    out = tmp_path / "out"
    assert main(["export", str(folder), "--format", "gguf", "--precision", "f32", "--out", str(out)]) == 0
    model, texts = load(folder), ["a very good film", "awful plot and poor music", "it was not bad"]
    command = [sys.executable, "infer.py", *texts]
    found = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=300, check=True)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for line, text in zip(found.stdout.splitlines(), texts, strict=True):
        with torch.inference_mode():
            odds = model(torch.tensor([own.encode(text).ids])).logits.softmax(-1)[0]
        label, share, same = line.split("\t")
        assert (label, same) == (["bad", "good"][int(odds.argmax())], text)
        assert float(share) == pytest.approx(float(odds.max()), abs=5e-3)
