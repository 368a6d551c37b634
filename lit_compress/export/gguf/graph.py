"""What llama.cpp computes from a GGUF file, in torch: to compare a file with the model that it was written from.

Written after the graphs of llama.cpp, not after the models of transformers, and it knows nothing but the file. So a
tensor under a wrong name, in a wrong order or with a wrong scale shows as a difference of the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.export.gguf.decoder import NEIGHBOURS


class GgufFile:
    """Metadata and dequantized tensors of a file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader
        from gguf.quants import dequantize

        reader = GGUFReader(path)
        self._fields = reader.fields
        self.arch: str = reader.fields["general.architecture"].contents()
        self.tensors = {}
        for entry in reader.tensors:
            array = dequantize(entry.data, entry.tensor_type).reshape([int(n) for n in entry.shape[::-1]])
            self.tensors[entry.name] = torch.from_numpy(np.array(array, dtype=np.float32))
        self.blocks = int(self.get("block_count"))

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field of the architecture."""
        entry = self._fields.get(f"{self.arch}.{name}")
        return default if entry is None else entry.contents()

    def per_block(self, name: str) -> list[int]:
        """Return a figure that a file gives once, or once per block."""
        value = self.get(name)
        return list(value) if isinstance(value, list) else [value] * self.blocks

    def linear(self, states: Tensor, name: str) -> Tensor:
        """Return the projection ``name`` of states."""
        return F.linear(states, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def layer_norm(self, states: Tensor, name: str) -> Tensor:
        """Return the layer normalisation ``name`` of states."""
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return F.layer_norm(states, weight.shape, weight, bias, self.get("attention.layer_norm_epsilon"))

    def rms_norm(self, states: Tensor, name: str) -> Tensor:
        """Return the root mean square normalisation ``name`` of states."""
        weight = self.tensors[f"{name}.weight"]
        return F.rms_norm(states, weight.shape, weight, self.get("attention.layer_norm_rms_epsilon"))


def read_graph(path: Path) -> Callable[[Batch], npt.NDArray[np.float32]]:
    """Return what a file computes.

    Args:
        path: A file of one of the architectures that are written here.

    Returns:
        The function from a batch to logits: ``(texts, labels)`` of a classifier, ``(texts, vocabulary)`` of the
        token behind each text of a language model.
    """
    file = GgufFile(path)
    graph = _encoder if file.arch == "bert" else _decoder

    @torch.inference_mode()
    def run(batch: Batch) -> npt.NDArray[np.float32]:
        ids, mask = (torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask"))
        return graph(file, ids, mask.bool()).numpy()

    return run


def _encoder(file: GgufFile, ids: Tensor, mask: Tensor) -> Tensor:
    heads = file.per_block("attention.head_count")
    states = F.embedding(ids, file.tensors["token_embd.weight"])
    states = (
        states + file.tensors["token_types.weight"][0] + file.tensors["position_embd.weight"][: ids.shape[1]]
    )
    states = file.layer_norm(states, "token_embd_norm")
    for block in range(file.blocks):
        name = f"blk.{block}"
        query, key, value = (
            _heads(file.linear(states, f"{name}.attn_{letter}"), heads[block]) for letter in "qkv"
        )
        mixed = F.scaled_dot_product_attention(query, key, value, mask[:, None, None])
        attended = file.linear(_flat(mixed), f"{name}.attn_output")
        states = file.layer_norm(states + attended, f"{name}.attn_output_norm")
        inside = F.gelu(file.linear(states, f"{name}.ffn_up"), approximate="tanh")
        states = file.layer_norm(
            states + file.linear(inside, f"{name}.ffn_down"), f"{name}.layer_output_norm"
        )
    return file.linear(torch.tanh(file.linear(states[:, 0], "cls")), "cls.output")


def _decoder(file: GgufFile, ids: Tensor, mask: Tensor) -> Tensor:
    heads, shared = file.per_block("attention.head_count"), file.per_block("attention.head_count_kv")
    states = F.embedding(ids, file.tensors["token_embd.weight"])
    visible = mask[:, None, None] & torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    for block in range(file.blocks):
        name = f"blk.{block}"
        states = states + _causal(
            file, name, file.rms_norm(states, f"{name}.attn_norm"), visible, heads[block], shared[block]
        )
        normed = file.rms_norm(states, f"{name}.ffn_norm")
        inside = F.silu(file.linear(normed, f"{name}.ffn_gate")) * file.linear(normed, f"{name}.ffn_up")
        states = states + file.linear(inside, f"{name}.ffn_down")
    head = "output" if "output.weight" in file.tensors else "token_embd"
    last = states[torch.arange(len(ids)), mask.sum(1) - 1]
    return file.linear(file.rms_norm(last, "output_norm"), head)


def _causal(file: GgufFile, name: str, states: Tensor, visible: Tensor, heads: int, shared: int) -> Tensor:
    query = _heads(file.linear(states, f"{name}.attn_q"), heads)
    key, value = (_heads(file.linear(states, f"{name}.attn_{letter}"), shared) for letter in "kv")
    if f"{name}.attn_q_norm.weight" in file.tensors:
        query, key = file.rms_norm(query, f"{name}.attn_q_norm"), file.rms_norm(key, f"{name}.attn_k_norm")
    angles = _angles(file, states.shape[1])
    query, key = (_rotate(tensor, angles, file.arch in NEIGHBOURS) for tensor in (query, key))
    key, value = (tensor.repeat_interleave(heads // shared, dim=1) for tensor in (key, value))
    return file.linear(
        _flat(F.scaled_dot_product_attention(query, key, value, visible)), f"{name}.attn_output"
    )


def _angles(file: GgufFile, length: int) -> Tensor:
    """Return the angles of the rotary embedding, (tokens, width / 2)."""
    width = int(file.get("rope.dimension_count"))
    speeds = float(file.get("rope.freq_base")) ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    speeds = (
        speeds / file.tensors.get("rope_freqs.weight", torch.ones(())) / file.get("rope.scaling.factor", 1.0)
    )
    return torch.outer(torch.arange(length, dtype=torch.float64), speeds)


def _rotate(states: Tensor, angles: Tensor, neighbours: bool) -> Tensor:
    """Turn the pairs of dimensions of each head, which are neighbours or lie half a head apart."""
    pairs = states.unflatten(-1, (-1, 2)) if neighbours else states.unflatten(-1, (2, -1)).transpose(-1, -2)
    cosine, sine = angles.cos().float(), angles.sin().float()
    first, second = pairs.unbind(-1)
    turned = torch.stack((first * cosine - second * sine, first * sine + second * cosine), dim=-1)
    return turned.flatten(-2) if neighbours else turned.transpose(-1, -2).flatten(-2)


def _heads(states: Tensor, heads: int) -> Tensor:
    """Return (texts, heads, tokens, width) of (texts, tokens, heads * width)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def _flat(states: Tensor) -> Tensor:
    return states.transpose(1, 2).flatten(2)
