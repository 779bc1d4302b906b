from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclestyle.errors import DataError
from cyclestyle.images.folders import check_images, find_images, hold_out


def test_images_are_found_recursively_sorted_and_without_hidden_files(tmp_path, save_image):
    for name in ("b.png", "a/z.JPG", "a/b/c.webp", "a.tiff", "z.bmp", ".hidden.png", ".cache/x.png"):
        save_image(name)
    (tmp_path / "notes.txt").write_text("not an image")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.tiff", "a/b/c.webp", "a/z.JPG", "b.png", "z.bmp"]


def test_links_are_followed_once(tmp_path, save_image):
    save_image("real/x.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert len(find_images(tmp_path)) == 1
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert len(find_images(tmp_path / "linked")) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "contains no images"),
        (lambda path: path.write_text("x"), "is a file"),
    ],
)
def test_an_error_names_a_folder_without_images(tmp_path, make, message):
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=f"photos {message}"):
        find_images(tmp_path / "photos")


def test_truncated_files_are_found_only_by_decoding(tmp_path, save_image):
    good = save_image("good.jpg", size=(64, 64))
    cut = save_image("cut.bmp", size=(64, 64))
    cut.write_bytes(cut.read_bytes()[:-100])
    fake = tmp_path / "fake.png"
    fake.write_text("text")
    paths = [good, cut, fake]
    assert set(check_images(paths, decode=False).bad) == {fake}
    assert set(check_images(paths, decode=True).bad) == {cut, fake}


def test_what_training_loses_is_counted_and_named(tmp_path):
    ramp = np.linspace(-1, 2, 64, dtype=np.float32).reshape(8, 8)
    images = {
        "deep.png": Image.fromarray((ramp.clip(0, 1) * 65535).astype(np.uint16)),
        "unit.tif": Image.fromarray(ramp.clip(0, 1)),
        "range.tif": Image.fromarray(ramp),
        "nan.tif": Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)),
        "negative.tif": Image.fromarray(np.full((8, 8), -1, dtype=np.int32)),
        "plain.png": Image.new("RGB", (8, 8)),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
    images["plain.png"].save(tmp_path / "pages.tif", save_all=True, append_images=[images["plain.png"]] * 5)
    lines = check_images(sorted(tmp_path.iterdir()), decode=False).losses()
    assert lines == [
        "several images or pages, of which the first is used, in 1 of 7 files: pages.tif",
        "values outside of 0 to 1 (0 to 65535 for integers), which become black or white, in 3 of 7 files: "
        "nan.tif, negative.tif, range.tif",
    ]


def test_a_tenth_is_held_out_and_images_that_are_added_hardly_change_it():
    images = [Path("photos", f"{number}.png") for number in range(40)]
    kept, held = hold_out(images)
    assert len(held) == 4
    assert sorted(kept + held) == sorted(images)
    added = images + [Path("photos", f"new{number}.png") for number in range(2)]
    assert len(set(held) & set(hold_out(added)[1])) >= 3
    assert len(hold_out(images[:7])[1]) == 2
    with pytest.raises(DataError, match="photos has 3 images, too few to hold some out"):
        hold_out(images[:3])
