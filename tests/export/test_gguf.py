"""GGUF files: compared with the model through the tensors that are in them, and by independent readers."""

import json
import resource
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from lit_compress.export.formats import Builder
from lit_compress.export.gguf import GgufF16, GgufQ4, GgufQ8, export_gguf, graph, write
from lit_compress.export.gguf.tensors import PRECISIONS
from lit_compress.export.parity import ParityError
from lit_compress.models.anatomy import dissect
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shape import cut_further
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.uniform import UniformShape
from tests.export.gguf_models import (
    LLAMA_SPLIT,
    byte_level,
    decoder,
    exact,
    ragged,
    reload,
    save,
    sentence_pieces,
)
from tests.tiny import tiny_bert, tiny_model, tiny_tokenizer

gguf = pytest.importorskip("gguf")


def read(path):
    reader = gguf.GGUFReader(path)
    return {name: entry.contents() for name, entry in reader.fields.items()}, {
        t.name: t for t in reader.tensors
    }


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_file_computes_what_the_classifier_computes(family, tmp_path):
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    model = exact(tiny_model(family, vocab=300 if family == "roberta" else 100))
    model.config.pad_token_id = 1 if family == "roberta" else 0
    tokenizer = byte_level(**tokens) if family == "roberta" else None
    if family == "roberta":
        model = exact(reload(model))
    folder = save(model, tmp_path / "model", tokenizer)
    assert export_gguf(folder, tmp_path / "model.gguf", "f32") < 1e-4
    assert names(tmp_path) == ["model", "model.gguf"]


def test_gelu_is_the_approximation_of_llama_cpp(tmp_path):
    folder = save(tiny_bert().eval(), tmp_path / "model")
    assert 1e-5 < export_gguf(folder, tmp_path / "model.gguf", "f32") < 0.02


@pytest.mark.parametrize("shape", [{"layers": 2}, {"heads": 3, "hidden": 24}, {"neurons": 24}])
def test_a_uniform_classifier_keeps_its_size(shape, tmp_path):
    model = exact(shrink(exact(tiny_bert(layers=3)), UniformShape(**shape)))
    folder = save(model, tmp_path / "model")
    assert export_gguf(folder, tmp_path / "model.gguf", "f32") < 1e-4
    fields, tensors = read(tmp_path / "model.gguf")
    wanted = {"layers": 3, "heads": 4, "hidden": 32, "neurons": 64} | shape
    named = ("block_count", "attention.head_count", "embedding_length", "feed_forward_length")
    assert [fields[f"bert.{name}"] for name in named] == list(wanted.values())
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert sum(int(tensor.n_elements) for tensor in tensors.values()) == weights


@pytest.mark.parametrize("empty", [(), {("head", 1), ("neuron", 2)}, {("head", n) for n in range(3)}])
def test_a_ragged_classifier_is_padded_to_its_widest_block(empty, tmp_path):
    model = exact(ragged(exact(tiny_bert(layers=3, hidden=24, heads=4)), empty))
    folder = save(model, tmp_path / "model")
    assert export_gguf(folder, tmp_path / "model.gguf", "f32") < 1e-4
    assert read(tmp_path / "model.gguf")[0]["bert.feed_forward_length"] == 48


@pytest.mark.parametrize(("heads", "places"), [(3, 4), (2, 2), (1, 1)])
def test_fewer_heads_become_wider_ones(heads, places, tmp_path):
    model = exact(tiny_bert(layers=2))
    cut_further(model, {group.name: list(range(heads)) for group in find_groups(model, ["head"])})
    folder = save(model, tmp_path / "model")
    assert export_gguf(folder, tmp_path / "model.gguf", "f32") < 1e-4
    assert read(tmp_path / "model.gguf")[0]["bert.attention.head_count"] == places


@pytest.mark.parametrize("hidden", [24, 33])
def test_hidden_states_that_heads_do_not_fill_are_refused(hidden, tmp_path):
    model = tiny_bert(hidden=40, heads=5).eval()
    cut_further(model, {"hidden": list(range(hidden))})
    folder = save(model, tmp_path / "model")
    match = rf"^Expected hidden dimensions that 5 or more heads of 8.*but got {hidden}; .*--heads N --hidden 8\*N`"
    with pytest.raises(ValueError, match=match):
        export_gguf(folder, tmp_path / "model.gguf", "f16")
    assert names(tmp_path) == ["model"]


