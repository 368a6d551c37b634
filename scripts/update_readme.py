"""Put the measured tables under docs/ into the README, between <!-- name --> and <!-- /name -->.

Where this checkout holds the report of a quickstart, its table becomes docs/results_quickstart.md first.

    python scripts/update_readme.py            # after a quickstart, or after files under docs/ were made again
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLES = {
    "quickstart-table": "docs/results_quickstart.md",
    "sst2-table": "docs/results_sst2_sentences.md",
    "sst2-full-table": "docs/results_sst2.md",
}
QUICKSTART = ROOT / "runs/quickstart/report/table.md"


def updated(readme: str) -> str:
    """The README with every table that exists."""
    for name, file in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in readme or end not in readme:
            raise SystemExit(f"Expected {begin} and {end} in README.md; add them where {file} shall stand.")
        if (ROOT / file).is_file():
            head, rest = readme.split(begin, 1)
            text = (ROOT / file).read_text(encoding="utf-8").strip()
            readme = f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"
    return readme


if __name__ == "__main__":
    if QUICKSTART.is_file():
        (ROOT / TABLES["quickstart-table"]).write_text(
            QUICKSTART.read_text(encoding="utf-8"), encoding="utf-8"
        )
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
