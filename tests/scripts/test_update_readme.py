"""The tables of the README are those of the pages under docs/."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def script():
    import update_readme

    return update_readme


def test_tables_are_the_committed_measurements(script):
    assert script.updated(README) == README


def test_the_figures_of_the_benchmark_are_those_of_its_page(script, tmp_path):
    page = (ROOT / script.BENCHMARK).read_text(encoding="utf-8")
    found = re.search(r"\*\*([\d.]+) s\*\*", page)[1]
    changed = page.replace(f"**{found} s**", "**37.6 s**").replace(
        "| cpu_latency | 20 of", "| cpu_latency | 19 of"
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / script.BENCHMARK).write_text(changed, encoding="utf-8")
    text = script.updated(README, tmp_path)
    assert "(38 s for two models)" in text.replace("\n", " ") and '"no difference" in 19 of' in text
    with pytest.raises(SystemExit, match="Expected the figure 'spread' in docs/bench_benchmark.md"):
        script.trust(changed.replace("a spread", "spread"))
