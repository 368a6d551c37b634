"""Pages keep what was written by hand; records of another machine are refused."""

import json

import pytest

from lit_compress.benchmark.environment import describe_environment


@pytest.fixture(scope="module")
def pages():
    import bench_pages

    return bench_pages


def session(**environment):
    row = {
        "environment": {**describe_environment(), **environment},
        "protocol": {"threads": 1, "clock": "cpu"},
    }
    return {"rows": [row], "load": 0.25, "note": "one\u2028line"}


def write(path, *records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def test_notes_stay_whatever_is_above_them(pages, tmp_path):
    out = tmp_path / "docs" / "page.md"
    pages.write_page(out, ["# One", "", "first\n"])
    assert out.read_text() == f"# One\n\nfirst\n\n{pages.NOTES}\n"
    out.write_text(out.read_text() + "\nBy hand.\n")
    pages.write_page(out, ["# Two"])
    assert out.read_text() == f"# Two\n\n{pages.NOTES}\n\nBy hand.\n"
    again = out.read_text()
    pages.write_page(out, ["# Two"])
    assert out.read_text() == again


def test_sessions_of_this_machine_are_read(pages, tmp_path):
    file = tmp_path / "sessions.jsonl"
    assert pages.own_sessions(file) == []
    write(file, session(), session(gpu="another"))
    assert pages.own_sessions(file) == [session(), session(gpu="another")]
    facts = describe_environment()
    text = pages.machine([session(), {**session(), "load": None}])
    assert f"Machine: {facts['cpu']}, 1 thread, cpu, load 0.2–0.2 before" in text
    assert f"torch {facts['torch']}," in text


@pytest.mark.parametrize("other", [{"cpu": "Other CPU"}, {"torch": "0.1"}])
def test_refuses_to_mix_machines(pages, tmp_path, other):
    file = tmp_path / "sessions.jsonl"
    write(file, session(), session(**other))
    with pytest.raises(SystemExit, match=r"Expected runs of this machine .* in .*sessions\.jsonl but got"):
        pages.own_sessions(file)
