"""Why movement pruning loses the model in short fits: what one pruning step does, by score.

At a fine-tuned model the scores of movement pruning (arXiv:2005.07683) are gathered over some steps while the weights
stay. Then the lowest share of every matrix is removed by each score, at once, and compared: what the gradient promises
(first order), what happens to the loss on dev, and the accuracy on dev. Writes a page for docs/.

    python scripts/explain_movement.py --data DIR --out docs/results_movement.md
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer

from lit_compress.models.anatomy import dissect
from lit_compress.models.checkpoint import load
from lit_compress.pruning.counting import encoder_matrices, named_tensor

SHARES = (0.01, 0.03, 0.1)
Weights = dict[str, Tensor]


def read(path: Path) -> list[tuple[str, int]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (row[0], int(row[1]))
            for row in list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
        ]


class Bench:
    """The model, its batches, and the weights that may be removed."""

    def __init__(self, teacher: str, data: Path, seed: int) -> None:
        self.model = load(teacher).float()
        self.tokenizer = AutoTokenizer.from_pretrained(teacher)
        names = encoder_matrices(self.model, dissect(self.model))
        self.weights: Weights = {name: named_tensor(self.model, name) for name in names}
        self.train, self.dev = read(data / "train.tsv"), read(data / "dev.tsv")
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed)).tolist()
        self.order = [self.train[place] for place in order]

    def loss(self, rows: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
        inputs = self.tokenizer(
            [text for text, _ in rows], return_tensors="pt", padding=True, truncation=True
        )
        labels = torch.tensor([label for _, label in rows])
        logits = self.model(**inputs).logits
        return F.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(-1) == labels).sum()

    def judge(self) -> tuple[float, float]:
        """Return loss and accuracy on dev."""
        self.model.eval()
        with torch.inference_mode():
            found = [self.loss(self.dev[start : start + 64]) for start in range(0, len(self.dev), 64)]
        rows = len(self.dev)
        return sum(float(loss) for loss, _ in found) / rows, sum(int(right) for _, right in found) / rows

    def gather(self, steps: int, lr: float) -> tuple[Weights, Weights, Weights]:
        """Return the movement scores, the Taylor scores and the mean gradient over some training batches."""
        scores = {name: torch.zeros_like(weight, requires_grad=True) for name, weight in self.weights.items()}
        optimizer = torch.optim.AdamW(scores.values(), lr=lr, weight_decay=0.0, fused=True)
        taylor = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        mean = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.model.train()
        for step in range(steps):
            rows = self.order[32 * step : 32 * (step + 1)]
            self.model.zero_grad()
            (self.loss(rows)[0] / len(rows)).backward()
            for name, weight in self.weights.items():
                assert weight.grad is not None
                product = weight.grad * weight.detach()
                scores[name].grad = product
                taylor[name] += product.abs() / steps
                mean[name] += weight.grad / steps
            optimizer.step()
        return {name: score.detach() for name, score in scores.items()}, taylor, mean

    def remove(self, scores: Weights, share: float) -> Weights:
        """Set the lowest share of every matrix to zero; return what it was."""
        before = {name: weight.detach().clone() for name, weight in self.weights.items()}
        with torch.no_grad():
            for name, weight in self.weights.items():
                lowest = scores[name].flatten().topk(int(share * weight.numel()), largest=False).indices
                weight.view(-1)[lowest] = 0
        return before

    def put_back(self, before: Weights) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(before[name])


def rows(bench: Bench, steps: int, lr: float, seed: int) -> list[str]:
    movement, taylor, gradient = bench.gather(steps, lr)
    generator = torch.Generator().manual_seed(seed)
    weights = bench.weights
    scores: dict[str, Callable[[str], Tensor]] = {
        "movement": lambda name: movement[name],
        "movement, highest first": lambda name: -movement[name],
        "random": lambda name: torch.rand(weights[name].shape, generator=generator),
        "Taylor": lambda name: taylor[name],
        "magnitude": lambda name: weights[name].detach().abs(),
    }
    loss, accuracy = bench.judge()
    lines = [f"| – | – | – | – | {loss:.3f} | {100 * accuracy:.1f} |"]
    for share in SHARES:
        for label, score in scores.items():
            before = bench.remove({name: score(name) for name in weights}, share)
            moved = {name: weights[name].detach() - before[name] for name in weights}
            promised = sum(float((gradient[name] * moved[name]).sum()) for name in weights)
            size = sum(float(moved[name].square().sum()) for name in weights) ** 0.5
            size /= sum(float(before[name].square().sum()) for name in weights) ** 0.5
            loss, accuracy = bench.judge()
            bench.put_back(before)
            lines.append(
                f"| {100 * share:g} % | {label} | {size:.3f} | {promised:+.3f} | {loss:.3f} | {100 * accuracy:.1f} |"
            )
            print(lines[-1], flush=True)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--teacher", default="runs/sst2_sentences/teacher/model", help="model (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="batches of 32 (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-2, help="of the scores (%(default)s, the paper's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results_movement.md"), help="page (%(default)s)"
    )
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    bench = Bench(args.teacher, args.data, args.seed)
    table = rows(bench, args.steps, args.lr, args.seed)
    args.out.write_text(PAGE.format(steps=args.steps, table="\n".join(table)), encoding="utf-8")
    print(f"Written: {args.out}")
    return 0


PAGE = """\
# Why movement pruning loses the model in a short fit

Made by `scripts/explain_movement.py`: scores gathered over {steps} steps at the fine-tuned teacher, then one share of
every encoder matrix removed at once. *Size* is the norm of what was removed, as a share of the norm of all weights;
*promised* is the change of the training loss that the mean gradient predicts for it.

| removed | lowest by | size | promised | loss on dev | accuracy on dev |
|--:|---|--:|--:|--:|--:|
{table}

The score of a weight is minus the sum of `dL/dW · W` over the steps, each step of about the same size (Adam). The
weights with the lowest scores are those that the gradient wants smaller, batch after batch, and those with the
highest are those that it wants larger; random weights point nowhere in particular. So closing the lowest one in a
hundred is one long step along the gradient, as *promised* says, and along the gradient the loss is curved most: the
model is lost, and so it is by closing the highest. Scores that begin at 0 rank alike whatever their learning rate,
so no learning rate makes that step shorter. Over the tens of thousands of steps of the paper the weights follow the
gradient while the share grows, and are small when they are closed; in a fit of a thousand steps they have hardly
moved.

`Movement(start_from="magnitude", lr=1e-3)` begins with the scores spread out, at the magnitude of each weight over
the mean of its matrix: a step moves few ranks, the learning rate says how few, and the first weights that are
closed are small ones.
"""

if __name__ == "__main__":
    sys.exit(main())
