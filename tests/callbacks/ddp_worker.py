"""Script of test_ddp: fit by every method with two processes, and save what each of them ends with.

Usage: python -m tests.callbacks.ddp_worker TASK OUT
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import seed_everything

from lit_compress.callbacks import QAT, L0Pruning, Pruning, WeightClustering
from lit_compress.models import Pretrained
from lit_compress.modules import AdamW, FineTuning
from lit_compress.pruning import Movement, Target
from lit_compress.quantization import Scheme
from tests.modules.build import data_module, trainer

# Ranges are in tests/quantization/test_observers_together.py: halves are padded otherwise than the whole.
METHODS = {
    "learned steps": lambda: [
        QAT(Scheme(4), ranges="none", learned_steps=True, step_lr=1e-2, quantize_at=0.4, freeze_at=0.9)
    ],
    "centroids": lambda: [
        WeightClustering(8, embedding_clusters=8, embedding_rows=None, centroid_lr=1e-2, cluster_at=0.4)
    ],
    "movement": lambda: [
        Pruning(structure, Movement(1e-2, start_from="magnitude"), Target(sparsity=0.4), every_n_steps=2)
        for structure in ("weight", ["head", "neuron"])
    ],
    "gates": lambda: [
        L0Pruning(
            ["head", "neuron", "attention", "feed_forward", "hidden"],
            Target(sparsity=0.5),
            freeze_at=0.8,
            gate_lr=0.05,
            drop=0.4,
            evaluation="expected",
        )
    ],
}


def fit(task: Path, method: str, processes: int, out: Path) -> None:
    """Save what this process ends with as <out>/<method>/<rank>.pt."""
    seed_everything(5, verbose=False)
    module = FineTuning(Pretrained(f"{task}/plain"), optimizer=AdamW(lr=1e-3))
    folder = out / method
    made = trainer(
        folder,
        max_epochs=2,
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        deterministic=False,
        num_sanity_val_steps=0,
        callbacks=METHODS[method](),
    )
    made.fit(module, data_module(task, batch_size=16 // processes))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(module.student.state_dict(), folder / f"{made.global_rank}.pt")


def main(task: str, out: str) -> None:
    torch.set_num_threads(1)
    # The first fit has Lightning start the other process, with the same arguments; the others find it there.
    for method in METHODS:
        fit(Path(task), method, 2, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
