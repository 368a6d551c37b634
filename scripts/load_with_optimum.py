"""Load exported folders with Hugging Face Optimum, and compare its logits with those of lit-compress.

Run in an environment of its own that holds optimum-onnx[onnxruntime], or optimum-intel[openvino], or both; Optimum's
exporters pin older transformers than lit-compress needs. Which of the two loads a folder is seen from its export.json;
what the infer.py of the folder computes is compared with.

    lit-compress export runs/x/model --format onnx --out /tmp/onnx
    path/to/optimum/bin/python scripts/load_with_optimum.py /tmp/onnx
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

TEXTS = ("a gorgeous , witty , seductive movie .", "one long string of cliches", "fine")
TOLERANCE = 1e-3


def load(folder: Path) -> Any:
    """Return Optimum's model of an export."""
    settings = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    if settings["format"] == "onnx":
        from optimum.onnxruntime import ORTModelForSequenceClassification

        return ORTModelForSequenceClassification.from_pretrained(folder)
    if settings["format"] == "openvino":
        from optimum.intel import OVModelForSequenceClassification

        hint = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[settings["precision"]]
        return OVModelForSequenceClassification.from_pretrained(
            folder, ov_config={"INFERENCE_PRECISION_HINT": hint}
        )
    raise SystemExit(f"Expected an export to onnx or openvino but {folder} is one to {settings['format']}.")


def infer(folder: Path) -> ModuleType:
    """Return the infer.py of an export as a module."""
    spec = importlib.util.spec_from_file_location("infer", folder / "infer.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="exports")
    args = parser.parse_args()
    failed = False
    for folder in args.folders:
        model = load(folder)
        batch = AutoTokenizer.from_pretrained(folder)(list(TEXTS), padding=True, return_tensors="pt")
        with torch.inference_mode():
            got = model(**batch).logits.numpy()
        # Later than Optimum: the infer.py of OpenVINO keeps its telemetry from being imported, which Optimum wants.
        wanted = infer(folder).Classifier(folder).logits(list(TEXTS))
        error = float(np.abs(got - wanted).max() / np.sqrt(np.mean(wanted**2)))
        labels = [model.config.id2label[int(row.argmax())] for row in got]
        failed |= not error <= TOLERANCE
        print(f"{folder}: {type(model).__name__}, difference {error:.2g} of the logits, labels {labels}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
