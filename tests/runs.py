"""Runs of the command line in this process, on a tiny task."""

import csv
import math
from pathlib import Path

import lightning.pytorch as pl
import torch
import yaml

from lit_compress.quantization import Scheme
from lit_compress.quantization.mixed.file import write_mixed
from tests.modules.conftest import write_texts
from tests.tiny import tiny_bert, tiny_tokenizer

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
TINY = RECIPES / "overlays" / "tiny.yaml"


class KillAt(pl.Callback):
    """Fail before a step, as a crash does.

    Args:
        step: The step.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def write_task(folder: Path) -> Path:
    """Write train.tsv, dev.tsv, test.tsv of two classes, and a 6-layer teacher in teacher/, its bits in bits.json."""
    for name, rows, seed in (("train", 96, 0), ("dev", 40, 1), ("test", 40, 2)):
        write_texts(folder / f"{name}.tsv", rows, seed)
    tiny_tokenizer(folder / "teacher")
    tiny_bert(layers=6, labels=2, dropout=0.1).save_pretrained(folder / "teacher")
    name = "bert.encoder.layer.{}.output.dense.weight"
    bits = {name.format(layer): Scheme(2 + layer % 3, True, "rows", 8) for layer in range(6)}
    write_mixed(folder / "bits.json", bits, {})
    return folder


def arguments(recipe: str, task: Path, run_dir: Path, *more: str, tiny: bool = True) -> list[str]:
    """Return the options that put a recipe on the tiny task; options behind them win."""
    content = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    init = content["model"]["init_args"]
    teacher = task / "teacher"
    words = [f"--config={RECIPES / recipe}.yaml", *([f"--config={TINY}"] if tiny else [])]
    words += [f"--run_dir={run_dir}", f"--data.tokenizer={teacher}", f"--data.cache_dir={task / 'tokens'}"]
    if "teacher" in init:
        words.append(f"--model.teacher.model={teacher}")
    if "baseline" in init:
        words.append(f"--model.baseline={teacher}")
    student = init["student"]["init_args"]
    words += [f"--model.student.{key}={teacher}" for key in ("name", "source") if key in student]
    last = (content["trainer"].get("callbacks") or [{}])[-1]
    if "mixed" in last.get("init_args", {}):
        words.append(f"--trainer.callbacks.mixed={task / 'bits.json'}")
    source = content["data"]["init_args"]["source"]
    if source["class_path"] == "Files":
        words.append(f"--data.source.folder={task}")
    else:
        # Two small packages make two classes, as the tiny teacher has.
        words += ["--data.source.packages=[jsonargparse,rich]", "--data.limit_train=null"]
        words.append(f"--data.source.cache_dir={task / 'corpus'}")
    return [*words, *more]


def logged(run_dir: Path, version: int = -1) -> dict[str, list[float]]:
    """Return the values of every metric that one verb has logged (by default the newest), in order."""
    columns: dict[str, list[float]] = {}
    versions = sorted((run_dir / "logs").iterdir(), key=lambda path: int(path.name.split("_")[1]))
    with (versions[version] / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                columns.setdefault(key, []).extend([float(value)] if value else [])
    assert all(math.isfinite(value) for values in columns.values() for value in values)
    return columns


def phase(checkpoint):
    """Return how far a fit had come: whether its gates are decided, and the stage of what rounds."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    decided = {bool((state[key] >= 0).all()) for key in state if key.endswith(".settled")}
    stages = {int(state[key]) for key in state if key.endswith(".stage")}
    assert len(decided) == len(stages) == 1
    return decided.pop(), stages.pop()
