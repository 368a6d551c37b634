"""Export a text classifier with Hugging Face Optimum: as it comes, optimised (O2, O3), and int8 for AVX512-VNNI.

Run by bench_export_optimum.py with the Python of an environment that holds optimum-onnx[onnxruntime]; its exporter
pins an older transformers than lit-compress needs. The model folder must be an ordinary one.

    python scripts/export_with_optimum.py runs/x/model /tmp/optimum
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTModelForSequenceClassification, ORTOptimizer, ORTQuantizer
from optimum.onnxruntime.configuration import AutoOptimizationConfig, AutoQuantizationConfig

LEVELS = ("O2", "O3")


def export(model: Path, out: Path) -> dict[str, dict[str, str | float]]:
    """Write the files, and return the path and the seconds of each."""
    made: dict[str, dict[str, str | float]] = {}

    def timed(name: str, make: Callable[[], object]) -> None:
        start = time.perf_counter()
        make()
        (file,) = (out / name).glob("*.onnx")
        made[name] = {"file": str(file), "seconds": time.perf_counter() - start}

    timed("plain", lambda: main_export(str(model), out / "plain", task="text-classification"))
    plain = ORTModelForSequenceClassification.from_pretrained(out / "plain")
    for level in LEVELS:
        settings = getattr(AutoOptimizationConfig, level)()
        optimizer = ORTOptimizer.from_pretrained(plain)
        timed(
            level,
            partial(optimizer.optimize, save_dir=out / level, optimization_config=settings),
        )
    quantizer = ORTQuantizer.from_pretrained(out / "plain")
    for name, per_channel in (("int8", False), ("int8-per-channel", True)):
        settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=per_channel)
        timed(name, partial(quantizer.quantize, save_dir=out / name, quantization_config=settings))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("out", type=Path, help="a new folder")
    args = parser.parse_args()
    files = export(args.model, args.out)
    libraries = {
        name: version(name) for name in ("optimum", "optimum-onnx", "transformers", "torch", "onnxruntime")
    }
    (args.out / "made.json").write_text(json.dumps({"files": files, "libraries": libraries}, indent=1))


if __name__ == "__main__":
    main()
