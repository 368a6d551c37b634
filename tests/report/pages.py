"""Made-up rows for pages, and what a page holds for its scripts."""

import json
import re

from lit_compress.report.groups import group_rows
from lit_compress.report.page import page
from tests.report.rows import GPU, make_failed, make_row, make_teacher, ratio_of

NASTY = """<script>alert("x")</script>'&amp;"""
RUNTIMES = {"torch-fp32": 1.0, "torch-bf16": 1.3, "onnx-fp32": 0.7, "onnx-int8": 0.4}


def page_data(text):
    """Return the data that a page gives its scripts."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def many_rows(models, **changes):
    """Return a baseline and its other runtimes, and some models in every runtime."""
    rows = []
    for number in range(-1, models):
        for runtime, factor in RUNTIMES.items():
            make = make_teacher if number < 0 else make_row
            baseline = number < 0 and runtime == "torch-fp32"
            time = (1.0 if number < 0 else 0.3 + 0.4 * number / models) * factor
            facts = {
                "runtime": runtime,
                "is_baseline": baseline,
                "cpu__latency_ms__p50": 8 * time,
                "ratio": {} if baseline else {"cpu_latency": ratio_of(time), "size": 0.7, "quality": 0.99},
            }
            if number >= 0:
                facts |= {
                    "model": f"model {number:03}",
                    "run": f"runs/{number}",
                    "method": f"method {number % 5}",
                }
                facts |= {"bytes": 40_000_000 + 100_000 * number, "quality__value": 0.84 + 0.0002 * number}
            rows.append(make(**(facts | changes)))
    return rows


def full_page(folder):
    """Write a page with all its sections, two set-ups and names that try to break it."""
    rows = many_rows(6, gpu=GPU)
    rows[5]["shape"]["heads"] = [[1, 0, 1, 1]] * 12
    rows[5]["shape"]["neurons"] = [[384 * (n % 5), 1536] for n in range(12)]
    rows[6]["shape"]["bits"] = {f"encoder.layer.{n}.attention.self.query": 2 + 2 * (n % 4) for n in range(6)}
    rows += [
        make_row(
            model=f"pkd-s{seed}",
            run=f"runs/s{seed}",
            seed=seed,
            setting="x",
            quality__value=0.80 + seed / 100,
        )
        for seed in range(3)
    ]
    rows += [
        make_row(model=NASTY, method=NASTY, run=NASTY),
        make_failed(error=NASTY, runtime="torch-compile"),
    ]
    rows[-2]["warnings"] = ["memory grew by 120 MB over 10 rounds"]
    rows += many_rows(2, environment__cpu="Slow CPU")
    steps = range(0, 400, 10)
    curves = {
        run: {
            name: [(step, 1 / (step + start)) for step in steps]
            for name in ("train/loss", "train/soft", "val/accuracy")
        }
        for start, run in ((20, "runs/0"), (50, NASTY))
    }
    path = folder / "index.html"
    path.write_text(page(group_rows(rows), curves), encoding="utf-8")
    return path
