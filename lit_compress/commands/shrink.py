"""The command line of ``lit-compress shrink``."""

from __future__ import annotations

import argparse
from typing import Any

from lit_compress.commands.parser import add_verb


def shrink(**options: Any) -> None:
    """Remove what was pruned from a model, and write the folder of the smaller one."""
    from lit_compress.pruning.command import shrink_command

    shrink_command(**options)


_SHRINK_EXAMPLES = """\
examples:
  lit-compress shrink runs/x --out small
      the best checkpoint of a run without its closed heads, neurons and layers: computes what the masked model does,
      blocks may differ in size, load it with lit_compress.load("small")
  lit-compress shrink runs/x --out small --neurons 512 --layers 4
      one size for all blocks, the strongest units stay: stock AutoModel...from_pretrained loads it too; fine-tune it
      (student: Pretrained, name: small) where units that did something had to go
  lit-compress shrink runs/x/model --out small --vocabulary-from texts.txt --min-count 5
      a model folder with the word pieces that texts use; the tokenizer is shrunk to match
  lit-compress shrink runs/x/model --out small --vocabulary-from texts.txt --embedding-rank 96
      the word embedding, half of the weights of a small encoder, as the product of two smaller matrices
  lit-compress shrink resnet --out small --sparsity 0.5
      a convolution net without half of its weights: prune, then fine-tune
"""


def add_shrink(verbs: Any) -> None:
    """Declare the command line."""
    verb = add_verb(
        verbs,
        "shrink",
        shrink,
        argument_default=argparse.SUPPRESS,
        epilog=_SHRINK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument(
        "source", metavar="RUN_OR_FOLDER", help="run folder, model folder, hub name or package:NAME"
    )
    verb.add_argument("--out", required=True, metavar="DIR", help="the new model folder")
    for name, what in (
        ("heads", "heads of every block (key-value heads where queries share them)"),
        ("neurons", "neurons of every feed-forward network"),
        ("layers", "blocks; those that write with the smallest weights go"),
        ("hidden", "hidden dimensions"),
    ):
        verb.add_argument(f"--{name}", type=int, metavar="N", help=what)
    verb.add_argument(
        "--round-to",
        type=int,
        metavar="N",
        help="keep a multiple of N neurons where blocks differ (default: 1)",
    )
    verb.add_argument(
        "--vocabulary-from",
        metavar="FILE",
        help="keep only word pieces of these texts: one per line, or a YAML file with a data section",
    )
    verb.add_argument(
        "--min-count", type=int, metavar="N", help="occurrences from which on a piece stays (default: 1)"
    )
    verb.add_argument(
        "--held-out",
        metavar="FILE",
        help="other texts to check the vocabulary with (default: the validation split of the data section)",
    )
    verb.add_argument(
        "--most-changed", type=float, metavar="S", help="share of them that may become other pieces"
    )
    verb.add_argument(
        "--embedding-rank",
        type=int,
        metavar="R",
        help="word embedding as a table of this width and a linear map to the hidden dimensions; common pieces are "
        "kept best where --vocabulary-from gives texts; fine-tune it after",
    )
    verb.add_argument("--ckpt", metavar="best|last|FILE", help="checkpoint of a run folder (default: best)")
    nets = verb.add_argument_group("convolution nets", 'pip install "lit-compress[convnets]"')
    nets.add_argument("--sparsity", type=float, metavar="S", help="share of the weights to remove, 0 to 1")
    nets.add_argument(
        "--importance",
        metavar="NAME",
        help="magnitude (default), batch_norm, lamp, fpgm, random: how channels are ranked",
    )
    nets.add_argument("--image-size", type=int, metavar="N", help="pixels (default: what the folder says)")
