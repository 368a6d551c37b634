"""The types in which a GGUF file holds its tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """How weights are held.

    Args:
        kind: Name of the type of the matrices in ggml.
        file: Number of the kind of file, for people who look at its metadata.
        tolerance: Largest error of the logits that passes; see ``lit_compress.export.parity.check_parity``.
    """

    kind: str
    file: int
    tolerance: float


#: Name -> how weights are held. The exact ones differ from the original by llama.cpp's approximation of GELU.
PRECISIONS = {
    "f32": Precision("F32", 0, 0.02),
    "f16": Precision("F16", 1, 0.03),
    "bf16": Precision("BF16", 32, 0.1),
    "q8_0": Precision("Q8_0", 7, 0.1),
    # MiniLM and its students have 0.2; a tiny random model, whose few weights share a scale, three times that.
    "q4_0": Precision("Q4_0", 2, 0.7),
}
# Small, and read by rows or added: llama.cpp wants them in full.
_FULL = ("position_embd.weight", "token_types.weight", "rope_freqs.weight")
# The last projections decide between labels or tokens; llama.cpp's own quantizer leaves them more bits as well.
_FINE = ("output.weight", "cls.weight", "cls.output.weight")
_BLOCK = 32


def check_precision(precision: str) -> Precision:
    """Return what a name of :data:`PRECISIONS` stands for.

    Raises:
        ValueError: There is none of that name.
    """
    if precision in PRECISIONS:
        return PRECISIONS[precision]
    how = f"choose one of {', '.join(PRECISIONS)}"
    if "_k" in precision.lower() or precision.lower().startswith("iq"):
        how = (
            "the K and IQ types are encoded by llama.cpp alone: export f16, then run `llama-quantize model.gguf "
            f"model-{precision}.gguf {precision.upper()}`"
        )
    raise ValueError(f"Expected a precision of gguf but got {precision!r}; {how}.")


def tensor_kind(name: str, shape: tuple[int, ...], precision: Precision, tied: bool) -> str:
    """Return the type in which a tensor is held.

    Args:
        name: Its name in the file.
        shape: Its shape.
        precision: How the matrices are held.
        tied: Whether the word embedding is the last projection too.

    Returns:
        Name of the type in ggml.
    """
    if len(shape) < 2 or name in _FULL:
        return "F32"
    kind = precision.kind
    if kind == "Q4_0" and (name in _FINE or (tied and name == "token_embd.weight")):
        kind = "Q8_0"
    if kind.startswith("Q") and shape[-1] % _BLOCK:
        return "F16"  # a row is no whole number of blocks
    return kind
