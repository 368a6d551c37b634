"""Script of test_ddp: fit with a number of processes and save the student's weights.

Usage: python -m tests.modules.ddp_worker TASK TEACHER OBJECTIVES PROCESSES OUT
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import seed_everything

from lit_compress.models import LayerSubset, Teacher
from tests.modules.build import RECIPES, data_module, distillation, trainer


def main(task: str, teacher: str, objectives: str, processes: str, out: str) -> None:
    seed_everything(5, verbose=False)
    torch.set_num_threads(1)
    world = int(processes)
    module = distillation(
        Path(task),
        RECIPES[objectives](),
        student=LayerSubset("every_other", depth=2),
        teacher=Teacher(teacher, precision="fp32"),
    )
    fit = trainer(
        Path(out).parent,
        max_epochs=2,
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        deterministic=False,
        num_sanity_val_steps=0,
    )
    fit.fit(module, data_module(Path(task), batch_size=16 // world))
    if fit.is_global_zero:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        torch.save({k: v for k, v in module.state_dict().items() if not k.startswith("metrics")}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
