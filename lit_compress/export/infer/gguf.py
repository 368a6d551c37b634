"""Run the exported model with llama.cpp."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xllamacpp

#: What this script needs beside the tokenizer library.
REQUIREMENTS = ["numpy", "xllamacpp>=2026.10"]


def open_model(folder: Path, settings: dict, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return the function from int64 arrays of shape (texts, tokens) to logits of shape (texts, labels).

    llama.cpp takes texts one by one, without padding, and reads every token as one of the first segment.
    """
    params = xllamacpp.CommonParams()
    params.model.path = os.fspath(folder / "model.gguf")
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    params.embd_normalize = -1
    # A text has to fit into one batch: its tokens read each other.
    params.n_ctx = params.n_batch = params.n_ubatch = settings["max_length"]
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.warmup = False
    params.verbosity = -1
    server = xllamacpp.Server(params)
    labels = len(settings["labels"])

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        if np.any(inputs.get("token_type_ids", 0)):
            raise ValueError(
                "Expected single texts but got a pair; llama.cpp does not tell the two texts of a pair apart: use "
                "another format, such as onnx."
            )
        logits = []
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            answer = server.handle_embeddings({"input": ids[mask > 0].tolist(), "embd_normalize": -1})
            logits.append(answer["data"][0]["embedding"][:labels])
        return np.asarray(logits, dtype=np.float32)

    return run
