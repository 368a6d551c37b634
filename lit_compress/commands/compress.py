"""The command line of ``lit-compress compress``."""

from __future__ import annotations

import argparse
from typing import Any

from lit_compress.commands.parser import add_quality, add_session, add_verb, names


def compress(**options: Any) -> None:
    """Make a fine-tuned model as fast and small as you wish: distil, prune and round in one run, then export."""
    from lit_compress.compress.command import compress_command

    compress_command(**options)


_COMPRESS_EXAMPLES = """\
examples:
  lit-compress compress runs/x/model --speedup 20 --quality 0.975
      measures what runtimes make of models of several sizes, plans how much has to be pruned, trains, measures and
      exports; everything is in runs/x/model-compressed, the exported model in its folder export
  lit-compress compress my-model --data recipes/my.yaml --size-mb 7 --latency-ms 3 --quality 0.98 --plan-only
      only what would be done, from measurements
  lit-compress compress runs/x/model --speedup 4 --quality 0.98 --trials 8
      a short search over learning rate, temperature and the share of the fit that prunes
  lit-compress compress runs/x/model --speedup 4 --quality 0.98 --fit --trainer.max_epochs=4
      what follows --fit goes to every lit-compress fit of the plan

Stopped, the same command goes on where it was: at the stage, and at the step of a fit. It ends with status 1 where
the wish was missed, and says by how much. Quality is that of the validation split; judge the test split once,
afterwards: lit-compress benchmark OUT/student/model --against MODEL --split test --data OUT/measure.yaml
"""


def add_compress(verbs: Any) -> None:
    """Declare the command line."""
    verb = add_verb(
        verbs,
        "compress",
        compress,
        argument_default=argparse.SUPPRESS,
        epilog=_COMPRESS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("folder", metavar="MODEL", help="fine-tuned model folder, as in <run>/model")
    add_quality(verb)
    verb.add_argument(
        "--speedup",
        type=float,
        metavar="X",
        help="times as fast as it is in float32 PyTorch, one text at once",
    )
    verb.add_argument("--latency-ms", type=float, metavar="MS", help="most milliseconds of the median text")
    verb.add_argument(
        "--size-mb", type=float, metavar="MB", help="most megabytes of the shipped file and the tokenizer"
    )
    verb.add_argument(
        "--data", metavar="YAML", help="file with a data section (default: config.yaml of the model's run)"
    )
    verb.add_argument("--out", metavar="DIR", help="everything (default: MODEL-compressed beside it)")
    verb.add_argument(
        "--order",
        metavar="NAME",
        help="joint (default): one fit; chained: prune, cut out, then round in a second fit",
    )
    verb.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="trim: only word pieces of the training texts; keep; auto (default): trim where --size-mb is given",
    )
    verb.add_argument(
        "--runtimes",
        type=names,
        metavar="NAME,NAME",
        help="runtimes to measure in (default: all of integers that are installed)",
    )
    verb.add_argument(
        "--blocks",
        type=int,
        metavar="N",
        help="blocks that the fit begins with (default: fewer than the model's where the cut is deep)",
    )
    verb.add_argument("--seed", type=int, metavar="N", help="seed of the fits (default: 0)")
    verb.add_argument(
        "--trials", type=int, metavar="N", help="fits to choose among, by a search over settings (default: 1)"
    )
    add_session(verb)
    verb.add_argument("--plan-only", action="store_true", help="measure and plan, but do not train")
    verb.add_argument(
        "--fit",
        dest="words",
        nargs=argparse.REMAINDER,
        metavar="WORDS",
        help="last: further words for every lit-compress fit, such as --trainer.max_epochs=4",
    )
