"""The page in a real browser: what only running it can show."""

import json

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.support.wait import WebDriverWait

FIRST = "[data-table='0']"


def every(page, selector):
    return page.find_elements("css selector", selector)


def one(page, selector):
    return page.find_element("css selector", selector)


def drawn(page):
    """Wait until all plots are there, as they are drawn when the browser has laid the page out."""
    wanted = len(every(page, ".plot"))
    WebDriverWait(page, 60).until(lambda p: len(every(p, ".plot svg")) == wanted > 0)
    return page


def column(page, title, table=FIRST):
    """Return a column as it stands on the page, without hidden rows."""
    script = """
      const card = document.querySelector(arguments[0]);
      const heads = [...card.querySelectorAll('thead th')];
      const index = heads.findIndex((th) => th.innerText.trim().startsWith(arguments[1]));
      return [...card.querySelectorAll('tbody tr:not(.detail)')].filter((row) => !row.hidden)
        .map((row) => row.cells[index].dataset.v ?? null);
    """
    return page.execute_script(script, table, title)


def heading(page, title, table=FIRST):
    return next(e for e in every(page, f"{table} thead button") if e.text.startswith(title))


def background(page):
    return page.execute_script("return getComputedStyle(document.body).backgroundColor")


def brightness(colour):
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


@pytest.mark.parametrize("width", [1280, 375])
def test_no_errors_and_no_requests(opened, full, width):
    page = drawn(opened(width))
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert full in asked
    assert [url for url in asked if url != full and not url.startswith("data:")] == []


def test_nothing_of_a_name_is_run(opened):
    page = drawn(opened())
    every(page, f"{FIRST} .more")[-1].click()
    # An alert would make every further command fail.
    assert page.title == "Compression report"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 768, 1280])
def test_the_page_never_scrolls_sideways(opened, width, theme):
    page = drawn(opened(width, theme))
    page.execute_script("document.querySelectorAll('.more').forEach((button) => button.click())")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    # The table is wider than a phone: it scrolls in its box.
    box = page.execute_script(
        "const b = document.querySelector('.table-card .scroll'); return [b.scrollWidth, b.clientWidth]"
    )
    assert width > 400 or box[0] > box[1]


@pytest.mark.parametrize("width", [375, 1280])
def test_bars_of_neurons_are_as_long_as_what_was_kept(opened, width):
    page = drawn(opened(width))
    script = """
      return [...document.querySelectorAll('.map .track')].map((track) => {
        const box = track.getBoundingClientRect(), fill = track.firstChild.getBoundingClientRect();
        return [fill.width / box.width, box.height];
      });
    """
    bars = page.execute_script(script)
    assert [share for share, _ in bars] == pytest.approx([(n % 5) / 4 for n in range(12)], abs=0.02)
    assert all(height > 8 for _, height in bars)


def test_sorting_by_a_figure_and_back(opened):
    page = drawn(opened())
    heading(page, "CPU ms").click()
    values = column(page, "CPU ms")
    figures = [float(value) for value in values if value is not None]
    assert figures == sorted(figures) and len(set(figures)) > 5
    # What was not measured stays below in both directions.
    assert values[-1] is None
    assert heading(page, "CPU ms").find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    heading(page, "CPU ms").click()
    values = column(page, "CPU ms")
    assert [float(value) for value in values if value is not None] == figures[::-1]
    assert values[-1] is None


def test_quality_sorts_from_the_best_and_names_by_letter(opened):
    page = drawn(opened())
    heading(page, "accuracy").click()
    values = [float(value) for value in column(page, "accuracy")]
    assert values == sorted(values, reverse=True)
    heading(page, "model").click()
    names = column(page, "model")
    assert [n for n in names if n.startswith("model")] == sorted(n for n in names if n.startswith("model"))


def test_details_open_and_stay_with_their_row(opened):
    page = drawn(opened())
    button = every(page, f"{FIRST} .more")[3]
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    detail = one(page, f"#{button.get_attribute('aria-controls')}")
    assert detail.is_displayed() and "p99 9.00" in detail.text
    heading(page, "size").click()
    row = button.find_element("xpath", "ancestor::tr")
    assert page.execute_script("return arguments[0].nextElementSibling.id", row) == detail.get_attribute("id")
    button.click()
    assert not detail.is_displayed()


def test_filters_hold_for_table_and_plots(opened):
    page = drawn(opened())
    total = len(column(page, "model"))
    one(page, f"{FIRST} [data-filter=runtime] option[value=onnx-int8]").click()
    assert set(column(page, "runtime")) == {"onnx-int8"}
    count = len(column(page, "model"))
    assert 0 < count < total
    assert one(page, f"{FIRST} output").text == f"{count} rows"
    points = "[data-scatter='0:0'] .point"
    assert len(every(page, f"{points}:not(.dim)")) == count and every(page, f"{points}.dim")
    one(page, f"{FIRST} [data-filter=name]").send_keys("MODEL 003")
    assert len(column(page, "model")) == 1
    # The other set-up keeps its rows.
    assert len(column(page, "model", "[data-table='1']")) == 12


