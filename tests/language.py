"""A tiny language model with its tokenizer and a text, as folders and files."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lit_compress.models.checkpoint import save_folder
from tests.tiny import WORDS, tiny_tokenizer


def tiny_llama(seed: int = 0, hidden: int = 32, layers: int = 2) -> LlamaForCausalLM:
    """A Llama with random weights, larger than those of its own initialisation, and grouped queries; in eval mode."""
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def llama_folder(folder: Path, seed: int = 0) -> str:
    """Save a tiny Llama with a tokenizer; return the path of its folder."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer(folder.parent / "tokenizer"))
    return str(
        save_folder(folder, tiny_llama(seed), tokenizer, {"method": "x", "metrics": {"val/loss": 1.0}})
    )


def text_file(path: Path, words: int = 600, seed: int = 0) -> str:
    """Write random words, ten a line; return the path of the file. Each word is one token."""
    draw = random.Random(seed)
    lines = [" ".join(draw.choices(WORDS, k=10)) for _ in range(words // 10)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
