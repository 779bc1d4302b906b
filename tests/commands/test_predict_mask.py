"""`predict --mask`: what is outside of the mask stays to the bit, whatever the file is."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclestyle.errors import ImageError
from cyclestyle.images import Frame, ImageFile, Source, feathered, find_mask, format_named, read_mask, write_frames

SIZE = (24, 20)  # width and height
INSIDE = np.s_[4:16, 6:18]


def noise(*shape, highest=256):
    return np.random.default_rng(0).integers(0, highest, shape, dtype=np.uint16)


def swapped_primaries():
    """A profile whose red is green, through which colours do not come back to the bit."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


@pytest.fixture
def mask(tmp_path):
    """A rectangle."""
    pixels = np.zeros(SIZE[::-1], np.uint8)
    pixels[INSIDE] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


@pytest.fixture
def predict(cyclestyle, checkpoint, tmp_path):
    def call(source, *words):
        given = ["--ckpt_path", checkpoint, "--input", source, "--output", tmp_path / "out", "--no_progress"]
        return cyclestyle("predict", *given, *words)

    return call


def changed(before, after):
    """Which pixels differ, `(H, W)`."""
    before, after = (np.atleast_3d(np.asarray(image)) for image in (before, after))
    assert before.shape == after.shape
    return (before != after).any(2)


def save_plain(path):
    Image.fromarray(noise(*SIZE[::-1], 3).astype(np.uint8)).save(path)


def save_with_profile(path):
    Image.fromarray(noise(*SIZE[::-1], 3).astype(np.uint8)).save(path, icc_profile=swapped_primaries())


def save_with_alpha(path):
    pixels = noise(*SIZE[::-1], 4).astype(np.uint8)
    pixels[:3, :, 3] = 0  # colours that nobody sees
    Image.fromarray(pixels).save(path)


