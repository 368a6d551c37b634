"""Finds what a command line means: models, their names, the data they were trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lit_compress.benchmark.folders import display_name, local_folder, recorded_method
from lit_compress.benchmark.protocol import BASELINE_RUNTIME, Candidate, typical_rows
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.run_config import FILE_NAME, known_data, read_config, run_folder, texts_of
from lit_compress.models.manifest import MANIFEST, read_manifest
from lit_compress.models.names import resolve_model


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, for its row.

    Args:
        run: The run folder.
        recipe: The recipe of the run.
        seed: The seed of the run.
    """

    run: str
    recipe: str | None
    seed: int | None

    @classmethod
    def of(cls, model: Path) -> Origin:
        """Return what a model folder and its run folder tell."""
        run = run_folder(model)
        config = read_config(run / FILE_NAME) if run != model else {}
        seed = config.get("seed_everything")
        recipe = (read_manifest(model) or {}).get("recipe")
        return cls(str(run), recipe, seed if isinstance(seed, int) and not isinstance(seed, bool) else None)


@dataclass(frozen=True)
class Models:
    """Everything that a benchmark is about.

    Args:
        candidates: Models in runtimes.
        baseline: What ratios refer to.
        texts: Labelled texts, ``None`` where there are none.
        lengths: Token lengths of typical texts.
        origins: Where the models come from, by name.
    """

    candidates: list[Candidate]
    baseline: Candidate | None
    texts: Texts | None
    lengths: tuple[int, ...]
    origins: dict[str, Origin]


def find_models(
    folders: Sequence[str], against: str | None, runtimes: Sequence[str], data: str | None, split: str
) -> Models:
    """Find models, names and data.

    Args:
        folders: Model folders, hub names or ``package:NAME``.
        against: The same for the baseline.
        runtimes: Runtimes of every model.
        data: YAML file with a ``data`` section; found in the folders' runs where ``None``.
        split: Split of the data.

    Returns:
        Every folder in every runtime, and the baseline's model in the runtimes besides eager float32.

    Raises:
        ValueError: A folder or the data cannot be used.
    """
    # One folder given twice is one model.
    found = {local_folder(folder): display_name(resolve_model(folder)) for folder in folders}
    places, own = list(found), _told_apart(found)
    texts = texts_of_models(places, data, split)
    lengths = texts.lengths() if texts is not None else _recorded_lengths(places)
    named = [(place, name, "–") for place, name in own.items()]
    base = local_folder(against) if against is not None else None
    baseline = None
    if against is not None and base is not None:
        name = display_name(resolve_model(against))
        name = f"{name} (baseline)" if name in own.values() else name
        baseline = _candidate(base, name, "teacher", BASELINE_RUNTIME, texts)
        if base not in own:
            named.append((base, name, "teacher"))
    candidates = [
        _candidate(place, name, method, runtime, texts)
        for place, name, method in named
        for runtime in runtimes
        if baseline is None or (name, runtime) != (baseline.name, BASELINE_RUNTIME)
    ]
    everyone = [*candidates, *([baseline] if baseline else [])]
    origins = {candidate.name: Origin.of(Path(candidate.folder)) for candidate in everyone}
    return Models(candidates, baseline, texts, lengths, origins)


def _candidate(place: Path, name: str, method: str, runtime: str, texts: Texts | None) -> Candidate:
    side = side_of(place, texts, is_teacher=method == "teacher")
    lengths = texts.teacher_lengths() if texts is not None and side == "teacher" else None
    return Candidate(name, str(place), recorded_method(str(place), method), runtime, lengths, side)


def _told_apart(names: dict[Path, str]) -> dict[Path, str]:
    """Put the folder above in front of names that several models share, then the whole path."""
    above = {place: (place.parent if place.name == "model" else place).parent.name for place in names}
    told = dict(names)
    for rename in (lambda place: f"{above[place]}/{names[place]}", str):
        counts = Counter(told.values())
        told = {place: rename(place) if counts[name] > 1 else name for place, name in told.items()}
    return told


def texts_of_models(places: Sequence[Path], data: str | None, split: str) -> Texts | None:
    """Build the data of the command line, or those that the models lead to, which must then agree.

    Args:
        places: Model folders.
        data: YAML file with a ``data`` section; see :func:`~lit_compress.benchmark.run_config.known_data` where
            ``None``.
        split: Split of the data.

    Returns:
        The labelled texts; ``None`` where nothing names data.

    Raises:
        ValueError: The data cannot be used, or differ between the runs.
    """
    asked = [Path(data)] if data is not None else [known_data(place) for place in places]
    files = [file for file in asked if file is not None]
    configs: dict[str, tuple[dict[str, Any], Path]] = {}
    for file in files:
        config = read_config(file)
        configs.setdefault(str(config.get("data")), (config, file))
    found = [(texts_of(config, file, split), file) for config, file in configs.values()]
    if not found:
        return None
    (first, where), *others = found
    for other, file in others:
        if other.describe() != first.describe():
            raise ValueError(
                f"Expected models of the same data but {where} and {file} describe different {split} rows; "
                "measure them one by one, or choose the data with --data."
            )
    return first


def _recorded_lengths(places: Sequence[Path]) -> tuple[int, ...]:
    lengths = next((found for p in places if (found := (read_manifest(p) or {}).get("input_lengths"))), None)
    if not lengths:
        raise ValueError(
            f"Expected input_lengths, token counts of real texts, in {places[0] / MANIFEST} but there are none; "
            "give a model folder that lit-compress fit wrote, or the data with --data."
        )
    return tuple(int(lengths[row]) for row in typical_rows(lengths))


def side_of(place: Path, texts: Texts | None, is_teacher: bool) -> Literal["student", "teacher"]:
    """Return whose tokens a model reads, by the tokenizer in its folder.

    Args:
        place: Model folder.
        texts: The labelled texts.
        is_teacher: Whether it is taken for the teacher where the folder has no tokenizer.

    Raises:
        ValueError: Its tokenizer is neither of those of the data.
    """
    # Importing the data package takes seconds; without data nobody asks.
    if texts is None:
        return "student"
    from lit_compress.data.tokenizer import load_tokenizer, tokenizer_fingerprint

    data = texts.datamodule
    known = {tokenizer_fingerprint(data.tokenizer_object): "student"}
    if data.teacher_tokenizer_object is not None:
        known.setdefault(tokenizer_fingerprint(data.teacher_tokenizer_object), "teacher")
    if not (place / "tokenizer_config.json").is_file():
        return "teacher" if is_teacher and len(known) > 1 else "student"
    own = tokenizer_fingerprint(load_tokenizer(str(place), 1, "the model's own tokenizer"))
    if own not in known:
        raise ValueError(
            f"Expected {place} to have the tokenizer of the data but it has another one, so that its tokens would "
            "be others; give data whose tokenizer or teacher_tokenizer is that of the model with --data."
        )
    return known[own]  # type: ignore[return-value]
