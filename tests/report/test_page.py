import html.parser
import re

import pytest

from lit_compress.report.groups import group_rows
from lit_compress.report.page import page
from tests.report.pages import NASTY, full_page, many_rows, page_data
from tests.report.rows import make_failed, make_row, make_teacher, ratio_of


class Outline(html.parser.HTMLParser):
    """Collect elements, attributes and text as a browser does, and complain of what does not close.

    Attributes:
        tags: Name and attributes of every element.
        text: All text outside scripts and styles.
    """

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "wbr"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return full_page(tmp_path_factory.mktemp("page")).read_text(encoding="utf-8")


def headings(outline_text):
    return re.findall(r"<h2>(.*?)</h2>", outline_text)


def test_nothing_is_fetched(text):
    tags = Outline(text).tags
    assert [attrs["src"] for _, attrs in tags if "src" in attrs] == []
    links = [attrs["href"] for _, attrs in tags if "href" in attrs]
    assert links and all(link == "data:," or link.startswith("#group") for link in links)
    assert any(attrs.get("content", "").startswith("default-src 'none'") for _, attrs in tags)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML", text)


def test_names_stay_text(text):
    outline = Outline(text)
    assert NASTY in outline.text
    assert "alert" not in "".join(name for name, _ in outline.tags)
    # The data of the page and its program, and no third one.
    assert [attrs.get("type") for name, attrs in outline.tags if name == "script"] == [
        "application/json",
        None,
    ]
    data = page_data(text)
    assert NASTY in data["curves"]
    assert any(row["name"] == NASTY for row in data["groups"][0]["rows"].values())


def test_sections_of_a_full_page(text):
    shown = headings(text)
    for title in (
        "What quality costs",
        "Results",
        "What is left inside",
        "Failures and warnings",
        "Training curves",
    ):
        assert title in shown
    assert shown.count("Results") == shown.count("How it was measured") == 2


def test_what_has_nothing_to_show_is_left_out():
    assert headings(page(group_rows([make_teacher()]))) == ["Results", "How it was measured"]
    assert "Failures and warnings" in headings(page(group_rows([make_failed()])))


def test_set_ups_stand_apart_and_say_in_what_they_differ(text):
    outline = Outline(text)
    assert "come from 2 set-ups that differ in cpu" in outline.text
    assert [attrs["id"] for name, attrs in outline.tags if attrs.get("class") == "group"] == [
        "group0",
        "group1",
    ]
    data = page_data(text)
    ids = [set(group["rows"]) for group in data["groups"]]
    for group, own in zip(data["groups"], ids, strict=True):
        assert {point[0] for plot in group["scatters"] for point in plot["points"]} <= own
    assert not ids[0] & ids[1]


def test_one_set_up_needs_no_note():
    assert "set-ups" not in page(group_rows([make_teacher(), make_row()]))


def test_points_are_the_rows_figures():
    text = page(group_rows([make_teacher(), make_row(ratio__cpu_latency=ratio_of(0.5, 0.45, 0.6))]))
    (group,) = page_data(text)["groups"]
    latency = group["scatters"][0]
    assert latency["points"] == [["g0r0", 8.0, 8.0, 8.0, 0.88], ["g0r1", 4.0, 3.6, 4.8, 0.86]]
    assert latency["front"] == [1, 0]
    assert ["× faster CPU", "2.00 (1.67–2.22, faster)"] in group["rows"]["g0r1"]["said"]


def test_legend_has_only_what_has_points():
    rows = [make_teacher(), make_row(), make_failed(runtime="torch-compile", method="unlucky")]
    (group,) = page_data(page(group_rows(rows)))["groups"]
    assert (group["runtimes"], group["methods"]) == (["torch-fp32"], ["soft targets"])


def test_columns_come_in_the_promised_order(text):
    table = text[text.index('class="results"') :]
    head = re.findall(r"<button[^>]*>(.*?)</button></th>", table[: table.index("</thead>")])
    order = ["model", "method", "runtime", "size MB", "CPU ms", "GPU ms", "RAM MB", "VRAM MB", "accuracy"]
    assert head[: len(order)] == order


def test_failures_warnings_cost_and_details_are_listed(text):
    outline = Outline(text)
    assert f"broken in torch-compile failed: {NASTY}" in outline.text
    assert "memory grew by 120 MB over 10 rounds" in outline.text
    # 28 models of 12.5 s each, four runtimes of the baseline among them.
    rows = (
        len([attrs for name, attrs in outline.tags if name == "tr" and attrs.get("id", "").startswith("g0")])
        // 2
    )
    assert f"{12.5 * rows / 60:.0f} min for {rows} rows" in outline.text
    assert "p50 4.00 · p90 6.00 · p99 9.00" in outline.text
    assert "9.00 ms · 1.82× (1.67–2.00), faster" in outline.text


def test_every_row_has_its_runtime_and_its_mean_is_offered(text):
    outline = Outline(text)
    rows = [attrs for name, attrs in outline.tags if name == "tr" and "data-runtime" in attrs]
    means = [attrs for attrs in rows if attrs.get("class") == "mean"]
    assert [attrs["data-name"] for attrs in means] == ["pkd"]
    assert len([attrs for attrs in rows if "data-member" in attrs]) == 3
    assert "mean of 3 seeds" in outline.text and "0.8100± 0.0100" in outline.text


def test_two_hundred_rows_stay_small():
    rows = many_rows(50)
    curve = [(step, 1 / (step + 1)) for step in range(120)]
    curves = {
        f"run {n}": dict.fromkeys(("train/loss", "train/soft", "val/accuracy"), curve) for n in range(50)
    }
    size = len(page(group_rows(rows), curves).encode())
    assert len(rows) == 204
    assert size < 1_500_000


def test_curves_of_the_recommended_run_come_first():
    rows = [make_teacher(), make_row(run="runs/pkd")]
    curves = {name: {"train/loss": [(1, 1.0)]} for name in ("alone", "pkd")}
    assert page_data(page(group_rows(rows), curves))["chosen"] == "pkd"
    assert page_data(page(group_rows(rows), {"alone": curves["alone"]}))["chosen"] == "alone"
