"""The command line of ``lit-compress export``."""

from __future__ import annotations

import argparse
from typing import Any

from lit_compress.commands.parser import add_verb
from lit_compress.export.formats import FORMATS


def export(**options: Any) -> None:
    """Turn a model folder into a checked folder for another runtime."""
    from lit_compress.export.command import export_folder

    export_folder(**options)


def in_other_words(word: str) -> str | None:
    """Return how a precision or a format is given that somebody takes for an option.

    Args:
        word: What was given, such as ``--int8``.
    """
    name = word.removeprefix("--")
    if any(name in precisions for precisions in FORMATS.values()):
        return f"--precision {name}"
    return f"--format {name}" if name in FORMATS else None


_EXPORT_EXAMPLES = """\
formats and precisions (the first is the default):
{formats}

examples:
  lit-compress export runs/x/model --format onnx --precision int8
      runs/x/model-onnx-int8: the ONNX file, its tokenizer, infer.py that needs onnxruntime only, and a row
      of results.jsonl beside the original
  lit-compress export small --format openvino --data recipes/my.yaml --out small-openvino
      compared on the texts of that data section, since "small" lies in no run
"""


def add_export(verbs: Any) -> None:
    """Declare the command line."""
    formats = "\n".join(f"  {name:<12} {', '.join(precisions)}" for name, precisions in FORMATS.items())
    verb = add_verb(
        verbs,
        "export",
        export,
        argument_default=argparse.SUPPRESS,
        epilog=_EXPORT_EXAMPLES.format(formats=formats),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("folder", metavar="FOLDER", help="model folder, as in <run>/model")
    verb.add_argument("--format", required=True, metavar="NAME", help="one of those below")
    verb.add_argument("--precision", metavar="NAME", help="one of the format's (default: its first)")
    verb.add_argument(
        "--out",
        metavar="DIR",
        help="the new folder (default: FOLDER-FORMAT-PRECISION beside the model, or here where it is no folder)",
    )
    verb.add_argument(
        "--data",
        metavar="YAML",
        help="file with a data section (default: config.yaml of the folder's run, or what it was rounded with)",
    )
    verb.add_argument("--split", help="split whose texts are compared (default: validation)")
    verb.add_argument(
        "--least-same",
        type=float,
        metavar="SHARE",
        help="share of real texts that must get the original's label (default: 0.95); nothing here runs gguf and "
        "tensorrt, which refuse it",
    )
    verb.add_argument(
        "--no-benchmark",
        action="store_false",
        dest="benchmark",
        help="do not measure it beside the original",
    )
