"""Measure models against a baseline, each in a clean process."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lit_compress.benchmark.artefacts import Artefact, PrepareError, prepare
from lit_compress.benchmark.environment import describe_environment, load_average, usable_cores
from lit_compress.benchmark.folders import local_folder, weight_fingerprint
from lit_compress.benchmark.intervals import Ratio
from lit_compress.benchmark.leaks import leak_warning
from lit_compress.benchmark.measurement import Measurement, figures_of, ratios_of
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.series import Series
from lit_compress.benchmark.session import Progress, run_session

# An export may have to compile; loading and timing, which the protocol's timeout is for, never take as long.
_PREPARE_TIMEOUT = 600.0
_SHORT = {"cpu": "cpu", "cuda": "gpu"}


def measure(
    candidates: Sequence[Candidate],
    baseline: Candidate | None,
    protocol: Protocol,
    texts: Texts | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measure models side by side, each in a clean process of its own.

    Args:
        candidates: The models, each in its runtime.
        baseline: The model that ratios refer to, usually the teacher; ``None`` leaves ratios out.
        protocol: How to measure.
        texts: Labelled texts to evaluate every model on; ``None`` leaves quality out.
        progress: Told what is being done.

    Returns:
        The baseline first, where there is one, then the candidates in their order. A model that could
        not be measured has ``error`` set; the others are not affected.

    Raises:
        ValueError: Names that are not unique, an unknown runtime, lengths that do not match the protocol,
            more threads than cores, or a GPU asked for where there is none.
    """
    everyone = [baseline, *candidates] if baseline is not None else list(candidates)
    _check(everyone, protocol)
    tell = progress or (lambda text, done: None)
    started = time.monotonic()
    environment = describe_environment()
    tell("preparing", 0.0)
    subjects = _prepare_all(everyone, texts)
    devices = _devices(protocol)
    for number, device in enumerate(devices):
        here = _series_on(device, devices, subjects)
        done = partial(_tell_part, tell, number, len(devices))
        run_session(here, protocol, device, texts, done)
    environment["load_after"] = load_average()
    environment["gpu"] = _gpu_name(subjects)
    session = _Session(
        uuid.uuid4().hex[:12], environment, protocol, subjects[0] if baseline is not None else None
    )
    seconds = _shares(subjects, time.monotonic() - started)
    return [_measurement(subject, session, cost) for subject, cost in zip(subjects, seconds, strict=True)]


@contextmanager
def prepared_ahead(folders: Sequence[str]) -> Iterator[None]:
    """Prepare models for eager float32 while the body of the ``with`` statement does something else.

    Args:
        folders: Model folders; what is wrong with one of them is told when it is measured.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        for folder in folders:
            pool.submit(_prepare, Candidate(folder, folder))
        yield


@dataclass
class _Subject:
    """A candidate on its way through the session."""

    candidate: Candidate
    folder: Path | None = None
    artefact: Artefact | None = None
    weights: str | None = None
    spent: float = 0.0
    error: str | None = None
    series: dict[str, Series] = field(default_factory=dict)


@dataclass(frozen=True)
class _Session:
    """What the measurements of a session share."""

    identity: str
    environment: dict[str, Any]
    protocol: Protocol
    baseline: _Subject | None


def _check(everyone: Sequence[Candidate], protocol: Protocol) -> None:
    labels = [candidate.label for candidate in everyone]
    if not labels:
        raise ValueError("Expected at least one model to measure but got none; name a model folder.")
    if len(set(labels)) != len(labels):
        raise ValueError(
            f"Expected unique names but got {', '.join(labels)}; rename the models that share one."
        )
    for candidate in everyone:
        runtime(candidate.runtime)
        if candidate.lengths is not None and len(candidate.lengths) != len(protocol.lengths):
            raise ValueError(
                f"Expected lengths of the protocol's {len(protocol.lengths)} texts for {candidate.name!r} "
                f"but got {len(candidate.lengths)}; count the tokens of the same texts."
            )
    if protocol.threads > usable_cores():
        raise ValueError(
            f"Expected at most {usable_cores()} threads, the cores this process may use, but got "
            f"threads={protocol.threads}; more only fight for the cores."
        )
    if "cuda" in (protocol.devices or ()) and not torch.cuda.is_available():
        raise ValueError(
            "Expected a CUDA device but torch finds none; leave devices out to measure what is there."
        )


def _devices(protocol: Protocol) -> list[str]:
    return list(protocol.devices or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]))


def _prepare_all(everyone: Sequence[Candidate], texts: Texts | None) -> list[_Subject]:
    """Prepare as many artefacts at once as there are cores."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        # Threads begin without what is set around the call, such as that models are only timed.
        tasks = [partial(copy_context().run, _prepare, candidate, texts) for candidate in everyone]
        return [task.result() for task in [pool.submit(task) for task in tasks]]


