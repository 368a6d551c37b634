"""The second half of the infer.py of an export: texts in, labels out."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from lit_compress.export.infer.onnx import open_model  # of the export's own runtime, above

BATCH_SIZE = 32


class Classifier:
    """A text classifier in the folder of this file.

    Args:
        folder: The folder with export.json, tokenizer.json and the model.
        threads: CPU threads.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.settings = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        if self.settings["max_length"]:
            side = self.settings["truncation_side"]
            self.tokenizer.enable_truncation(self.settings["max_length"], direction=side)
        self.forward = open_model(folder, self.settings, threads)

    def logits(self, texts: list[str | tuple[str, str]]) -> np.ndarray:
        """Return logits of shape (texts, labels); a text may be a pair."""
        encodings = self.tokenizer.encode_batch(texts)
        width = max(len(encoding.ids) for encoding in encodings)
        rows = {
            "input_ids": ([encoding.ids for encoding in encodings], self.settings["pad_token_id"] or 0),
            "attention_mask": ([[1] * len(encoding.ids) for encoding in encodings], 0),
            "token_type_ids": ([encoding.type_ids for encoding in encodings], 0),
        }
        batch = {
            name: np.array([ids + [fill] * (width - len(ids)) for ids in lists], dtype=np.int64)
            for name, (lists, fill) in rows.items()
        }
        return self.forward(batch)

    def predict(self, texts: list[str | tuple[str, str]]) -> Iterator[tuple[str, float]]:
        """Yield label and probability of every text; the value itself where the model has one output."""
        for start in range(0, len(texts), BATCH_SIZE):
            logits = np.asarray(self.logits(texts[start : start + BATCH_SIZE]), dtype=np.float64)
            labels = self.settings["labels"]
            if logits.shape[1] == 1:
                yield from (("value", float(row[0])) for row in logits)
                continue
            odds = np.exp(logits - logits.max(1, keepdims=True))
            shares = odds / odds.sum(1, keepdims=True)
            yield from ((labels[int(row.argmax())], float(row.max())) for row in shares)


def main() -> None:
    """Classify the texts of the command line, or one per line of stdin; a TAB parts the texts of a pair."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("texts", nargs="*", help="texts; those of stdin where none is given")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    args = parser.parse_args()
    lines = args.texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    texts = [tuple(line.split("\t", 1)) if "\t" in line else line for line in lines]
    classifier = Classifier(Path(__file__).resolve().parent, args.threads)
    for line, (label, value) in zip(lines, classifier.predict(texts), strict=True):
        print(f"{label}\t{value:.4f}\t{line}")


if __name__ == "__main__":
    main()
