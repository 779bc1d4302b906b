"""The table of `docs/formats.md` says what the code does, which `test_formats.py` tests row by row."""

import re
from pathlib import Path

from cyclestyle.images import FORMATS

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
PARTS = ("exif", "icc", "dpi", "xmp", "alpha", "16 bit", "numbers")
FRAMES = {"time": "animation", "pages": "pages", None: "lost"}


def compression(one):
    if one.quality is None:
        return "lossless"
    return "kept" if one.name == "jpeg" else f"quality {one.quality}"


def test_the_table_is_that_of_the_code():
    section = PAGE.read_text().split("## What a file keeps")[1].split("##")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", section, re.M)]
    assert rows[2:] == [
        [
            one.name,
            *("kept" if part in one.keeps else "lost" for part in PARTS),
            FRAMES[one.frames],
            compression(one),
        ]
        for one in FORMATS
    ]