def _prepare(candidate: Candidate, texts: Texts | None = None) -> _Subject:
    subject, started = _Subject(candidate), time.monotonic()
    try:
        subject.folder = local_folder(candidate.folder)
        subject.weights = weight_fingerprint(subject.folder)
        calibrated = texts is not None and runtime(candidate.runtime).calibrated
        samples = {"samples": texts.samples(candidate.side)} if texts is not None and calibrated else {}
        subject.artefact = prepare(candidate.folder, candidate.runtime, _PREPARE_TIMEOUT, **samples)
    except (PrepareError, ValueError, ImportError, OSError) as error:
        subject.error = str(error)
    subject.spent = time.monotonic() - started
    return subject


def _series_on(device: str, devices: Sequence[str], subjects: Sequence[_Subject]) -> list[Series]:
    """Return the series of those models that run on a device; quality is taken on the last one of each."""
    for subject in subjects:
        usable = [name for name in devices if name in runtime(subject.candidate.runtime).devices]
        if subject.error is None and device in usable:
            judged = device == usable[-1]
            subject.series[device] = Series(subject.candidate, subject.artefact, judged=judged)
    return [subject.series[device] for subject in subjects if device in subject.series]


def _tell_part(tell: Progress, number: int, parts: int, text: str, done: float) -> None:
    tell(text, (number + done) / parts)


def _gpu_name(subjects: Sequence[_Subject]) -> str | None:
    names = [series.device_name for subject in subjects for series in subject.series.values()]
    return next((name for name in names if name), None)


def _shares(subjects: Sequence[_Subject], seconds: float) -> list[float]:
    """Return what each model cost of a session's wall time; some of them ran at the same time."""
    spent = [subject.spent + sum(s.spent for s in subject.series.values()) for subject in subjects]
    return [seconds * own / (sum(spent) or 1.0) for own in spent]


def _measurement(subject: _Subject, session: _Session, seconds: float) -> Measurement:
    base, protocol = session.baseline, session.protocol
    figures = {device: figures_of(series, protocol) for device, series in subject.series.items()}
    failures = [f"{_SHORT[device]}: {s.error}" for device, s in subject.series.items() if s.error]
    return Measurement(
        candidate=subject.candidate,
        is_baseline=subject is base,
        is_teacher=base is not None and subject.folder is not None and subject.folder == base.folder,
        artefact=subject.artefact,
        weights=subject.weights,
        cpu=figures.get("cpu"),
        gpu=figures.get("cuda"),
        quality=next((s.quality for s in subject.series.values() if s.quality), None),
        session=session.identity,
        environment=session.environment,
        protocol=protocol,
        seconds=seconds,
        ratios={} if base is None or subject is base else _ratios(subject, base, protocol),
        warnings=_warnings(subject),
        error=subject.error or "; ".join(failures) or None,
    )


def _ratios(subject: _Subject, base: _Subject, protocol: Protocol) -> dict[str, Ratio | float]:
    ratios: dict[str, Ratio | float] = {}
    for device, series in subject.series.items():
        if device in base.series:
            ratios |= ratios_of(series, base.series[device], _SHORT[device], protocol)
    if subject.artefact and base.artefact:
        ratios["size"] = subject.artefact.bytes / base.artefact.bytes
        params = [artefact.facts["params"] for artefact in (subject.artefact, base.artefact)]
        if all(params):
            ratios["params"] = params[0] / params[1]
    return ratios


def _warnings(subject: _Subject) -> list[str]:
    warnings = []
    for device, series in subject.series.items():
        leak = leak_warning(series.memory, "memory" if device == "cpu" else "GPU memory")
        warnings += [*series.warnings, *([leak] if leak else [])]
    return warnings
