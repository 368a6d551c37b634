"""Script of test_ddp: fit with two processes and save the student's weights.

Usage: python -m tests.modules.ddp_worker TASK TEACHER OUT OBJECTIVES...
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import seed_everything

from lit_compress.models import LayerSubset, Teacher
from tests.modules.build import RECIPES, data_module, distillation, trainer


def fit(task: Path, teacher: Path, objectives: str, processes: int, out: Path) -> None:
    """Save the student's weights as <out>/<objectives>.pt."""
    seed_everything(5, verbose=False)
    module = distillation(
        task,
        RECIPES[objectives](),
        student=LayerSubset("every_other", depth=2),
        teacher=Teacher(str(teacher), precision="fp32"),
    )
    made = trainer(
        out / objectives,
        max_epochs=2,
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        deterministic=False,
        num_sanity_val_steps=0,
    )
    made.fit(module, data_module(task, batch_size=16 // processes))
    if made.is_global_zero:
        learned = {k: v for k, v in module.state_dict().items() if not k.startswith("metrics")}
        torch.save(learned, out / f"{objectives}.pt")


def main(task: str, teacher: str, out: str, *names: str) -> None:
    torch.set_num_threads(1)
    # The first fit has Lightning start the other process, with the same arguments; the others find it there.
    for name in names:
        fit(Path(task), Path(teacher), name, 2, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