def test_the_metadata_are_those_of_a_ranking_model_with_its_labels(tmp_path):
    folder = save(tiny_bert(layers=1).eval(), tmp_path / "model", label_names=["bad", "fine", "good"])
    export_gguf(folder, tmp_path / "model.gguf", "f16")
    fields, tensors = read(tmp_path / "model.gguf")
    assert fields["general.architecture"] == "bert"
    assert fields["bert.classifier.output_labels"] == ["bad", "fine", "good"]
    assert fields["bert.pooling_type"] == gguf.PoolingType.RANK
    assert fields["bert.attention.causal"] is False
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert fields["tokenizer.ggml.token_type_count"] == 2
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, 1)
    shorts = {value[1] for value in known.mapping.values()} | {"cls", "cls.output"}
    assert {name.rpartition(".")[0] for name in tensors} <= shorts


def test_the_vocabulary_is_written_with_a_mark_at_the_start_of_words(tmp_path):
    folder = save(tiny_bert(layers=1, vocab=104).eval(), tmp_path / "model")
    export_gguf(folder, tmp_path / "model.gguf", "f16")
    fields, _ = read(tmp_path / "model.gguf")
    ids = AutoTokenizer.from_pretrained(folder).get_vocab()
    pieces, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(pieces) == len(kinds) == 104
    assert pieces[ids["film"]] == "▁film" and pieces[ids["##e"]] == "e" and pieces[ids["[CLS]"]] == "[CLS]"
    assert pieces[103] == "[PAD103]" and kinds[103] == gguf.TokenType.UNUSED
    assert kinds[ids["[SEP]"]] == gguf.TokenType.CONTROL and kinds[ids["film"]] == gguf.TokenType.NORMAL
    special = {"bos": "[CLS]", "seperator": "[SEP]", "unknown": "[UNK]", "padding": "[PAD]", "mask": "[MASK]"}
    assert {name: fields[f"tokenizer.ggml.{name}_token_id"] for name in special} == {
        name: ids[token] for name, token in special.items()
    }
    assert fields["tokenizer.ggml.normalizer.lowercase"] is True


