"""The command line of ``lit-compress sensitivity``."""

from __future__ import annotations

import argparse
from typing import Any

from lit_compress.commands.parser import add_parts, add_verb


def sensitivity(**options: Any) -> None:
    """Measure how many bits each block of a fine-tuned model needs, and choose them under a budget."""
    from lit_compress.quantization.mixed.command import sensitivity_command

    sensitivity_command(**options)


_EXAMPLES = """\
examples:
  lit-compress sensitivity runs/x/model --average-bits 3 --out bits.json
      2, 3 or 4 bits for every block, as many bytes as 3 bits for all of them
  lit-compress sensitivity runs/x/model --budget-mb 16 --bits 2 3 4 8 --per matrix --out bits.json
      for every matrix by itself; 16 MB for all weights, embeddings at 8 bits and scales included
  lit-compress sensitivity runs/x/model --average-bits 2.5 --measured bits.json --out fewer.json
      under another budget, without measuring again

A block whose loss is steep (the top eigenvalue of its Hessian, over random subsets of the training data, |mean| + std)
and that loses much by rounding gets more bits. The time grows with --share and --subsets: begin with --share 0.01. The
model has to be fine-tuned: away from a minimum of its loss curvature says little.

Then train with these bits (the callback QAT with mixed: bits.json, recipes/quantize/qbert_mixed.yaml), or round without
training: lit-compress quantize runs/x/model --method gptq --mixed bits.json --out small
"""


def add_sensitivity(verbs: Any) -> None:
    """Declare the command line."""
    verb = add_verb(
        verbs,
        "sensitivity",
        sensitivity,
        argument_default=argparse.SUPPRESS,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("folder", metavar="FOLDER", help="fine-tuned model folder, as in <run>/model")
    verb.add_argument("--out", required=True, metavar="FILE", help="the JSON file with the bits")
    verb.add_argument("--budget-mb", type=float, metavar="MB", help="megabytes (1e6) of all stored weights")
    verb.add_argument("--average-bits", type=float, metavar="B", help="or: bits per weight of the blocks")
    verb.add_argument(
        "--bits", type=int, nargs="+", metavar="N", help="widths to choose from (default: 2 3 4)"
    )
    verb.add_argument("--per", metavar="NAME", help="what gets bits of its own: block (default), matrix")
    verb.add_argument("--group-size", type=int, metavar="N", help="outputs that share a scale (default: 8)")
    verb.add_argument(
        "--zero-points",
        action="store_true",
        help="grids with zero points, as in Q-BERT (default: around zero, as learned steps want it)",
    )
    verb.add_argument(
        "--embedding-bits", type=int, metavar="N", help="of the embeddings; 0 leaves them (default: 8)"
    )
    verb.add_argument(
        "--data", metavar="YAML", help="file with a data section (default: config.yaml of the folder's run)"
    )
    verb.add_argument(
        "--share", type=float, metavar="X", help="share of the training rows per subset (default: 0.1)"
    )
    verb.add_argument("--subsets", type=int, metavar="N", help="random subsets (default: 5)")
    verb.add_argument(
        "--measured",
        metavar="FILE",
        help="earlier --out of the same model, whose eigenvalues are taken as they are",
    )
    verb.add_argument("--seed", type=int, metavar="N", help="draws them (default: 0)")
    add_parts(verb, "modules", "to round (default: all)")
