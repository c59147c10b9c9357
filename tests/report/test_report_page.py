"""The page: one file, every part that has data, nothing from outside, nothing unescaped."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lighten.report import html
from lighten.report.results import Choice, Refused, Totals

HOSTILE = "conv</script><script>alert('x')</script><img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Headings, text outside scripts and styles, and all elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings, self.words, self.elements, self.open = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture(scope="module")
def full(make_results) -> Reader:
    return Reader(html.page(make_results()))


def test_every_part_is_there_and_closed(full):
    assert full.headings == [
        "tinynet → lightened",
        "Before and after",
        "How it was measured",
        "Cost per layer",
        "What was chosen",
        "What was refused",
        "Predictions against measurements",
        "Recovery",
        "Exported file",
        "Time the job took",
        "Not counted",
        "Notes",
    ]
    assert full.open == []


def test_the_figures_of_the_job(full):
    for words in (
        "4× fewer MACs, 2.50× faster, 0.40 points of accuracy lost.",
        "MACs 4 M 1 M 0.250× 4× fewer",
        "Latency 2 ms 0.800 ms 0.400× 2.50× faster",
        "…before any training 91.73 % 81.00 % 10.73 points lost",
        "met latency<=0.5x : 0.400×",
        "Threads 3",
        "Abacus 3000",
        "lighten 9.8.7",
        "block1.conv depthwise separable, rank 2, parallel form 4 k → 1 k 0.250×",
        "3 of 4 layers are rewritten",
        "spatially separable : no window 2 layers fc , head",
        "held-out loss from 0.410 to 0.290",
        "2 epochs of distillation",
        "agrees with PyTorch on 64 samples: largest relative error 2.00e-06",
        "recover 2 min",
        "GridSample 2",
        "the cache was cold",
    ):
        assert words in full.text, words


def test_nothing_is_loaded_from_outside(make_results):
    page = html.page(make_results())
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(https?:)?//""", re.sub(r"<script.*?</script>", "", page, flags=re.S)
    )
    reader = Reader(page)
    assert not [name for name, _ in reader.elements if name in ("link", "iframe", "object", "embed", "base")]
    assert all("src" not in attributes for _, attributes in reader.elements)
    policy = next(a["content"] for n, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_plotly_is_there_once(make_results):
    page = html.page(make_results())
    assert page.count("plotly.js v") == 1
    assert page.count("Plotly.newPlot(") == 5


def test_parts_without_data_are_left_out_or_say_why(make_results):
    bare = Totals(90_000, 4_000_000, 500_000, 360_000)
    choices = tuple(replace(c, latency_ms=None, latency_ms_before=None) for c in make_results().choices)
    empty = {"refused": (), "divergence": (), "recovery": (), "repair": None, "parity": None, "solves": ()}
    reader = Reader(
        html.page(
            make_results(
                **empty, before=bare, after=bare, choices=choices, seconds={}, uncounted={}, notes=(), budget=()
            )
        )
    )
    assert reader.headings[1:] == [
        "Before and after",
        "How it was measured",
        "Cost per layer",
        "What was chosen",
        "Recovery",
    ]
    assert "No training ran" in reader.text
    assert "Latency not measured not measured" in reader.text
    assert "MACs unchanged, latency not measured, accuracy not measured." in reader.text
    assert "The layers were not timed." in reader.text
    assert "Time (ms)" not in reader.text


def test_a_setting_is_not_said_twice(make_results):
    reader = Reader(html.page(make_results(machine={"threads": 3, "numpy_version": "2.4"})))
    assert reader.text.lower().count("threads 3") == 1
    assert "numpy version 2.4" in reader.text


def test_a_plan_without_sites(make_results):
    reader = Reader(html.page(make_results(choices=())))
    assert "The plan has no sites." in reader.text
    assert "Cost per layer" not in reader.headings


def test_a_file_that_does_not_agree_is_called_so(make_results):
    parity = replace(make_results().parity, agrees=False)
    assert "It DOES NOT AGREE with PyTorch" in Reader(html.page(make_results(parity=parity))).text


def test_hostile_names_stay_text(make_results):
    choice = Choice(HOSTILE, "spatial", {"rank": HOSTILE}, 0.1, 1, 2, 1, 2, 0.1, 0.2)
    texts = {"model": HOSTILE, "notes": (HOSTILE,), "machine": {HOSTILE: HOSTILE}, "seconds": {HOSTILE: 1.0}}
    refused = (Refused(HOSTILE, HOSTILE, HOSTILE),)
    page = html.page(make_results(choices=(choice,), refused=refused, uncounted={HOSTILE: 1}, **texts))
    plain = Reader(html.page(make_results(choices=(make_results().choices[2],))))
    hostile = Reader(page)
    assert "<script>alert" not in page
    assert hostile.count("img") == 0
    assert hostile.count("script") == plain.count("script")
    assert hostile.text.count("alert('x')") >= 8


def test_57_layers(make_results):
    reader = Reader(html.page(make_results(57)))
    assert sum(f"block{index}.conv " in reader.text for index in range(57)) == 57
    assert "42 of 57 layers are rewritten" in reader.text


def test_write_report_replaces_the_page_whole(make_results, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    html.write_report(make_results(), path)
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert path.read_text("utf-8").endswith("</html>\n")
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]
