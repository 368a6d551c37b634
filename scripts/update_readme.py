"""Put what was measured, from the pages under docs/, into the README, between <!-- name --> and <!-- /name -->.

Where this checkout holds the report of a quickstart, its table becomes docs/results_quickstart.md first.

    python scripts/update_readme.py            # after a quickstart, or after files under docs/ were made again
"""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from table_cells import cells, table_lines

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "runs/quickstart/report/table.md"
BENCHMARK = "docs/bench_benchmark.md"
_FIGURES = {
    "seconds": r"\*\*([\d.]+) s\*\* at most",
    "equal": r"^\| cpu_latency \| (\d+ of \d+) \|",
    "runs": r"against its baseline, (\d+) runs",
    "spread": r"a spread [^\n]*\(([\d.]+)%\)",
}


def trust(page: str) -> str:
    """The sentence about the benchmark, with the figures of its page."""
    found = {name: re.search(pattern, page, re.MULTILINE) for name, pattern in _FIGURES.items()}
    missing = [name for name, match in found.items() if match is None]
    if missing:
        raise SystemExit(f"Expected the figure {missing[0]!r} in {BENCHMARK}; make the page again.")
    figures = {name: match[1] for name, match in found.items() if match is not None}
    text = (
        f'How far that can be trusted (a model beside itself says "no difference" in {figures["equal"]} runs; the '
        f"ratio of one pair of models scatters by {figures['spread']} % over {figures['runs']} runs) and what it costs "
        f"({float(figures['seconds']):.0f} s for two models): [{BENCHMARK}]({BENCHMARK})."
    )
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def wishes(page: str) -> str:
    """The table of a page of wishes, without the rows of fits that were given other words."""
    return "\n".join(line for line in table_lines(page) if "," not in cells(line)[0])


#: Name of each place, with the page and what is taken from it.
PLACES: dict[str, tuple[str, Callable[[str], str]]] = {
    "quickstart-table": ("docs/results_quickstart.md", str.strip),
    "flagship-table": ("docs/flagship_sst2.md", wishes),
    "sst2-table": ("docs/results_sst2_sentences.md", str.strip),
    "sst2-full-table": ("docs/results_sst2.md", str.strip),
    "pruning-table": ("docs/results_pruning.md", str.strip),
    "quantization-table": ("docs/results_quantization.md", str.strip),
    "bench-benchmark": (BENCHMARK, trust),
}


def updated(readme: str, root: Path = ROOT) -> str:
    """The README with everything that was measured."""
    for name, (file, taken) in PLACES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in readme or end not in readme:
            raise SystemExit(f"Expected {begin} and {end} in README.md; add them where {file} shall stand.")
        if (root / file).is_file():
            head, rest = readme.split(begin, 1)
            text = taken((root / file).read_text(encoding="utf-8"))
            readme = f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"
    return readme


if __name__ == "__main__":
    if QUICKSTART.is_file():
        text = QUICKSTART.read_text(encoding="utf-8")
        (ROOT / PLACES["quickstart-table"][0]).write_text(text, encoding="utf-8")
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
