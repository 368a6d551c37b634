"""Let the exported language model go on with a text, with llama.cpp."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import xllamacpp

#: What this script needs.
REQUIREMENTS = ["xllamacpp>=2026.10"]


class LanguageModel:
    """A language model in the folder of this file.

    Args:
        folder: The folder with export.json and model.gguf.
        threads: CPU threads.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        settings = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        params = xllamacpp.CommonParams()
        params.model.path = os.fspath(folder / "model.gguf")
        params.n_ctx = min(settings["max_length"] or 4096, 4096)
        params.n_parallel = 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup = False
        params.verbosity = -1
        self.server = xllamacpp.Server(params)

    def complete(self, text: str, tokens: int = 64, temperature: float = 0.0) -> str:
        """Return what follows a text; with temperature 0 the most likely token each time."""
        wish = {"prompt": text, "n_predict": tokens, "temperature": temperature}
        answer = self.server.handle_completions(wish)
        return answer["choices"][0]["text"]


def main() -> None:
    """Go on with the texts of the command line, or with one per line of stdin."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("texts", nargs="*", help="texts; those of stdin where none is given")
    parser.add_argument("--tokens", type=int, default=64, help="how many to add (%(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0: the most likely ones (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    args = parser.parse_args()
    model = LanguageModel(Path(__file__).resolve().parent, args.threads)
    for text in args.texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]:
        print(text + model.complete(text, args.tokens, args.temperature), flush=True)


if __name__ == "__main__":
    main()
