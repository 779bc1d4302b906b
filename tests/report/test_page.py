import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser

import pytest
from browser import SWITCHES, Browser, needs_chromium
from PIL import Image

from cyclestyle.commands.compare import COSTS
from cyclestyle.metrics import METRICS
from cyclestyle.report import ImageSource, Page

COLOURS = ("red", "lime", "white")


class Tags(HTMLParser):
    """Collects tags and text, and checks that tags are closed in the reverse of the order in which they opened."""

    VOID = ("meta", "link", "img", "input")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.text.append(text.strip())

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag


@pytest.fixture
def page():
    page = Page("A & <b>")
    page.heading("Figures")
    page.facts({"state": "running", "updated": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)})
    page.items(["one", "two"])
    page.items([])
    page.details("config.yaml", "model:\n  lr: 1\n")
    page.strips(["input", "<result>"], [("strip", Image.new("RGB", (8, 4)))])
    page.strips(["nothing"], [])
    page.table(["", "KID"], [["raw", "0.1"], ["<script>", "0.2"]])
    page.curves("Losses", {"one": [(0, 1.0), (10, 3.0), (20, 2.0)], "point": [(0, 2.0)], "none": []})
    page.curves("PSNR, dB", {"$x$ & <y>": [(0, 20.0), (20, 25.0)]})
    page.images([("left", Image.new("RGB", (4, 4), "red")), ("right", Image.new("L", (4, 4)))])
    page.flip_through([(f"step {n}", Image.new("RGB", (4, 4))) for n in range(3)])
    page.before_after(("photo", Image.new("RGB", (4, 4))), [("<one>", Image.new("RGB", (2, 2)))])
    return page


def parse(page):
    tags = Tags()
    tags.feed(page.html())
    assert not tags.open
    return tags


def test_a_page_is_valid_html_with_every_image(page):
    images = [attributes for tag, attributes in parse(page).seen if tag == "img"]
    assert [image["alt"] for image in images] == [
        "strip: input, <result>",
        "left",
        "right",
        "step 0",
        "step 1",
        "step 2",
        "photo",
        "photo, <one>",
    ]


def test_a_page_needs_no_network(page):
    html = page.html()
    assert "http" not in html
    assert not re.findall(r"""(?:src|href|action|data)\s*=\s*["']?(?!["']?(?:data:|\#))|@import|url\((?!\#)""", html)


def test_text_is_escaped():
    hostile = "<script>\"'&amp;"
    page = Page(hostile)
    page.heading(hostile)
    page.text(hostile)
    page.facts({hostile: hostile})
    page.items([hostile])
    page.details(hostile, hostile)
    page.table([hostile, hostile], [[hostile, hostile]], sortable=True)
    page.curves(hostile, {hostile: [(0, 1.0)]}, x_label=hostile)
    image = Image.new("RGB", (4, 4))
    page.images([(hostile, image)])
    page.flip_through([(hostile, image)])
    page.strips([hostile], [(hostile, image)])
    page.before_after((hostile, image), [(hostile, image)])
    tags = parse(page)
    assert [tag for tag, _ in tags.seen].count("script") == 1  # the page's own
    assert tags.text.count(hostile) == 23
    assert [attributes["alt"] for tag, attributes in tags.seen if tag == "img"] == [
        hostile,
        hostile,
        f"{hostile}: {hostile}",
        hostile,
        f"{hostile}, {hostile}",
    ]