def save_animation(path):
    frames = [Image.fromarray(noise(*SIZE[::-1], 3).astype(np.uint8) // (1 + n)) for n in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


@pytest.mark.parametrize("save", [save_plain, save_with_profile, save_with_alpha, save_animation])
def test_outside_stays_to_the_bit(predict, mask, tmp_path, save):
    path = tmp_path / "a.png"
    save(path)
    assert predict(path, "--mask", mask)[0] == 0
    with Image.open(path) as before, Image.open(tmp_path / "out" / "a.png") as after:
        for frame in range(getattr(before, "n_frames", 1)):
            before.seek(frame)
            after.seek(frame)
            different = changed(before, after)
            assert different[INSIDE].mean() > 0.9
            different[INSIDE] = False
            assert not different.any()


@pytest.mark.parametrize("channels", [1, 3])
def test_outside_stays_to_the_bit_in_16_bits(predict, mask, tmp_path, channels):
    pixels = noise(*SIZE[::-1], channels, highest=65536)
    icc = swapped_primaries() if channels == 3 else b""
    write_frames([Frame(pixels, Source(depth=16, icc=icc))], tmp_path / "a.tif", format_named("tiff"))
    assert predict(tmp_path / "a.tif", "--mask", mask)[0] == 0
    both = []
    for folder in (tmp_path, tmp_path / "out"):
        file = ImageFile(folder / "a.tif")
        both.append(file.read(0, 3, own=True)[1].own)
        file.close()
    assert np.array_equal(both[0], pixels)
    different = changed(*(np.broadcast_to(one, (*SIZE[::-1], 3)) for one in both))  # grey comes back in colour
    assert different[INSIDE].mean() > 0.9
    different[INSIDE] = False
    assert not different.any()


@pytest.mark.parametrize("words", [["--work_size", 16], ["--strength", 0.5], ["--preserve_color"]])
def test_finishing_stays_inside(predict, mask, tmp_path, words):
    save_plain(tmp_path / "a.png")
    assert predict(tmp_path / "a.png", "--mask", mask, *words)[0] == 0
    different = changed(Image.open(tmp_path / "a.png"), Image.open(tmp_path / "out" / "a.png"))
    assert different[INSIDE].mean() > 0.5
    different[INSIDE] = False
    assert not different.any()


def test_frames_of_a_video_have_one_mask(predict, mask, tmp_path):
    av = pytest.importorskip("av")
    from cyclestyle.images import VideoFile

    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "bgr0"
        for number in range(3):
            levels = (noise(*SIZE[::-1], 3) // (1 + number)).astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(levels, format="rgb24")))
        output.mux(stream.encode(None))
    assert predict(tmp_path / "a.mkv", "--mask", mask, "--video_codec", "ffv1")[0] == 0
    files = [VideoFile(folder / "a.mkv") for folder in (tmp_path, tmp_path / "out")]
    for number in range(3):
        different = changed(*(file.read(number, 3, levels=True)[0].permute(1, 2, 0).numpy() for file in files))
        assert different[INSIDE].mean() > 0.9
        different[INSIDE] = False
        assert not different.any()


def test_a_folder_has_a_mask_for_each_image(predict, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    masks = {"left": np.s_[:, :8], "right": np.s_[:, 16:], "lost": None, "dark": np.s_[:0]}
    for name, part in masks.items():
        save_plain(tmp_path / "in" / f"{name}.png")
        if part is not None:
            pixels = np.full(SIZE[::-1], 1, np.uint8)  # labels of 0 and 1 are black
            pixels[part] = 255
            Image.fromarray(pixels).save(tmp_path / "masks" / f"{name}.webp", lossless=True)
    status, out, err = predict(tmp_path / "in", "--mask", tmp_path / "masks")
    assert status == 1
    assert "2 images written" in out
    assert f"contains no mask lost.png for {tmp_path / 'in' / 'lost.png'}" in err
    assert "whose brightest level is 1 of 255; make white what is to change" in err
    for name in ("left", "right"):
        different = changed(*(Image.open(tmp_path / folder / f"{name}.png") for folder in ("in", "out")))
        assert different[masks[name]].mean() > 0.9


def test_the_soft_border_lies_inside(predict, mask, tmp_path):
    soft = feathered(read_mask(mask, mask, SIZE[::-1]), 3).numpy()
    assert np.allclose(soft[10, 6:12], [0.25, 0.5, 0.75, 1, 1, 1])
    assert not soft[:4].any()
    Image.new("L", SIZE, 255).save(tmp_path / "all.png")
    assert (feathered(read_mask(tmp_path / "all.png", mask, SIZE[::-1]), 3) == 1).all()
    save_plain(tmp_path / "a.png")
    results = []
    for words in ([], ["--mask", mask, "--mask_feather", 3]):
        assert predict(tmp_path / "a.png", "--overwrite", *words)[0] == 0
        results.append(np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(float))
    before = np.asarray(Image.open(tmp_path / "a.png")).astype(float)
    assert np.abs(results[1] - (before + soft[..., None] * (results[0] - before))).max() <= 0.5


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--mask", "{folder}/none.png"], "none.png does not exist"),
        (["--mask", "{mask}", "{mask}"], "a CycleGAN has no styles in regions, and takes one mask, got 2"),
        (["--mask_feather", "2"], "mask_feather is for masks; name one with --mask"),
        (["--mask", "{mask}", "--mask_feather", "-1"], "mask_feather must be at least 0, got -1"),
    ],
)
def test_mistakes_get_one_line(predict, mask, tmp_path, words, text):
    save_plain(tmp_path / "a.png")
    status, _, err = predict(tmp_path / "a.png", *(word.format(mask=mask, folder=tmp_path) for word in words))
    assert status == 1
    assert text in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_mask_has_the_whole_name_of_its_image(mask, tmp_path):
    for name in ("img.1.png", "img.png"):
        Image.open(mask).save(tmp_path / name)
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos" / "img.jpg"
    assert find_mask(tmp_path, photo, tmp_path / "photos") == tmp_path / "img.png"
    (tmp_path / "img.png").unlink()
    with pytest.raises(ImageError, match=r"contains no mask img\.png"):
        find_mask(tmp_path, photo, tmp_path / "photos")


def test_masks_of_which_a_part_would_be_read_are_refused(mask, predict, tmp_path):
    save_plain(tmp_path / "photo.png")
    grey = Image.open(mask).convert("L")
    grey.save(tmp_path / "two.gif", save_all=True, append_images=[Image.new("L", SIZE)])
    Image.merge("LA", [Image.new("L", SIZE), grey]).save(tmp_path / "alpha.png")
    for name, message in (("two.gif", "has 2 images; save one of them"), ("alpha.png", "has an alpha channel")):
        status, _, error = predict(tmp_path / "photo.png", "--mask", tmp_path / name)
        assert status == 1
        assert message in error
    assert not list(tmp_path.glob("out/*.png"))
