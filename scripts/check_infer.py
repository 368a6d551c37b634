"""Run the infer.py of every export in an environment that holds only what it asks for, and write docs/infer.md.

Per format: `lit-compress export` writes the folder, `python -m venv` makes an empty environment, pip installs what the
README of the export says, and infer.py runs there as a program, isolated (`-I`), with no variables of this environment,
from another folder. Its labels and probabilities are compared with those of `lit_compress.load` of the original.

    python scripts/check_infer.py runs/x/model --formats onnx-fp32 onnx-int8 openvino gguf
    python scripts/check_infer.py runs/x/model --formats litert     # in an environment that has its exporter

The page holds the latest record of each model and format in --records, so that formats whose exporters need different
environments come onto one page. Environments are removed when they have been used.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from bench_pages import write_page
from transformers import AutoTokenizer

import lit_compress
from lit_compress.benchmark.environment import describe_environment
from lit_compress.benchmark.results import append_rows
from lit_compress.export.folder import infer_script
from lit_compress.export.formats import builder, full_name
from lit_compress.export.parity import max_length
from lit_compress.files import read_json_lines
from lit_compress.models.manifest import read_manifest

Answer = tuple[str, float]
Record = dict[str, Any]
#: No TAB, which parts the texts of a pair, and no line break, which ends a line of the answer.
TEXTS = {
    "short": "A film that is as good as it is long.",
    "empty": "",
    "long": "It begins well, then nothing happens for an hour, and the end is wonderful! " * 100,
    "odd": "naïve 😀👩‍👩‍👧 — “не\u0301 плохо” 東京 \u202eשלום\u202c [MASK] [SEP] <b>&amp;\u00a0\u0001\u200b\ufeff",
}
#: Largest difference of a probability: of what computes in float32, and of what rounds.
SAME, NEAR = 1e-3, 0.1


# -- one export ------------------------------------------------------------------------------------


def expected(folder: Path) -> list[Answer]:
    """Return label and probability of every text by the original, each alone.

    Args:
        folder: The model folder, with its tokenizer.
    """
    model = lit_compress.load(folder).float().eval()
    tokenizer, longest = AutoTokenizer.from_pretrained(folder), max_length(model)
    names = (read_manifest(folder) or {}).get("label_names") or list(model.config.id2label.values())
    if longest is not None and len(tokenizer(TEXTS["long"])["input_ids"]) <= longest:
        raise SystemExit(f"Expected a text over the limit of {longest} tokens in TEXTS but got none.")
    answers = []
    for text in TEXTS.values():
        batch = tokenizer(text, truncation=longest is not None, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            shares = model(**batch).logits[0].double().softmax(0)
        answers.append((str(names[int(shares.argmax())]), float(shares.max())))
    return answers


def needed(export: Path) -> list[str]:
    """Return what the README of an export lets its reader install."""
    for line in (export / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("pip install "):
            return shlex.split(line)[2:]
    raise ValueError(f"Expected a line with pip install in {export / 'README.md'} but there is none.")


def answers_of(output: str) -> list[Answer]:
    """Return label and probability of every line that infer.py printed."""
    lines = [line.split("\t", 2) for line in output.removesuffix("\n").split("\n")]
    if [line[2:] for line in lines] != [[text] for text in TEXTS.values()]:
        raise ValueError(f"Expected one line per text, in their order, but got {output[:200]!r}.")
    return [(label, float(value)) for label, value, _ in lines]


def verdict(found: Sequence[Answer], wanted: Sequence[Answer]) -> Record:
    """Compare the answers of an export with those of the original."""
    labels = sum(label == other for (label, _), (other, _) in zip(found, wanted, strict=True))
    # Where the labels differ, the probabilities are of different labels.
    difference = max(
        (abs(p - q) for (label, p), (other, q) in zip(found, wanted, strict=True) if label == other),
        default=1.0,
    )
    words = "the same" if difference <= SAME else "near" if difference <= NEAR else "differs"
    return {
        "labels": labels,
        "difference": difference,
        "verdict": words if labels == len(wanted) else "differs",
    }


def run(command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Return what a program prints.

    Raises:
        RuntimeError: It failed; the text is its last line.
    """
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no words"]
        raise RuntimeError(f"{Path(command[0]).name} ended with status {done.returncode}: {lines[-1][:300]}")
    return done.stdout