def test_diagrams_have_legends_axis_labels_and_unique_ids(page):
    tags = parse(page)
    assert [tag for tag, _ in tags.seen].count("svg") == 2
    for text in ("one", "point", "$x$ & <y>"):  # legends
        assert text in tags.text
    assert "none" not in tags.text
    assert sum(re.fullmatch(r"[\d.]+", text) is not None for text in tags.text) > 12  # ticks
    assert tags.text.count("step") == 2
    for title in ("Losses", "PSNR, dB"):
        assert tags.text.count(title) == 2  # the label of the vertical axis, the caption
    ids = [attributes["id"] for _, attributes in tags.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    uses = [attributes["xlink:href"] for tag, attributes in tags.seen if tag == "use"]
    assert uses
    assert {use.removeprefix("#") for use in uses} <= set(ids)
    clips = set(re.findall(r"url\(#([^)]+)\)", page.html()))
    assert len(clips) == 2
    assert clips <= set(ids)


def test_times_are_in_utc_and_readable_without_a_script(page):
    page.facts({"later": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))})
    times = [attributes["datetime"] for tag, attributes in parse(page).seen if tag == "time"]
    assert times == ["2026-01-02T03:04:05+00:00", "2026-01-02T01:04:05+00:00"]
    assert "2026-01-02 01:04:05 UTC" in page.html()


def test_an_image_can_be_linked():
    page = Page("Linked")
    page.flip_through([("step 1", ImageSource("grids/step.png", 6, 4))])
    (image,) = [attributes for tag, attributes in parse(page).seen if tag == "img"]
    assert image == {"src": "grids/step.png", "alt": "step 1", "width": "6", "height": "4", "loading": "lazy"}


def test_only_a_page_that_changes_reloads_itself():
    assert "refresh" not in Page("Fixed").html()
    html = Page("Changing", reload_seconds=30).html()
    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in html
    assert 'data-reload-seconds="30"' in html


def test_axis_labels_can_be_chosen():
    page = Page("Labels")
    page.curves("Speed", {"one": [(0, 1.0)]}, x_label="epoch", y_label="images per second")
    text = parse(page).text
    assert "epoch" in text
    assert "images per second" in text
    assert text.count("Speed") == 1


def test_a_page_is_deterministic(page):
    assert page.html() == page.html()
    curves = {"one": [(0, 1.0), (1, 2.0)]}
    first, second = Page("Curves"), Page("Curves")
    for page in (first, second):
        page.curves("Losses", curves)
        page.curves("Nothing", {"none": []})
    assert first.html() == second.html()
    assert "Nothing" not in first.html()


