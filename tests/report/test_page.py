import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from cyclestyle.report import Page


class Tags(HTMLParser):
    """Checks that tags close in the order in which they opened."""

    VOID = ("meta", "link", "img", "input", "rect", "polyline", "!doctype")

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag


@pytest.fixture
def page():
    page = Page("A & <b>")
    page.heading("Figures")
    page.table(["", "KID"], [["raw", "0.1"], ["<script>", "0.2"]])
    page.curves("Losses", {"one": [(0, 1.0), (10, 3.0), (20, 2.0)], "flat": [(0, 2.0)], "none": []})
    page.pictures([("left", Image.new("RGB", (4, 4), "red")), ("right", Image.new("L", (4, 4)))])
    page.flip_through([(f"step {n}", Image.new("RGB", (4, 4))) for n in range(3)])
    return page


def test_a_page_is_one_file_of_sound_html(page):
    tags = Tags()
    tags.feed(page.html())
    assert not tags.open
    assert "<b>" not in page.html()
    assert "&lt;script&gt;" in page.html()
    assert not re.findall(r'(?:src|href)="(?!data:)', page.html())
    images = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert [image["alt"] for image in images] == ["left", "right", "step 0", "step 1", "step 2"]
    lines = [attributes["points"] for tag, attributes in tags.seen if tag == "polyline"]
    assert lines == ["44.0,176.0 320.0,44.0 596.0,110.0", "44.0,110.0"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_one_picture_of_the_flip_through(page, tmp_path):
    page.write(tmp_path / "page.html")
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    words += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    shown = subprocess.run([*words, "--dump-dom", f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True)
    flip = shown.stdout.split('class="flip"')[1].split("</div>")[0]
    assert flip.count("<figure hidden") == 2
    assert "<figure><img" in flip
    assert "step 2" in flip.split("<figure><img")[1]