@pytest.mark.parametrize(
    ("precision", "bits"), [("f32", 32), ("f16", 16), ("bf16", 16), ("q8_0", 8.5), ("q4_0", 4.5)]
)
def test_weights_have_the_bits_of_their_precision(precision, bits, tmp_path):
    model = tiny_bert(layers=1, hidden=64).eval()
    folder = save(model, tmp_path / "model")
    error = export_gguf(folder, tmp_path / "model.gguf", precision)
    assert 0 < error < PRECISIONS[precision].tolerance
    _, tensors = read(tmp_path / "model.gguf")
    name = "blk.0.ffn_up.weight"
    weight = model.bert.encoder.layer[0].intermediate.dense.weight.detach().numpy()
    assert tensors[name].n_bytes * 8 == bits * weight.size
    stored = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
    # Half a step of the block and the rounding of its scale; q4_0 has eight steps down and seven up.
    step = np.abs(weight.reshape(-1, 32)).max(1).repeat(32).reshape(weight.shape)
    share = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.58 / 127, "q4_0": 1.02 / 8}[precision]
    assert (np.abs(stored - weight) <= share * step + 1e-9).all()
    assert tensors["position_embd.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    assert tensors["cls.output.weight"].tensor_type != gguf.GGMLQuantizationType.Q4_0


def test_rows_that_are_no_whole_blocks_stay_in_half_precision(tmp_path):
    folder = save(tiny_bert(layers=1, hidden=24).eval(), tmp_path / "model")
    export_gguf(folder, tmp_path / "model.gguf", "q8_0")
    kinds = {tensor.tensor_type.name for tensor in read(tmp_path / "model.gguf")[1].values()}
    assert kinds == {"F32", "F16"}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_the_file_computes_what_the_language_model_computes(family, tmp_path):
    folder = save(decoder(family), tmp_path / "model", byte_level())
    assert export_gguf(folder, tmp_path / "model.gguf", "f32") < 1e-4
    assert read(tmp_path / "model.gguf")[0]["general.architecture"] == {"mistral": "llama"}.get(
        family, family
    )


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "rope_theta": 5000.0, "factor": 3.0},
        {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_scaled_positions_are_kept(rope, tmp_path):
    model = reload(decoder("llama", rope_parameters=rope))
    plain = save(decoder("llama"), tmp_path / "plain", byte_level())
    folder = save(model, tmp_path / "model", byte_level())
    assert export_gguf(folder, tmp_path / "model.gguf", "f32") < 1e-4
    export_gguf(plain, tmp_path / "plain.gguf", "f32")
    batch = {"input_ids": np.arange(60)[None] + 5, "attention_mask": np.ones((1, 60), np.int64)}
    answers = [graph.read_graph(tmp_path / f"{name}.gguf")(batch) for name in ("model", "plain")]
    assert np.abs(answers[0] - answers[1]).max() > 1e-2


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("empty", [(), {("head", 0), ("neuron", 1)}, {("head", 2), ("neuron", 2)}])
def test_a_ragged_language_model_becomes_an_architecture_with_arrays(family, empty, tmp_path):
    model = ragged(decoder(family), empty)
    folder = save(model, tmp_path / "model", byte_level())
    assert export_gguf(folder, tmp_path / "model.gguf", "f32") < 1e-4
    fields, _ = read(tmp_path / "model.gguf")
    blocks = dissect(model).blocks
    assert fields["general.architecture"] == "deci"
    assert fields["deci.feed_forward_length"] == [
        b.feed_forward.neurons if b.feed_forward else 1 for b in blocks
    ]
    assert fields["deci.attention.head_count_kv"] == [
        b.attentions[0].heads if b.attentions else 1 for b in blocks
    ]


def test_a_ragged_qwen3_is_refused(tmp_path):
    folder = save(ragged(decoder("qwen3")), tmp_path / "model", byte_level())
    with pytest.raises(
        ValueError, match=r"its architecture 'qwen3'.*Qwen3ForCausalLM.*--heads … --neurons …"
    ):
        export_gguf(folder, tmp_path / "model.gguf", "f32")


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_transformers_reads_the_language_model_back(family, tmp_path):
    # An independent reader of names, order of rotary dimensions and metadata. It has no biases for Llama.
    model = decoder(family)
    if family == "llama":
        model.config.attention_bias = model.config.mlp_bias = False
        bare = type(model)(model.config).eval()
        bare.load_state_dict({k: v for k, v in model.state_dict().items() if k in bare.state_dict()})
        model = bare
    folder = save(model, tmp_path / "model", byte_level())
    export_gguf(folder, tmp_path / "model.gguf", "f32")
    read_back = load_gguf_checkpoint(
        str(tmp_path / "model.gguf"), return_tensors=True, model_to_load=reload(model)
    )
    stored = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    assert set(stored) <= set(read_back["tensors"])
    for name, tensor in stored.items():
        torch.testing.assert_close(read_back["tensors"][name], tensor, msg=name)
    said = {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}
    assert {key: read_back["config"][key] for key in said} == said


@pytest.mark.parametrize(
    ("tokenizer", "model", "pre"),
    [
        (byte_level(), "gpt2", "gpt-2"),
        (byte_level(split=LLAMA_SPLIT, bos=True), "gpt2", "llama-bpe"),
        (byte_level(split=LLAMA_SPLIT.replace("{1,3}", "")), "gpt2", "qwen2"),
        (sentence_pieces(), "llama", "default"),
    ],
    ids=["gpt2", "llama3", "qwen2", "llama2"],
)
def test_tokenizers_of_language_models_are_named(tokenizer, model, pre, tmp_path):
    folder = save(decoder("llama", rows=len(tokenizer) + 2), tmp_path / "model", tokenizer)
    export_gguf(folder, tmp_path / "model.gguf", "f16")
    fields, _ = read(tmp_path / "model.gguf")
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == (model, pre)
    begins = tokenizer("")["input_ids"] == [tokenizer.bos_token_id]
    assert (
        fields["tokenizer.ggml.add_bos_token"] is begins and fields["tokenizer.ggml.add_eos_token"] is False
    )
    assert len(fields["tokenizer.ggml.tokens"]) == len(tokenizer) + 2


def test_scores_of_pieces_give_the_order_of_the_merges(tmp_path):
    # Merging by the highest score, as llama.cpp does, must end in the same pieces.
    tokenizer = sentence_pieces()
    folder = save(decoder("llama", rows=len(tokenizer)), tmp_path / "model", tokenizer)
    export_gguf(folder, tmp_path / "model.gguf", "f16")
    fields, _ = read(tmp_path / "model.gguf")
    pieces = fields["tokenizer.ggml.tokens"]
    scores = dict(zip(pieces, fields["tokenizer.ggml.scores"], strict=True))
    for text in ("a goods filmy story", "the best is verygood"):
        parts = list("▁" + text.replace(" ", "▁"))
        while True:
            pairs = [(scores[a + b], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
            if not pairs:
                break
            place = -max(pairs)[1]
            parts[place : place + 2] = ["".join(parts[place : place + 2])]
        known = [part for part in parts if part in scores]
        assert known == [p for p in tokenizer.tokenize(text) if not p.startswith("<0x")] and len(known) > 3


def refused_tokenizer(kind, folder):
    if kind == "cased":
        spec = json.loads((folder / "tokenizer.json").read_text())
        spec["normalizer"] = {"type": "NFKC"}
        (folder / "tokenizer.json").write_text(json.dumps(spec))
        return "WordPiece with another normalizer"
    if kind == "missing":
        (folder / "tokenizer.json").unlink()
        return "Expected a fast tokenizer"
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
        return "the model Unigram"
    if kind == "split":
        byte_level(rows=290, split=r"\w+").save_pretrained(folder)
        return "splits words in a way other than"
    tiny_tokenizer(folder, [f"word{n}" for n in range(400)])
    return "at most as many tokens as the 300 rows"


@pytest.mark.parametrize("kind", ["cased", "missing", "unigram", "split", "large"])
def test_a_tokenizer_that_llama_cpp_has_not_is_refused(kind, tmp_path):
    folder = save(tiny_bert(layers=1, vocab=300).eval(), tmp_path / "model")
    match = refused_tokenizer(kind, folder)
    with pytest.raises(ValueError, match=match):
        export_gguf(folder, tmp_path / "model.gguf", "f16")
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("family", ["distilbert", "electra", "albert"])
def test_other_families_are_refused(family, tmp_path):
    folder = save(tiny_model(family).eval(), tmp_path / "model")
    with pytest.raises(ValueError, match=rf"families bert, roberta, llama.*but got '{family}'.*such as onnx"):
        export_gguf(folder, tmp_path / "model.gguf", "f16")


def test_what_the_graph_of_llama_cpp_lacks_is_refused(tmp_path):
    relu = tiny_bert(layers=1)
    relu.config.hidden_act = "relu"
    window = decoder("mistral", sliding_window=64)
    yarn = decoder(
        "llama",
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 2.0,
            "original_max_position_embeddings": 40,
        },
    )
    for number, (model, match) in enumerate(
        [
            (relu, "Expected the activation gelu.*'relu'"),
            (window, "sliding window of 64 tokens"),
            (yarn, "default, linear or llama3 but got 'yarn'"),
        ]
    ):
        folder = save(model.eval(), tmp_path / str(number), byte_level())
        with pytest.raises(ValueError, match=match):
            export_gguf(folder, tmp_path / "model.gguf", "f16")


@pytest.mark.parametrize(
    ("precision", "match"), [("q4_k_m", "llama-quantize model.gguf .*Q4_K_M"), ("int8", "f32, f16")]
)
def test_other_precisions_are_refused(precision, match, tmp_path):
    with pytest.raises(ValueError, match=rf"Expected a precision of gguf but got '{precision}'; .*{match}"):
        export_gguf(tmp_path, tmp_path / "model.gguf", precision)


def test_refuses_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    for call in (GgufF16().check, lambda: export_gguf(tmp_path, tmp_path / "model.gguf", "f16")):
        with pytest.raises(
            ImportError, match=r'Expected gguf for GGUF files.*pip install "lit-compress\[gguf\]"'
        ):
            call()


def test_a_full_disk_leaves_the_old_file(tmp_path):
    folder = save(tiny_bert(layers=1).eval(), tmp_path / "model")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"the old one")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError):
            export_gguf(folder, path, "f32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"the old one" and names(tmp_path) == ["model", "model.gguf"]


@pytest.mark.parametrize("fault", ["scale", "swapped"])
def test_a_file_that_computes_something_else_is_not_kept(fault, tmp_path, monkeypatch):
    folder = save(tiny_bert(layers=2).eval(), tmp_path / "model")
    real = write.encoder_layout

    def broken(model):
        made = real(model)
        names = ("blk.1.attn_q.weight", "blk.1.attn_k.weight")
        first, second = (made.tensors[name] for name in names)
        made.tensors[names[0]] = first * 2 if fault == "scale" else second
        return made

    monkeypatch.setattr(write, "encoder_layout", broken)
    with pytest.raises(ParityError, match="Expected the f16 GGUF file to compute the logits of the original"):
        export_gguf(folder, tmp_path / "model.gguf", "f16")
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("builder", [GgufF16, GgufQ8, GgufQ4])
def test_builders_write_one_file(builder, tmp_path):
    folder = save(tiny_bert(layers=1, hidden=64).eval(), tmp_path / "model")
    target = tmp_path / "target"
    target.mkdir()
    way = builder()
    assert isinstance(way, Builder) and 0 < way.build(folder, target) < way.tolerance
    assert names(target) == ["model.gguf"]
