import json
import re

import pytest

from lit_compress.report.markup import Html, counted, join, script_data, tag


def test_text_is_escaped_and_html_is_not():
    inner = tag("b", "a < b & c")
    assert tag("p", inner, "<i>") == "<p><b>a &lt; b &amp; c</b>&lt;i&gt;</p>"
    assert join("<", Html("<br>")) == "&lt;<br>"


def test_attributes_are_escaped():
    assert tag("a", title='"><script>') == '<a title="&quot;&gt;&lt;script&gt;"></a>'
    assert (
        tag("td", class_="x", data_id=3, hidden=True, id=None, open=False)
        == '<td class="x" data-id="3" hidden></td>'
    )
    assert tag("meta", name="a") == '<meta name="a">'


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--", "]]>", "a\u2028b", '"'])
def test_data_cannot_end_its_element_and_comes_back_as_it_was(text):
    written = script_data("data", {"name": text})
    inside = re.fullmatch(r'<script type="application/json" id="data">(.*)</script>', written, re.DOTALL)[1]
    assert "<" not in inside
    assert json.loads(inside) == {"name": text}


def test_counted():
    assert [counted(n, "row") for n in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
