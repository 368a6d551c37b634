"""What llm-compressor makes of a problem or of a model, as numbers; scripts/compare_llm_compressor.py calls it.

It runs in an environment of its own, since llm-compressor pins an older transformers; nothing of lit_compress is
imported here.

    python -m venv ORACLE && ORACLE/bin/pip install llmcompressor==0.14.0.1 torch==2.13.0
    ORACLE/bin/python scripts/llm_compressor_worker.py problem tests/quantization/llm_compressor.safetensors
    ORACLE/bin/python scripts/llm_compressor_worker.py model FOLDER BLOCKS.safetensors OUT.safetensors RECIPE.yaml
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.utils import calculate_qparams
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from llmcompressor.modifiers.pruning.sparsegpt import sgpt_sparsify
from llmcompressor.modifiers.pruning.wanda import wanda_sparsify
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

OUTPUTS, INPUTS, TOKENS, GROUP = 8, 32, 96, 8


def problem() -> dict[str, Tensor]:
    """Round and prune one matrix in every way, given inputs that depend on each other."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(TOKENS, INPUTS, generator=draw) @ torch.randn(INPUTS, INPUTS, generator=draw)
    weight = torch.randn(OUTPUTS, INPUTS, generator=draw)
    found = {"weight": weight, "inputs": inputs}
    for group, order in ((None, None), (None, "static"), (GROUP, "static")):
        words = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
        args = QuantizationArgs(num_bits=4, symmetric=False, actorder=order, **words)
        rows = weight.view(OUTPUTS, -1, group or INPUTS)
        scale, zero_point = calculate_qparams(rows.amin(-1), rows.amax(-1), args)
        hessian = 2 * inputs.t() @ inputs / TOKENS
        rounded, _, _ = quantize_weight(
            weight[None].clone(), hessian[None], scale[None], zero_point[None], None, args
        )
        name = f"gptq{group or ''}{'_ordered' if order else ''}"
        found |= {name: rounded[0], f"{name}_scale": scale, f"{name}_zero_point": zero_point}
    for name, sparsity, n, m in (("half", 0.5, 0, 0), ("2_4", 0.5, 2, 4)):
        linear = nn.Linear(INPUTS, OUTPUTS, bias=False)
        linear.weight.data = weight.clone()
        hessian, _ = sgpt_sparsify.accumulate_hessian(
            inputs, linear, sgpt_sparsify.make_empty_hessian(linear), 0
        )
        _, sparse = sgpt_sparsify.sparsify_weight(
            linear, {linear: hessian}, sparsity, n, m, 128, 0.01, preserve_sparsity_mask=False
        )
        found[f"sparsegpt_{name}"] = sparse.detach().clone()
        scalars, _ = wanda_sparsify.accumulate_row_scalars(
            inputs, linear, wanda_sparsify.make_empty_row_scalars(linear), 0
        )
        found[f"wanda_{name}"] = wanda_sparsify.sparsify_weight(linear, {linear: scalars}, sparsity, n, m)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def weights_of(folder: str, blocks: Tensor, recipe: str) -> dict[str, Tensor]:
    """Calibrate a language model with blocks of tokens, and return the weights of its projections as it reads them."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = [{"input_ids": block[None], "attention_mask": torch.ones_like(block)[None]} for block in blocks]
    loader: DataLoader[dict[str, Tensor]] = DataLoader(rows, batch_size=None)  # type: ignore[arg-type]
    oneshot(model=model, dataset=loader, recipe=recipe, num_calibration_samples=len(rows))
    return {name: tensor.detach().float().contiguous() for name, tensor in model.state_dict().items()}


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1] == "problem":
        save_file(problem(), sys.argv[2], {"made_by": f"llmcompressor {version('llmcompressor')}"})
        return
    folder, blocks, out, recipe = sys.argv[2:]
    found = weights_of(folder, load_file(blocks)["input_ids"], Path(recipe).read_text(encoding="utf-8"))
    save_file(found, out, {"made_by": f"llmcompressor {version('llmcompressor')}"})


if __name__ == "__main__":
    main()
