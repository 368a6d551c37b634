"""Makes a plan: measures models of several depths and sizes, and writes down what follows for a wish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lit_compress.benchmark.protocol import Protocol
from lit_compress.compress.depth import choose_depth, depths_of, layers_kept
from lit_compress.compress.length import length_for
from lit_compress.compress.plan import Plan, Start
from lit_compress.compress.planning import Figures, Storage, Words, figures_for, in_storage
from lit_compress.compress.probe import Probe, Probes, probe
from lit_compress.compress.request import Request, write_data
from lit_compress.compress.stage import Stage, run_stages
from lit_compress.compress.stored import speedup_as_stored
from lit_compress.compress.verdict import tokenizer_bytes
from lit_compress.compress.wish import Wish
from lit_compress.data.tokenizer import load_tokenizer
from lit_compress.models.architecture import block_list
from lit_compress.models.checkpoint import load
from lit_compress.models.student import LayerSubset
from lit_compress.quantization.progress import progress


def make_plan(request: Request, out: Path, asked: dict[str, Any], settings: dict[str, Any]) -> Plan:
    """Measure, plan, and write the plan down.

    Args:
        request: What was asked for.
        out: Folder of the plan; created.
        asked: The request, ready for JSON.
        settings: Further settings of the protocol.

    Raises:
        ValueError: The wish is out of reach, or nothing could be measured.
    """
    blocks = asked["blocks"]
    if blocks is not None:
        _check_blocks(blocks, depths_of(load(request.original)))
    out.mkdir(parents=True, exist_ok=True)
    data = write_data(out / "data.yaml", request.data, tokenizer=str(request.original))
    stages: list[Stage] = []
    teacher = request.original
    texts = [f"--vocabulary-from={data}"] if request.trims else []
    if request.trims:
        teacher = out / "teacher"
        words = ("shrink", str(request.original), *texts, f"--out={teacher}")
        stages.append(Stage("vocabulary", "keep the word pieces that the training texts use", words))
        run_stages(stages, out)  # what is measured below has this vocabulary
    lengths = request.models.lengths
    protocol = Protocol(lengths, batches=(), fixed_lengths=(), devices=("cpu",), **settings)
    probes = _Probing(request, teacher, protocol)
    depths = depths_of(probes.model)
    if blocks is None:
        blocks, figures = choose_depth(depths, probes.figures_at)
    else:
        figures = probes.figures_at(blocks)
    figures = probes.as_stored(blocks, figures)
    student = teacher
    if figures.storage.rank is not None:
        student = out / "start"
        # With the texts, the pieces that they use most are kept best.
        words = (
            "shrink",
            str(teacher),
            *texts,
            f"--embedding-rank={figures.storage.rank}",
            f"--out={student}",
        )
        stages.append(Stage("embeddings", "word embeddings as the product of two smaller tables", words))
    train = request.texts.datamodule
    length = length_for(len(train.rows("train")), train.batch_size)
    layers = tuple(layers_kept(blocks, depths[-1])) if blocks < depths[-1] else None
    start = Start(str(teacher), str(student), str(data), lengths[len(lengths) // 2], length, layers)
    plan = Plan(asked, [vars(one) for one in probes.found], figures, tuple(stages), start)
    plan.write(out)
    return plan


def tell(plan: Plan, wish: Wish) -> None:
    """Tell the user what is planned.

    Args:
        plan: The plan.
        wish: What it is for.
    """
    aim, storage, start = plan.figures, plan.figures.storage, plan.start
    pruned = f"{aim.cut:.2f}× faster" if aim.cut > 1 else "not pruned"
    kept = "" if start.blocks is None else f"{len(start.blocks)} ({', '.join(map(str, start.blocks))}), "
    rank = f" of rank {storage.rank}" if storage.rank is not None else ""
    print(
        f"For {wish}: blocks {kept}{pruned}, projections of {storage.weight_bits} bits, word embeddings{rank} of "
        f"{storage.word_bits} bits; expected in {aim.runtime}: {aim.speedup:.1f}× and {aim.bytes / 1e6:.2f} MB.",
        flush=True,
    )
    length = start.length
    if aim.cut > 1 or start.blocks is not None:
        copies = f" and {length.copies} copies of each" if length.copies else ""
        print(
            f"Trained in {length.steps:,} steps: {length.epochs} passes over the texts{copies}.", flush=True
        )


class _Probing:
    """Measures models of several depths, each once.

    Args:
        request: What was asked for.
        teacher: Folder of the model to cut.
        protocol: How to measure.
    """

    def __init__(self, request: Request, teacher: Path, protocol: Protocol) -> None:
        self.model = load(teacher)
        self._sessions: dict[int, Probes] = {}
        self._request, self._teacher, self._protocol = request, teacher, protocol
        self._tokenizer = load_tokenizer(str(teacher), 1, "the model's own tokenizer")

    @property
    def found(self) -> list[Probe]:
        """Everything that was measured, in its order."""
        return [one for session in self._sessions.values() for one in session.found]

    def figures_at(self, blocks: int) -> Figures:
        """Return what is aimed at with so many blocks."""
        assert self._request.models.baseline is not None
        original, routes = self._request.models.baseline, self._request.routes
        with progress() as told:
            found = probe(original, self._at(blocks), self._tokenizer, routes, self._protocol, told)
        for name, error in found.failed.items():
            print(f"Not measured in {name}: {error}")
        self._sessions[blocks] = found
        table: Any = self.model.get_input_embeddings()
        words = Words(table.num_embeddings, table.embedding_dim)
        return figures_for(self._request.wish, found, words, tokenizer_bytes(self._teacher))

    def as_stored(self, blocks: int, figures: Figures) -> Figures:
        """Return figures that allow for the time which their storage takes; see ``planning.in_storage``."""
        if figures.storage == Storage():
            return figures
        assert self._request.models.baseline is not None
        with progress() as told:
            stored = speedup_as_stored(
                self._request.models.baseline,
                self._at(blocks),
                self._tokenizer,
                figures.storage,
                figures.runtime,
                self._protocol,
                told,
            )
        session = self._sessions[blocks]
        route = [one for one in session.found if one.runtime == figures.runtime]
        whole = min(route, key=lambda one: one.structural).speedup
        return in_storage(figures, self._request.wish.speedup_for(session.original_ms), whole, stored)

    def _at(self, blocks: int) -> PreTrainedModel:
        most = len(block_list(self.model))
        if blocks == most:
            return self.model
        subset = LayerSubset(layers_kept(blocks, most))
        config: Any = self.model.config
        is_regression = config.problem_type == "regression"
        return subset.build(lambda: self.model, config.num_labels, is_regression=is_regression)


def _check_blocks(blocks: int, depths: range) -> None:
    if blocks not in depths:
        possible = f"between 1 and {depths[-1]}" if len(depths) > 1 else f"to be {depths[-1]}"
        raise ValueError(
            f"Expected --blocks {possible}, the blocks of the model, but got {blocks}; correct it."
        )
