"""The model card of a model folder, written from the facts of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

import lit_compress
from lit_compress.benchmark.protocol import BASELINE_RUNTIME

_FACTS = (
    ("Method", "method"),
    ("Recipe", "recipe"),
    ("Teacher", "teacher"),
    ("Task", "task"),
    ("Data", "data"),
    ("Labels", "label_names"),
    ("Epochs", "epochs"),
    ("Optimizer steps", "steps"),
)


def model_card(facts: Mapping[str, Any]) -> str:
    """Return the text of ``README.md`` with front matter that the Hugging Face hub understands.

    Facts that are not known are left out; nothing is made up.

    Args:
        facts: What the manifest holds: ``method``, ``recipe``, ``teacher``, ``task``, ``data``,
            ``label_names``, ``epochs``, ``steps``, ``metrics`` (name → value), ``pruning`` (what is left of a
            pruned model, and its speed-up), ``result``, the row of this model in ``results.jsonl``, and
            ``is_language_model``, where it is one and no classifier.

    Returns:
        Markdown.
    """
    title = _plain(facts.get("recipe") or facts.get("method") or "model")
    sections = [
        f"---\n{_front_matter(facts)}\n---",
        f"# {title}",
        f"A {_kind(facts)[0]} made with [lit-compress](https://pypi.org/project/lit-compress/) "
        f"{lit_compress.__version__}.",
        _table(("", "value"), [(name, _plain(facts[key])) for name, key in _FACTS if facts.get(key)]),
        _pruning(facts.get("pruning") or {}),
        _metrics(facts.get("metrics") or {}),
        _result(facts.get("result") or {}),
        _usage(bool(facts.get("ragged")), _kind(facts)[2]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: Mapping[str, Any]) -> str:
    tags = ["lit-compress", *([str(facts["method"])] if facts.get("method") else [])]
    data: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": _kind(facts)[1],
        "tags": tags,
    }
    teacher = facts.get("teacher")
    # The hub takes only names of its own models here, no paths of somebody's machine.
    if isinstance(teacher, str) and _is_hub_name(teacher):
        data["base_model"] = teacher
    metrics = sorted({name.rsplit("/", 1)[-1] for name in facts.get("metrics") or {}})
    if metrics:
        data["metrics"] = metrics
    return ModelCardData(**data).to_yaml()


def _is_hub_name(name: str) -> bool:
    return (
        name.count("/") <= 1 and not name.startswith((".", "~", "/", "package:")) and not Path(name).exists()
    )


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return Path(value).name if Path(value).is_absolute() else value
    if isinstance(value, Sequence):
        shown = [str(item) for item in value]
        return ", ".join(shown[:20]) + (f", … ({len(shown)})" if len(shown) > 20 else "")
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _metrics(metrics: Mapping[str, float]) -> str:
    rows = [(name, f"{value:.4f}") for name, value in sorted(metrics.items())]
    return "## Metrics\n\n" + _table(("metric", "value"), rows) if rows else ""


def _pruning(facts: Mapping[str, Any]) -> str:
    """Show what pruning has left, and the achieved speed-up beside the asked one."""
    lines: list[tuple[str, str]] = []
    asked, zeros = facts.get("sparsity_asked"), facts.get("encoder_zeros")
    if facts.get("encoder_sparsity") is not None:
        text = f"{100 * facts['encoder_sparsity']:.1f} %"
        text += f" ({100 * asked:.1f} % asked)" if asked is not None else ""
        lines.append(("encoder weights removed", text))
    if zeros:
        lines.append(("of these still there as zeros, which makes nothing faster", f"{100 * zeros:.1f} %"))
    for name in ("layers", "heads", "neurons"):
        if facts.get(name):
            kept, total = facts[name]
            lines.append((f"{name} kept", f"{kept:,} of {total:,}"))
    speedup = facts.get("speedup") or {}
    if speedup:
        place = f"{speedup['device'].upper()}, batch {speedup['batch']} × {speedup['length']} tokens"
        # Cards are made again of folders from before there were runtimes.
        place = f"{speedup.get('runtime', BASELINE_RUNTIME)}, {place}"
        spread = f"{speedup['low']:.2f}–{speedup['high']:.2f}"
        text = f"{speedup['achieved']:.2f}× ({spread}), {speedup['asked']:.2f}× asked"
        lines.append((f"speed-up after shrinking ({place})", text))
    return "## Pruning\n\n" + _table(("", "value"), lines) if lines else ""


def _result(row: Mapping[str, Any]) -> str:
    """Show the benchmark row: figures of this model, and ratios to its teacher with their spread."""
    if not row:
        return ""
    figures = [("parameters", f"{row['params']:,}")] if row.get("params") else []
    figures += [("size", f"{row['bytes'] / 1e6:.1f} MB")] if row.get("bytes") else []
    for device in ("cpu", "gpu"):
        latency = ((row.get(device) or {}).get("latency_ms") or {}).get("p50")
        figures += [(f"{device.upper()} latency p50, batch 1", f"{latency:.2f} ms")] if latency else []
    quality = row.get("quality") or {}
    if quality.get("value") is not None:
        figures.append((f"{quality.get('metric')} ({quality.get('split')})", f"{quality['value']:.4f}"))
    for name, ratio in (row.get("ratio") or {}).items():
        text = _ratio(ratio)
        figures += [(f"{name.replace('_', ' ')} against the teacher", text)] if text else []
    table = _table(("figure", "value"), figures)
    return f"## Benchmark\n\n{table}\n\n{_machine(row)}".rstrip() if figures else ""


def _ratio(ratio: Any) -> str:
    if isinstance(ratio, Mapping):
        if ratio.get("median") is None:
            return ""
        spread = f" ({ratio['low']:.2f}–{ratio['high']:.2f})" if ratio.get("low") is not None else ""
        return f"{ratio['median']:.2f}×{spread}"
    return f"{ratio:.2f}×" if isinstance(ratio, int | float) else ""


def _machine(row: Mapping[str, Any]) -> str:
    environment = row.get("environment") or {}
    known = [f"{key} {environment[key]}" for key in ("cpu", "threads", "torch") if environment.get(key)]
    return f"Measured with {', '.join(known)}." if known else ""


def _kind(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what the model is in words, for the hub, and in transformers."""
    if facts.get("is_language_model"):
        return "language model", "text-generation", "AutoModelForCausalLM"
    return "text classifier", "text-classification", "AutoModelForSequenceClassification"


def _usage(ragged: bool, auto: str) -> str:
    tokenizer = 'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n```'
    if ragged:
        return (
            "## Use\n\nThe blocks of this model differ in size, its word embedding is factorised, or its weights are "
            "stored in few bits, which no configuration of transformers says; `AutoModel` cannot load it. After "
            "`pip install lit-compress`:\n\n"
            "```python\nimport lit_compress\n"
            'from transformers import AutoTokenizer\n\nmodel = lit_compress.load("path/to/this/folder")\n'
            + tokenizer
        )
    return (
        f"## Use\n\n```python\nfrom transformers import {auto}, AutoTokenizer\n\n"
        f'model = {auto}.from_pretrained("path/to/this/folder")\n' + tokenizer
    )
