import pytest

from lit_compress.report.groups import group_rows
from lit_compress.report.headline import headline, size, speed
from tests.report.rows import GPU, make_failed, make_row, make_teacher, ratio_of


def student(name, latency, kept, megabytes=50, spread=0.01, **changes):
    """Return a row: its times over the teacher's, the share of quality that it keeps, its size."""
    ratio = {
        "cpu_latency": ratio_of(latency, latency - spread, latency + spread),
        "size": megabytes / 91,
        "quality": kept,
    }
    return make_row(
        model=name,
        run=f"runs/{name}",
        ratio=ratio,
        bytes=megabytes * 1_000_000,
        cpu__latency_ms__p50=8 * latency,
        quality__value=0.88 * kept,
        **changes,
    )


def said(*rows):
    (group,) = group_rows(rows)
    return headline(group)


def picks(*rows):
    return {(pick.wish, pick.share): pick for pick in said(*rows).picks}


def names(pick):
    return pick.row and pick.row["model"], {row["model"] for row in pick.ties}


ROWS = [
    make_teacher(),
    student("careful", 0.6, 0.995, 70),
    student("good", 0.4, 0.985, 60),
    student("quick", 0.2, 0.955, 40),
    student("hasty", 0.1, 0.80, 20),
]


def test_fastest_and_smallest_that_keep_enough():
    found = picks(*ROWS)
    assert names(found["Best quality", None]) == ("teacher", set())
    assert names(found["Fastest", 0.98]) == ("good", set())
    assert names(found["Smallest", 0.98]) == ("good", set())
    assert names(found["Fastest", 0.95]) == ("quick", set())
    answer = said(*ROWS)
    assert answer.answer == "Ship good"
    assert answer.reason == (
        "It keeps 98.5 % of the teacher’s accuracy, is 2.5 times faster on the CPU (2.4–2.6) and is 1.5 times smaller."
    )


def test_within_the_interval_the_better_quality_leads_and_the_others_are_ties():
    close = [student("a", 0.40, 0.985, spread=0.03), student("b", 0.42, 0.999, spread=0.03)]
    found = picks(make_teacher(), *close, student("c", 0.60, 0.99))
    assert names(found["Fastest", 0.98]) == ("b", {"a"})
    assert names(found["Smallest", 0.98]) == ("b", {"a", "c"})


def test_a_slower_student_is_not_shipped_for_speed():
    answer = said(make_teacher(), student("slow", 1.5, 0.99))
    assert answer.answer == "Keep teacher"


def test_the_teacher_in_another_runtime_can_be_the_answer():
    other = student("teacher", 0.5, 1.0, 91, role="teacher", weights="tttt", runtime="onnx-fp32")
    assert said(make_teacher(), other).answer == "Ship teacher in onnx-fp32"


def test_falls_back_to_95_percent_and_says_so():
    answer = said(make_teacher(), student("quick", 0.2, 0.955))
    assert answer.answer == "Ship quick"
    assert "Nothing faster than the teacher keeps 98 %." in answer.reason


def test_nothing_good_enough():
    answer = said(make_teacher(), student("hasty", 0.1, 0.80))
    assert answer.answer == "Keep teacher"
    assert "Nothing else here keeps 95 %" in answer.reason


def test_a_single_row_is_compared_with_nothing():
    answer = said(make_row())
    assert answer.answer == "Only student was measured"
    assert answer.picks == [] and answer.caveats == []


def test_failures_only():
    assert said(make_failed()).answer == "Nothing to ship yet"


def test_without_quality_it_says_only_what_is_fastest():
    rows = [make_teacher(quality=None), student("quick", 0.2, 0.955) | {"quality": None}]
    del rows[1]["ratio"]["quality"]
    answer = said(*rows)
    assert answer.answer == "quick is the fastest"
    assert [pick.wish for pick in answer.picks] == ["Fastest", "Smallest"]


def test_without_a_baseline_it_warns_of_drift():
    rows = [make_row(model=name, run=name, ratio={}) for name in "ab"]
    assert any("no baseline" in text for text in said(*rows).caveats)


def test_gpu_has_its_own_wish():
    rows = [make_teacher(gpu=GPU), make_row(gpu=GPU)]
    rows[1]["ratio"]["gpu_latency"] = ratio_of(0.5)
    found = picks(*rows)
    assert {wish for wish, _ in found} == {
        "Best quality",
        "Fastest on the CPU",
        "Fastest on the GPU",
        "Smallest",
    }
    assert speed(rows[1], "gpu") == "2.0 times faster on the GPU (1.9–2.1)"


def test_errors_are_better_when_lower():
    low = {"quality__metric": "mse", "quality__higher_is_better": False}
    rows = [make_teacher(quality__value=0.2, **low), make_row(model="a", quality__value=0.1, **low)]
    rows[1]["ratio"].pop("quality")
    assert names(picks(*rows)["Best quality", None]) == ("a", set())


def test_sampling_error_of_the_accuracy_by_hand():
    # 1.96 · sqrt(0.88 · 0.12 / 872) = 0.0216
    assert any("± 2.2 points" in text for text in said(*ROWS).caveats)


def test_failed_rows_are_counted():
    assert "1 of 3 rows could not be measured; see below." in said(*ROWS[:2], make_failed()).caveats


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (ratio_of(0.5, 0.45, 0.55), "2.0 times faster on the CPU (1.8–2.2)"),
        (ratio_of(2.0, 1.9, 2.1), "2.0 times slower on the CPU (1.9–2.1)"),
        (ratio_of(1.0, 0.95, 1.05), "no measurable difference in speed on the CPU (0.95–1.05)"),
    ],
)
def test_speed_in_words(ratio, words):
    assert speed(make_row(ratio__cpu_latency=ratio), "cpu") == words


@pytest.mark.parametrize(
    ("ratio", "words"), [(0.5, "2.0 times smaller"), (1.001, "the same size"), (1.5, "1.5 times larger")]
)
def test_size_in_words(ratio, words):
    assert size(make_row(ratio__size=ratio)) == words