def check(model: Path, name: str, wanted: Sequence[Answer]) -> Record:
    """Export a model, run it in a fresh environment, and compare.

    Args:
        model: The model folder.
        name: A format and its precision.
        wanted: What the original answers.
    """
    format, _, precision = name.partition("-")
    with tempfile.TemporaryDirectory(prefix="check_infer-") as scratch:
        place = Path(scratch)
        export, home, elsewhere = place / "export", place / "venv", place / "elsewhere"
        elsewhere.mkdir()
        options = ["--format", format, "--precision", precision, "--out", str(export), "--no-benchmark"]
        run([sys.executable, "-m", "lit_compress", "export", str(model), *options], Path.cwd())
        requirements = needed(export)
        run([sys.executable, "-m", "venv", str(home)], place)
        python = str(home / "bin" / "python")
        run([python, "-m", "pip", "install", "--quiet", *requirements], place)
        clean = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(elsewhere), "TMPDIR": scratch}
        start = time.perf_counter()
        output = run([python, "-I", str(export / "infer.py"), *TEXTS.values()], elsewhere, clean)
        seconds = time.perf_counter() - start
        size = sum(path.lstat().st_size for path in home.rglob("*") if path.is_file())
        return {
            "requirements": requirements,
            "megabytes": size / 1e6,
            "seconds": seconds,
            **verdict(answers_of(output), wanted),
        }


def tried(model: Path, name: str, wanted: Sequence[Answer]) -> Record:
    """Return the record of a format: what came out, why it failed, or why it was not tried."""
    if infer_script(name.partition("-")[0]) is None:
        return {"verdict": "not tried: it has no infer.py"}
    try:
        builder(name).check()
    except ImportError as error:
        return {"verdict": f"not tried: {error}"}
    try:
        return check(model, name, wanted)
    except (RuntimeError, ValueError) as error:
        return {"verdict": f"failed: {error}"}


# -- the page --------------------------------------------------------------------------------------


def latest(records: Sequence[Record]) -> list[Record]:
    """Return the newest record of each model and format; one that was not tried gives way to one that was."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:
        key = record["model"], record["format"]
        if key not in found or not record["verdict"].startswith("not tried"):
            found[key] = record
    return list(found.values())


def table(records: Sequence[Record], calls: Sequence[str]) -> str:
    """Return the Markdown table."""
    lines = [
        "| format | requirements | environment, MB | infer.py, s | same label | largest difference | verdict | call |",
        "|---|---|--:|--:|--:|--:|---|--:|",
    ]
    for record in records:
        cells = [record["format"], "–", "–", "–", "–", "–"]
        if "labels" in record:
            cells[1:] = [
                ", ".join(f"`{entry}`" for entry in record["requirements"]),
                f"{record['megabytes']:.0f}",
                f"{record['seconds']:.1f}",
                f"{record['labels']} of {len(TEXTS)}",
                f"{record['difference']:.4f}",
            ]
        number = str(calls.index(record["call"]) + 1)
        lines.append(f"| {' | '.join([*cells, record['verdict'].replace('|', '/'), number])} |")
    return "\n".join(lines)


def page(records: Sequence[Record]) -> list[str]:
    """Return the blocks of the document.

    Args:
        records: The latest of each model and format.
    """
    calls = list(dict.fromkeys(record["call"] for record in records))
    software = {record["call"]: record["software"] for record in records}
    told = "\n".join(
        f"{number}. `{call}` with {software[call]}" for number, call in enumerate(calls, start=1)
    )
    blocks = [
        "# Every infer.py in an environment of its own",
        "Made by `scripts/check_infer.py`: `lit-compress export` writes a folder; a new environment gets nothing but "
        "what the README of that folder says, as pip finds it; `infer.py` runs there as a program, isolated, without "
        "the variables of any other environment, from another folder. It reads "
        f"{len(TEXTS)} texts: a short one, an empty one, one over the limit of the model, and one of odd characters. "
        "Labels and probabilities are compared with `lit_compress.load` of the original, one text at a time: *the "
        f"same* is a probability within {SAME:g}, *near*, as for int8, within {NEAR:g}, both with the same label for "
        "every text. Megabytes are those of the whole environment with pip, PyTorch being its CPU build; seconds are "
        "the whole program on all texts, start and loading included, on a machine that did other work too.",
        f"Calls, one per environment that has the exporters:\n\n{told}",
    ]
    for model in dict.fromkeys(record["model"] for record in records):
        mine = [record for record in records if record["model"] == model]
        blocks.append(f"## `{model}`\n\n{table(mine, calls)}")
    return [*blocks, f"Machine: {describe_environment()['cpu']}."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder of a text classifier")
    parser.add_argument(
        "--formats", nargs="+", required=True, metavar="NAME", help="a format, or format-precision"
    )
    parser.add_argument("--records", type=Path, default=Path("runs/check_infer.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/infer.md"), help="the page")
    args = parser.parse_args()
    names = [
        full_name(format, precision or None)
        for format, _, precision in (n.partition("-") for n in args.formats)
    ]
    wanted = expected(args.model)
    shared = {
        "model": args.model.as_posix(),
        "call": f"python scripts/check_infer.py {args.model.as_posix()} --formats {' '.join(args.formats)}",
        "software": ", ".join(
            f"{name} {version(name)}" for name in ("torch", "transformers", "lit-compress")
        ),
    }
    for name in names:
        record = {**shared, "format": name, **tried(args.model, name, wanted)}
        append_rows(args.records, [record])
        print(json.dumps(record, ensure_ascii=False), flush=True)
    write_page(args.out, page(latest(read_json_lines(args.records))))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
