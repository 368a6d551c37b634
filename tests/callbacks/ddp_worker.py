"""Script of test_ddp: fit with a number of processes, and save what every one of them ends with.

Usage: python -m tests.callbacks.ddp_worker TASK METHOD PROCESSES OUT
"""

import os
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


def main(task: str, method: str, processes: str, out: str) -> None:
    seed_everything(5, verbose=False)
    torch.set_num_threads(1)
    world = int(processes)
    module = FineTuning(Pretrained(f"{task}/plain"), optimizer=AdamW(lr=1e-3))
    fit = trainer(
        Path(out),
        max_epochs=2,
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        deterministic=False,
        num_sanity_val_steps=0,
        callbacks=METHODS[method](),
    )
    fit.fit(module, data_module(Path(task), batch_size=16 // world))
    # The other process is started by Lightning, with the same arguments.
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    Path(out).mkdir(parents=True, exist_ok=True)
    torch.save(module.student.state_dict(), Path(out) / f"{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
