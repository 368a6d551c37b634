"""GGUF files, the format of llama.cpp."""

from lit_compress.export.gguf.builders import GgufBf16, GgufF16, GgufF32, GgufQ4, GgufQ8
from lit_compress.export.gguf.write import export_gguf

__all__ = ["GgufBf16", "GgufF16", "GgufF32", "GgufQ4", "GgufQ8", "export_gguf"]