def test_only_the_front(opened):
    page = drawn(opened())
    marked = len(every(page, f"{FIRST} tr[data-front]"))
    one(page, f"{FIRST} [data-check=front]").click()
    assert len(column(page, "model")) == marked
    assert "broken" not in column(page, "model")


def test_means_stand_for_their_members(opened):
    page = drawn(opened())
    before = column(page, "model")
    assert {"pkd-s0", "pkd-s1", "pkd-s2"} <= set(before) and "pkd" not in before
    one(page, f"{FIRST} [data-check=means]").click()
    after = column(page, "model")
    assert "pkd" in after and not {"pkd-s0", "pkd-s1", "pkd-s2"} & set(after)
    assert len(after) == len(before) - 2


def tip(page):
    return one(page, "#tip")


def test_pointing_at_a_point_shows_its_figures(opened):
    page = drawn(opened())
    assert not tip(page).is_displayed()
    point = one(page, "[data-scatter='0:0'] .point[data-row=g0r3]")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(page).move_to_element(point).perform()
    assert tip(page).is_displayed()
    # The fourth row: the baseline's model in onnx-int8, 0.4 · 8 ms.
    assert "teacher in onnx-int8" in tip(page).text and "3.20" in tip(page).text
    assert "lit" in one(page, "#g0r3").get_attribute("class")
    ActionChains(page).move_to_element(one(page, "footer")).perform()
    assert not tip(page).is_displayed()


def test_points_can_be_walked_with_the_keyboard(opened):
    page = drawn(opened())
    stops = every(page, "[data-scatter='0:0'] [tabindex='0']")
    assert len(stops) == 1
    page.execute_script("arguments[0].focus()", stops[0])
    first = tip(page).text
    assert tip(page).is_displayed()
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert tip(page).is_displayed() and tip(page).text != first
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not tip(page).is_displayed()


def test_a_tap_shows_a_point_within_the_screen(opened):
    page = drawn(opened(375))
    point = one(page, "[data-scatter='0:0'] .point[data-row=g0r0]")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    at = page.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]",
        point,
    )
    touch = {"touchPoints": [{"x": at[0], "y": at[1]}]}
    page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", **touch})
    page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert tip(page).is_displayed() and "teacher" in tip(page).text
    left, right = page.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.left, r.right]", tip(page)
    )
    assert left >= 0 and right <= 375


def test_every_point_says_in_words_what_it_is(opened):
    page = drawn(opened())
    labels = [point.get_attribute("aria-label") for point in every(page, "[data-scatter='0:0'] .point")]
    assert all("accuracy" in label and "CPU ms" in label for label in labels)


def test_curves_of_the_chosen_run(opened):
    page = drawn(opened())
    titles = [title.text for title in every(page, "#curves figcaption")]
    assert titles == ["train/loss", "train/soft", "val/accuracy"]
    svg = one(page, "#curves svg")
    assert "0.05 at step 0" in svg.get_attribute("aria-label")
    assert len(every(page, "#curves figure:first-child .curve.other")) == 1
    every(page, "#run option")[1].click()
    drawn(page)
    assert "0.02 at step 0" in one(page, "#curves svg").get_attribute("aria-label")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", one(page, "#curves svg"))
    ActionChains(page).move_to_element(one(page, "#curves svg")).perform()
    assert tip(page).is_displayed() and "step" in tip(page).text


def test_theme_follows_the_system_until_it_is_chosen(opened):
    assert brightness(background(opened(theme="light"))) > 600
    page = opened(theme="dark")
    assert brightness(background(page)) < 150
    one(page, "#theme").click()
    assert brightness(background(page)) > 600
    page.refresh()
    assert brightness(background(page)) > 600


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(opened, theme):
    """Contrast of text to its background is at least 4.5, of marks in plots at least 3 (WCAG 2.2 AA)."""
    page = drawn(opened(theme=theme))
    script = """
      const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const rgb = (name) => {
        const probe = document.createElement('i');
        probe.style.color = `var(${name})`;
        document.body.append(probe);
        canvas.fillStyle = getComputedStyle(probe).color;
        probe.remove();
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
      };
      return Object.fromEntries(arguments[0].map((name) => [name, rgb(name)]));
    """
    marks = [f"--c{n}" for n in range(8)]
    words = ["--ink", "--muted", "--accent", "--good", "--bad"]
    colours = page.execute_script(script, ["--page", "--surface", "--raised", *marks, *words])
    for ground in ("--page", "--surface", "--raised"):
        for name in words:
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert [name for name in marks if contrast(colours[name], colours["--surface"]) < 3] == []


def contrast(one_colour, other):
    """Return the contrast of two colours as WCAG defines it."""

    def luminance(colour):
        parts = [part / 255 for part in colour]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(one_colour), luminance(other)))
    return (high + 0.05) / (low + 0.05)
