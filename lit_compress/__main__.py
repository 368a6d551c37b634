"""Command line entry: looks at the verb before anything heavy is imported, so that help is instant."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Sequence

from lit_compress import __version__

_FIT_VERBS = ("fit", "validate", "test", "predict")
_OTHER_VERBS = (
    "benchmark",
    "report",
    "shrink",
    "prune",
    "quantize",
    "sensitivity",
    "export",
    "auto",
    "compress",
    "recipes",
)

_HELP = f"""\
lit-compress {__version__}: make transformer models small and fast while they train, and prove it.

Train and judge (a recipe is a YAML file; several --config merge, later ones win):
  lit-compress fit      --config recipes/distil/soft_targets.yaml [--config OVERLAY] [--key value …]
  lit-compress validate --config runs/x/config.yaml --ckpt_path best
  lit-compress test     --config runs/x/config.yaml --ckpt_path best
  lit-compress predict  --config runs/x/config.yaml --ckpt_path best

From a fine-tuned model and a wish to a small one, all in one:
  lit-compress compress  runs/x/model --speedup 20 --quality 0.975   plans, distils, prunes, rounds, measures, exports

After a fit:
  lit-compress benchmark runs/x/model --against TEACHER     measure a model folder in clean processes
  lit-compress shrink    runs/x --out small                 remove what was pruned; a smaller model folder
  lit-compress prune     runs/x/model --out sparse          zeros in a finished model, without training
  lit-compress quantize  runs/x/model --out small           weights and activations of few bits, without training
  lit-compress sensitivity runs/x/model --average-bits 3 --out bits.json   bits for every block, for quantize and QAT
  lit-compress export    runs/x/model --format onnx         checked files for another runtime, and infer.py
  lit-compress auto      runs/x/model --quality 0.98        try every runtime, keep the best one
  lit-compress report    runs/ --out report/                table, Markdown, CSV and Pareto plots over runs
  lit-compress recipes   ls | cp NAME FILE | validate FILE  the recipes that come with the library

More help:
  lit-compress VERB --help
  lit-compress fit --print_config=skip_default --config …   what a merge of configs really says
  lit-compress fit --model.help Distillation                the arguments of any class
  lit-compress fit --model.objectives.help SoftTargets
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Arguments without the program name; those of the process where ``None``.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"lit-compress {__version__}")
        return 0
    verb = arguments[0]
    if verb in _FIT_VERBS:
        from lit_compress.cli import run

        return run(arguments)
    if verb in _OTHER_VERBS:
        from lit_compress.commands import run_verb

        return run_verb(verb, arguments[1:])
    return _unknown(verb, "lit-compress")


def lightning_main() -> int:
    """Entry of the ``lightning`` script, which lightning 2.6 itself does not ship.

    Verbs that are not ours are handed on to lightning-sdk where that is installed.
    """
    arguments = sys.argv[1:]
    ours = not arguments or arguments[0].startswith("-") or arguments[0] in _FIT_VERBS + _OTHER_VERBS
    if ours:
        return main(arguments)
    if importlib.util.find_spec("lightning_sdk") is None:
        return _unknown(arguments[0], "lightning")
    from lightning_sdk.cli.entrypoint import main_cli

    main_cli()
    return 0


def _unknown(verb: str, program: str) -> int:
    near = difflib.get_close_matches(verb, _FIT_VERBS + _OTHER_VERBS, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    known = ", ".join(_FIT_VERBS + _OTHER_VERBS)
    print(f"{program}: unknown verb '{verb}'.{hint} Known verbs: {known}.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
