"""Tiny models and tokenizers for the tests of GGUF files."""

import json

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shape import cut_further
from tests.families import family_model
from tests.tiny import tiny_tokenizer

TEXT = ["a good film", "It's   the very Best of 1234 stories!", "naïve café\n\n\tend, 東京", "don't…"]
LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def exact(model):
    """Let a model compute GELU as llama.cpp does, so that nothing but rounding is left of the error."""
    model.config.hidden_act = "gelu_new"
    for layer in getattr(model.base_model, "encoder", model.base_model).layer:
        if hasattr(layer.intermediate, "intermediate_act_fn"):
            layer.intermediate.intermediate_act_fn = torch.nn.GELU(approximate="tanh")
    return model.eval()


def save(model, path, tokenizer=None, **facts):
    save_folder(path, model, None, facts)
    if tokenizer is None:
        tiny_tokenizer(path)
    else:
        tokenizer.save_pretrained(path)
    return path


def byte_level(rows=300, split=None, bos=False, around=False, **special):
    """A byte-level BPE tokenizer: GPT-2's, or one that splits words by a regular expression first."""
    tokenizer = Tokenizer(models.BPE())
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split is not None:
        steps.insert(0, pre_tokenizers.Split(Regex(split), "isolated"))
    tokenizer.pre_tokenizer = steps[0] if split is None else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=rows,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    if around:
        marks = [("<s>", 0), ("</s>", 2)]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    special = special or {"bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **special)


def sentence_pieces(rows=400):
    """BPE with byte fallback, prepared as Llama 2 does."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.train_from_iterator(
        TEXT * 3, trainers.BpeTrainer(vocab_size=rows - len(pieces), show_progress=False)
    )
    learned = json.loads(trained.to_str())["model"]
    pieces += sorted(learned["vocab"], key=learned["vocab"].get)
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = trained.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def decoder(family, rows=300, **config):
    """A tiny language model of float32 weights with ``rows`` tokens, all attending to all tokens."""
    model = family_model(family, dtype=torch.float32)
    model.resize_token_embeddings(rows)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.4)
    for key, value in {"max_position_embeddings": 130, **config}.items():
        setattr(model.config, key, value)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = ["full_attention"] * len(model.config.layer_types)
        model = reload(model)
    return model


def reload(model):
    """The same weights in a model that has read its configuration anew."""
    new = type(model)(model.config).eval()
    new.load_state_dict(model.state_dict())
    return new


def ragged(model, empty=()):
    """Cut other numbers of heads and neurons from each block; ``empty`` groups lose all."""
    units = {}
    for group in find_groups(model, ["head", "neuron"]):
        left = 1 if group.structure == "head" and group.layer == 0 else group.units - 3 * group.layer
        left = group.units if group.structure == "head" and group.layer else left
        units[group.name] = list(range(0 if (group.structure, group.layer) in empty else left))
    cut_further(model, units)
    return model
