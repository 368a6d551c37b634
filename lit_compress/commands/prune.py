"""The command line of ``lit-compress prune``."""

from __future__ import annotations

import argparse
from typing import Any

from lit_compress.commands.parser import add_calibration, add_parts, add_verb


def prune(**options: Any) -> None:
    """Set weights of a finished model to zero, without training."""
    from lit_compress.pruning.one_shot_command import prune_folder

    prune_folder(**options)


_EXAMPLES = """\
examples:
  lit-compress prune runs/x/model --out sparse --method sparsegpt --sparsity 0.5
      half of the weights of every block; those that stay make up for them, as 128 training texts of the run show
  lit-compress prune runs/llama/model --out sparse --method wanda --pattern 2:4 --data train.txt --texts 64 --length 128
      two of four consecutive inputs stay, in a language model, with 64 blocks of 128 tokens of a text
  lit-compress quantize sparse --out small --method gptq --bits 4 --group-size 32 --data train.txt
      and then four bits; the zeros stay zero

The new folder is an ordinary one. Zeros are stored as any other weight, so it is neither smaller nor faster by itself:
quantize it, or run it where sparse weights are faster. What makes a model faster everywhere is pruning of heads and
neurons while it trains (recipes/prune), which also loses less: lit-compress shrink cuts them out.
"""


def add_prune(verbs: Any) -> None:
    """Declare the command line."""
    verb = add_verb(
        verbs,
        "prune",
        prune,
        argument_default=argparse.SUPPRESS,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument(
        "folder", metavar="FOLDER", help="model folder, as in <run>/model; hub name or package:NAME"
    )
    verb.add_argument("--out", required=True, metavar="DIR", help="the new model folder")
    verb.add_argument("--method", required=True, metavar="NAME", help="sparsegpt, wanda, magnitude")
    verb.add_argument(
        "--sparsity", type=float, metavar="SHARE", help="of the weights of each matrix to remove"
    )
    verb.add_argument(
        "--pattern", metavar="N:M", help="instead of it: n of m consecutive inputs of each output stay"
    )
    add_calibration(verb)
    add_parts(verb, "projections", "to prune (default: all of the blocks)")
