import pytest

from cyclestyle.data.folders import check_images, find_images
from cyclestyle.errors import DataError


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
    assert set(check_images(paths, decode=False)) == {fake}
    assert set(check_images(paths, decode=True)) == {cut, fake}
