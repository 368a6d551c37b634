"""Measure models against a baseline, each in a clean process."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import torch

from lit_compress.benchmark.environment import describe_environment, load_average, usable_cores
from lit_compress.benchmark.folders import local_folder, weight_bytes, weight_fingerprint
from lit_compress.benchmark.measurement import Measurement, Spread, figures_of, ratios_of
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.session import Series, run_session


def measure(
    candidates: Sequence[Candidate], baseline: Candidate | None, protocol: Protocol
) -> list[Measurement]:
    """Measure models side by side, each in a clean process of its own.

    Args:
        candidates: The models.
        baseline: The model that ratios refer to, usually the teacher; ``None`` leaves ratios out.
        protocol: How to measure.

    Returns:
        The baseline first, where there is one, then the candidates in their order. A model that could
        not be measured has ``error`` set; the others are not affected.

    Raises:
        ValueError: Names that are not unique, lengths that do not match the protocol, more threads than
            cores, or a GPU asked for where there is none.
    """
    everyone = [baseline, *candidates] if baseline is not None else list(candidates)
    _check(everyone, protocol)
    environment = describe_environment()
    sessions = {device: run_session(everyone, protocol, device) for device in _devices(protocol)}
    environment["load_after"] = load_average()
    environment["gpu"] = _gpu_name(sessions.get("cuda", []))
    identity = uuid.uuid4().hex[:12]
    return [
        _measurement(index, baseline is not None, sessions, identity, environment, protocol)
        for index in range(len(everyone))
    ]


def _check(everyone: Sequence[Candidate], protocol: Protocol) -> None:
    names = [candidate.name for candidate in everyone]
    if not names:
        raise ValueError("Expected at least one model to measure but got none; name a model folder.")
    if len(set(names)) != len(names):
        raise ValueError(
            f"Expected unique names but got {', '.join(names)}; rename the models that share one."
        )
    for candidate in everyone:
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


def _gpu_name(series: Sequence[Series]) -> str | None:
    return next((one.facts["device_name"] for one in series if one.facts.get("device_name")), None)


def _measurement(
    index: int,
    has_baseline: bool,
    sessions: dict[str, list[Series]],
    identity: str,
    environment: dict[str, object],
    protocol: Protocol,
) -> Measurement:
    mine = {device: series[index] for device, series in sessions.items()}
    candidate = next(iter(mine.values())).candidate
    facts = next((series.facts for series in mine.values() if series.facts), {})
    figures = {device: figures_of(series) for device, series in mine.items()}
    size, weights = _on_disk(candidate)
    failures = [f"{device}: {series.error}" for device, series in mine.items() if series.error]
    ratios: dict[str, Spread | float] = {}
    if has_baseline and index > 0:
        for device, name in (("cpu", "cpu"), ("cuda", "gpu")):
            if device in sessions:
                ratios |= ratios_of(mine[device], sessions[device][0], name)
        ratios |= _size_ratios(size, facts, sessions)
    return Measurement(
        candidate=candidate,
        is_baseline=has_baseline and index == 0,
        params=facts.get("params"),
        shape=facts.get("shape", {}),
        bytes=size,
        weights=weights,
        cpu=figures.get("cpu"),
        gpu=figures.get("cuda"),
        session=identity,
        environment=environment,
        protocol=protocol,
        error="; ".join(failures) or None,
        ratios=ratios,
    )


def _on_disk(candidate: Candidate) -> tuple[int | None, str | None]:
    try:
        folder = local_folder(candidate.folder)
    except ValueError:
        # The session has put this on record as the model's error.
        return None, None
    return weight_bytes(folder), weight_fingerprint(folder)


def _size_ratios(
    size: int | None, facts: dict[str, object], sessions: dict[str, list[Series]]
) -> dict[str, Spread | float]:
    first = [series[0] for series in sessions.values()]
    base_size, _ = _on_disk(first[0].candidate)
    base_params = next((series.facts["params"] for series in first if series.facts), None)
    ratios: dict[str, Spread | float] = {}
    if size and base_size:
        ratios["size"] = size / base_size
    if facts and base_params:
        ratios["params"] = float(facts["params"]) / base_params  # type: ignore[arg-type]
    return ratios
