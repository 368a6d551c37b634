"""What ``lit-compress quantize --method NAME`` can do: a function for each name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

#: Where each method is. It is called with the model, the texts to calibrate with, something to tell how far it is,
#: and those options of the command line that were given; it changes the model in place and returns facts for the
#: manifest. Its keyword-only arguments are the options that it takes.
METHODS: dict[str, str] = {
    "nearest": "lit_compress.quantization.methods.linear:nearest",
    "gptq": "lit_compress.quantization.methods.linear:gptq",
    "awq": "lit_compress.quantization.methods.linear:awq",
    "nf4": "lit_compress.quantization.methods.bnb:nf4",
    "fp4": "lit_compress.quantization.methods.bnb:fp4",
    "llm_int8": "lit_compress.quantization.methods.bnb:llm_int8",
    "kmeans": "lit_compress.quantization.methods.clustering:kmeans",
    "bf16": "lit_compress.quantization.methods.casts:bf16",
    "fp16": "lit_compress.quantization.methods.casts:fp16",
}
Method = Callable[..., dict[str, Any]]
_EXPORT = "call lit-compress export FOLDER --format {} --precision int8"
# What is no method here, and what to do instead.
_ELSEWHERE = {
    "int8": f"leave --method out, as 8 bits are usual; for a runtime's own int8 {_EXPORT.format('onnx')}",
    **{f"{name}-int8": _EXPORT.format(name) for name in ("onnx", "openvino", "litert", "executorch")},
    **{
        name: f"call lit-compress prune FOLDER --method {name}"
        for name in ("sparsegpt", "wanda", "magnitude")
    },
    "smoothquant": "give --smooth 0.5 --activations static",
    "torchao": "leave --method out and give --bits, --group-size or --activations",
}


def method_for(name: str, options: Mapping[str, Any]) -> Method:
    """Return a method, after its options were checked.

    Args:
        name: Name in ``METHODS``.
        options: The options that were given.

    Raises:
        ValueError: There is no such method, or it does not take an option.
    """
    if name not in METHODS:
        instead = _ELSEWHERE.get(name, "change --method")
        raise ValueError(f"Expected a method among {', '.join(METHODS)} but got {name!r}; {instead}.")
    module, _, function = METHODS[name].partition(":")
    method: Method = getattr(importlib.import_module(module), function)
    taken = [
        key for key, value in inspect.signature(method).parameters.items() if value.kind is value.KEYWORD_ONLY
    ]
    unknown = [key for key in options if key not in taken]
    if unknown:
        words = [f"--{key.replace('_', '-')}" for key in taken]
        raise ValueError(
            f"Expected options that the method {name} takes ({', '.join(words) or 'none'}) but got "
            f"--{unknown[0].replace('_', '-')}; leave it out, or choose another --method."
        )
    return method