def test_matplotlib_is_imported_only_for_curves():
    script = """
import sys
from cyclestyle.report import Page
page = Page("Lazy")
page.curves("none", {"none": []})
page.html()
assert "matplotlib" not in sys.modules
page.curves("one", {"one": [(0, 1.0)]})
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_photo_is_in_the_page_once():
    page = Page("Once")
    page.before_after(("nothing to compare", Image.new("RGB", (4, 4))), [])
    assert "nothing" not in page.html()
    page.before_after(("photo", Image.new("RGB", (8, 4), "blue")), [(n, Image.new("RGB", (4, 4), n)) for n in COLOURS])
    images = re.findall(r'src="(data:[^"]+)" alt="([^"]+)"', page.html())
    assert [alt for _, alt in images] == ["photo", *(f"photo, {name}" for name in COLOURS)]
    assert len({data for data, _ in images}) == 4


def test_rows_are_named_by_their_first_cell(page):
    page.table(["", "KID"], [["1 ± 1", "1 ± 1"]])
    assert '<th scope="row">1 ± 1</th><td>1\u00a0±\u00a01</td>' in page.html()  # no line break inside a figure
    assert '<tr><th scope="row">raw</th><td>0.1</td></tr>' in page.html()
    assert "<button" not in page.html()


@needs_chromium
def test_a_browser_shows_one_image_of_the_flip_through(page, tmp_path):
    page.write(tmp_path / "page.html")
    words = ["chromium", *SWITCHES, f"--user-data-dir={tmp_path / 'profile'}"]
    result = subprocess.run([*words, "--dump-dom", f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True)
    flip = result.stdout.split('class="flip"')[1].split("</div>")[0]
    assert flip.count("<figure hidden") == 2
    assert "<figure><img" in flip
    assert "step 2" in flip.split("<figure><img")[1]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def written(page, folder):
    page.write(folder / "page.html")
    return folder / "page.html"


@pytest.fixture
def comparison():
    page = Page("Methods")
    page.text("Checkpoint /" + "a_folder_with_a_long_name/" * 6)
    header = ["", "KID", "time", "memory", "note", "figures that make", "the table wider", "than a telephone"]
    rows = [
        ["one", "–", "12 s", "1,234 MB", "beta"],
        ["two", "1.3 ± 0.2", "9 s", "984 MB", "Alpha"],
        ["three", "0.52", "", "2,310 MB", "gamma 10"],
        ["four", "-0.7e-1", "100 s", "nan", "gamma 9"],
        ["five", "inf", "9.5 s", "1,000,000 MB", "—"],
    ]
    page.table(header, [[*row, "0", "0", "0"] for row in rows], sortable=True)
    results = [(f"{name}_{'x' * 60}", Image.new("RGB", (90, 30), name)) for name in COLOURS]
    for name in ("first.jpg", "second.jpg"):
        page.before_after((name, Image.new("RGB", (600, 400), "blue")), results)
    return page


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_image_shows_and_the_page_does_not_scroll_sideways(browser, comparison, tmp_path, width, scheme):
    comparison.curves("Losses", {f"{'x' * 40}_{n}": [(0, n), (1, n)] for n in range(4)})
    browser.open(written(comparison, tmp_path), width, scheme)
    assert browser.run("[...document.images].map(i => i.complete && i.naturalWidth)") == [600, 90] * 6
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert (browser.screenshot().convert("L").getpixel((2, 2)) > 128) == (scheme == "light")
    assert browser.errors() == []


@needs_chromium
def test_all_figures_fit_at_1280_pixels_and_curves_with_their_legends_at_500(browser, tmp_path):
    page = Page("Methods")
    measured = [metric for metric in METRICS.values() if not {"truth", "reconstruction"} & {*metric.images}]
    headings = [*(metric.heading for metric in measured), *(heading for heading, _ in COSTS.values())]
    names = ("a name of three words", "raw A → B")
    page.table(["", *headings], [[name, "19.61 ± 1.597", *["0.1234"] * (len(headings) - 1)] for name in names])
    page.curves("Losses", {f"train/loss_of_part_{n}": [(0, n), (1, n)] for n in range(8)})
    overflowing = "[...document.querySelectorAll('{}')].filter(one => one.scrollWidth > one.clientWidth).length"
    browser.open(written(page, tmp_path), 1280)
    assert browser.run(overflowing.format(".wide")) == 0
    browser.open(written(page, tmp_path), 500)
    assert browser.run(overflowing.format("figure, figure .wide, .keys")) == 0
    assert browser.run("document.querySelectorAll('.keys li').length") == 8


@needs_chromium
def test_the_photo_covers_the_result_left_of_the_edge(browser, comparison, tmp_path):
    browser.open(written(comparison, tmp_path))
    screenshot = browser.screenshot()
    for n, colour in enumerate([(255, 0, 0), (0, 255, 0), (255, 255, 255)] * 2):
        left, top, width, height = box(browser, n)
        assert width / height == pytest.approx(1.5, abs=0.01)  # the photo's, though the result's is 3
        for across, expected in ((0.03, (0, 0, 255)), (0.4, (0, 0, 255)), (0.6, colour), (0.97, colour)):
            for down in (0.03, 0.97):
                levels = screenshot.getpixel((int(left + across * width), int(top + down * height)))
                assert levels == pytest.approx(expected, abs=4)  # JPEG


def box(browser, n):
    """Left, top, width and height of the nth box, relative to the upper left corner of the page."""
    script = "(b => [b.left + scrollX, b.top + scrollY, b.width, b.height])"
    return browser.run(f"{script}(document.querySelectorAll('.box')[{n}].getBoundingClientRect())")


def edges(browser):
    """Position of the edge in each result, in percent of its width; it must equal the value of the slider."""
    clips = "getComputedStyle(box.querySelector('img + img')).clipPath"
    both = f"[...document.querySelectorAll('.box')].map(box => [{clips}, box.nextElementSibling.value])"
    pairs = [(float(re.search(r"([\d.]+)(%|px)\)$", clip)[1]), float(value)) for clip, value in browser.run(both)]
    assert all(clip == value for clip, value in pairs)
    return [value for _, value in pairs]


@needs_chromium
def test_the_edge_follows_keys_the_mouse_and_touches(browser, comparison, tmp_path):
    browser.open(written(comparison, tmp_path), width=390)
    assert edges(browser) == [50] * 6
    labels = browser.run("[...document.querySelectorAll('input')].map(input => input.ariaLabel)")
    assert len(set(labels)) == 6
    assert labels[1] == f"edge between first.jpg and lime_{'x' * 60}"
    browser.run("document.querySelectorAll('input')[1].focus()")
    browser.press("ArrowRight", 39)
    assert edges(browser) == [50, 51, 50, 50, 50, 50]

    browser.run("document.querySelectorAll('.box')[3].scrollIntoView({ block: 'center' })")
    left, top, width, height = box(browser, 3)
    x, y = left + width * 0.2, top + height / 2 - browser.run("scrollY")
    browser.mouse("Moved", x, y)
    assert edges(browser)[3] == 50  # no button is pressed
    browser.mouse("Pressed", x, y)
    browser.mouse("Moved", x + width * 0.1, y)
    assert edges(browser)[3] == 30
    browser.mouse("Moved", x - width, y)  # the drag continues outside the image
    browser.mouse("Released", x - width, y)
    assert edges(browser)[3] == 0
    browser.mouse("Moved", x, y)
    assert edges(browser)[3] == 0

    browser.touch("Start", (x, y))
    browser.touch("End")
    assert edges(browser)[3] == 20
    browser.touch("Start", (x, y))
    for n in range(1, 6):
        browser.touch("Move", (x + width * 0.1 * n, y))
    browser.touch("End")
    assert edges(browser)[3] == 70
    assert browser.errors() == []


@needs_chromium
def test_a_vertical_touch_scrolls_the_page_and_not_the_edge(browser, comparison, tmp_path):
    browser.open(written(comparison, tmp_path), width=390)
    browser.run("document.querySelector('.box').scrollIntoView({ block: 'center' })")
    before = browser.run("scrollY")
    browser.touch("Start", (60, 400))
    for n in range(1, 9):
        browser.touch("Move", (60 + n, 400 - 20 * n))
    browser.touch("End")
    assert browser.run("new Promise(done => requestAnimationFrame(() => done(scrollY)))") > before
    assert edges(browser) == [50] * 6


@needs_chromium
def test_a_column_sorts_in_both_orders_with_missing_values_last(browser, comparison, tmp_path):
    browser.open(written(comparison, tmp_path))
    names = "[...document.querySelectorAll('tbody tr')].map(row => row.cells[0].textContent).join(' ')"
    sorts = "[...document.querySelectorAll('thead th')].map(head => head.getAttribute('aria-sort')).slice(0, 5)"
    assert browser.run(names) == "one two three four five"
    assert browser.run(sorts) == [None] * 5
    for column, ascending, descending in (
        (1, "four three two five one", "five two three four one"),  # inf counts as text, so it comes after the numbers
        (2, "two five one four three", "four one five two three"),
        (3, "two one three five four", "five three one two four"),
        (4, "two one four three five", "three four one two five"),
        (0, "five four one three two", "two three one four five"),
    ):
        browser.run(f"document.querySelectorAll('th button')[{column}].focus()")
        for order, word in ((ascending, "ascending"), (descending, "descending"), (ascending, "ascending")):
            browser.press("Enter", 13, text="\r")
            assert browser.run(names) == order
            assert browser.run(sorts) == [word if n == column else None for n in range(5)]
    assert browser.errors() == []
