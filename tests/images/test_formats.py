"""What goes from a file into its translation, format by format; the translation is the identity here."""

import io
import struct
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin
from PIL.JpegImagePlugin import get_sampling

from cyclestyle.errors import CycleStyleError, ImageError
from cyclestyle.images import (
    EXTENSIONS,
    FORMATS,
    WRITTEN,
    ImageFile,
    finish,
    format_named,
    format_of,
    read_header,
    target_format,
    write_frames,
)

SIZE = (40, 24)
ORIENTATION = ExifTags.Base.Orientation
PILLOW = [one for one in WRITTEN.values() if one.pillow in Image.SAVE]  # the others are in test_numbers.py
WITH = {part: [one for one in PILLOW if part in one.keeps] for part in ("exif", "icc", "dpi", "alpha", "xmp")}
ANIMATED = [one for one in WRITTEN.values() if one.frames == "time"]
LOSSLESS = [one for one in PILLOW if one.quality is None and one.name != "gif"]


def smooth(size=SIZE, shift=0):
    """A colour gradient, which lossy formats keep within a few levels."""
    x, y = np.meshgrid(np.linspace(0, 200, size[0]), np.linspace(0, 200, size[1]))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90 + shift)], axis=-1).astype(np.uint8))


def translate(path, target=None, *, channels=3, quality=None, result=None):
    """Read every image of a file, and write them to another one unchanged."""
    target = path.parent / "out" / path.name if target is None else target
    written_as = result or format_of(target)
    with closing(ImageFile(path)) as file:
        parts = [file.read(number, channels) for number in range(read_header(path).frames)]
    frames = [finish(tensor, source, written_as) for tensor, source in parts]
    write_frames(frames, target, written_as, quality=quality)
    return target


def by_name(formats):
    return pytest.mark.parametrize("one", formats, ids=lambda one: one.name)


def close(first, second, within):
    first, second = (np.asarray(image.convert("RGB")).astype(int) for image in (first, second))
    return abs(first - second).mean() <= within


@by_name(PILLOW)
def test_every_format_comes_back_as_itself_with_its_colours(tmp_path, one):
    path = tmp_path / f"a{one.endings[0]}"
    smooth().save(path, one.pillow)
    with Image.open(translate(path)) as after, Image.open(path) as before:
        assert after.format == before.format == one.pillow
        assert close(after, before, 2.5)
        if one in LOSSLESS:
            assert after.tobytes() == before.tobytes()


@by_name(WITH["exif"])
def test_exif_is_kept_and_upright(tmp_path, one):
    exif = Image.Exif()
    exif[ORIENTATION] = 1 if one.name == "heic" else 6  # HEIC files have a place of their own for it
    exif[ExifTags.Base.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.5
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    path = tmp_path / f"a{one.endings[0]}"
    smooth().save(path, exif=exif.tobytes())
    upright = smooth() if one.name == "heic" else smooth().transpose(Image.Transpose.ROTATE_270)
    assert read_header(path).size == upright.size
    with Image.open(translate(path)) as after:
        assert after.size == upright.size
        assert close(after, upright, 4 if one.name == "heic" else 2.5)
        kept = after.getexif()
        assert kept.get(ORIENTATION, 1) == 1
        assert kept[ExifTags.Base.Make] == "Maker"
        assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == 2.5
        assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def wide_profile():
    """A profile of RGB whose red and green primaries are exchanged, so that ignoring it cannot go unnoticed."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


@by_name(WITH["icc"])
def test_colours_are_translated_in_those_of_the_profile(tmp_path, one):
    profile = wide_profile()
    path = tmp_path / f"a{one.endings[0]}"
    image = Image.new("RGB", SIZE, (200, 50, 90))
    image.save(path, icc_profile=profile, **({"quality": 100} if one.quality else {}))
    with closing(ImageFile(path)) as file:
        seen = np.rint((file.read(0, 3)[0].numpy()[:, 5, 5] + 1) * 127.5)
    assert abs(seen - (50, 200, 90)).max() <= 4
    with Image.open(translate(path)) as after:
        assert after.info["icc_profile"] == profile
        assert close(after, image, 3)


def test_colours_become_those_of_srgb_where_a_format_has_no_profile(tmp_path):
    Image.new("RGB", SIZE, (200, 50, 90)).save(tmp_path / "a.png", icc_profile=wide_profile())
    with Image.open(translate(tmp_path / "a.png", tmp_path / "b.bmp")) as after:
        assert after.getpixel((5, 5)) == pytest.approx((50, 200, 90), abs=2)


def test_the_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    smooth().save(tmp_path / "a.png", icc_profile=profile)
    with Image.open(translate(tmp_path / "a.png")) as after:
        assert after.info["icc_profile"] == profile
        assert after.tobytes() == smooth().tobytes()


@pytest.mark.parametrize("icc", [b"broken", b"\0" * 200])
def test_a_damaged_profile_is_handed_on_or_dropped(tmp_path, icc):
    smooth().save(tmp_path / "a.png", icc_profile=icc)
    with Image.open(translate(tmp_path / "a.png")) as after:
        assert after.tobytes() == smooth().tobytes()


@by_name(WITH["dpi"])
def test_the_resolution_is_kept(tmp_path, one):
    path = tmp_path / f"a{one.endings[0]}"
    smooth().save(path, dpi=(300, 300))
    with Image.open(translate(path)) as after:
        assert after.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@by_name(WITH["xmp"])
def test_the_xmp_packet_is_kept(tmp_path, one):
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>note</x:xmpmeta>"
    path = tmp_path / f"a{one.endings[0]}"
    if one.name == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", packet.decode())
        smooth().save(path, pnginfo=text)
    elif one.name == "tiff":
        smooth().save(path, tiffinfo={700: packet})
    else:
        smooth().save(path, xmp=packet)
    with Image.open(translate(path)) as after:
        kept = after.info["xmp"]
        assert (kept.encode() if isinstance(kept, str) else kept).rstrip(b"\0") == packet


@by_name(WITH["alpha"])
def test_alpha_comes_back(tmp_path, one):
    alpha = Image.fromarray(np.repeat([[0, 255]], [16, 24], axis=1).repeat(24, axis=0).astype(np.uint8))
    image = smooth()
    image.putalpha(alpha)
    path = tmp_path / f"a{one.endings[0]}"
    image.save(path, one.pillow)
    with Image.open(translate(path)) as after:
        assert abs(np.asarray(after.convert("RGBA"))[..., 3].astype(int) - np.asarray(alpha)).max() <= 3


@by_name([one for one in WRITTEN.values() if "alpha" not in one.keeps])
def test_transparent_pixels_become_white_where_there_is_no_alpha(tmp_path, one):
    Image.new("RGBA", SIZE, (10, 20, 30, 0)).save(tmp_path / "a.png")
    with Image.open(translate(tmp_path / "a.png", tmp_path / f"b{one.endings[0]}")) as after:
        assert after.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


def test_a_network_sees_the_colours_below_alpha(tmp_path):
    """Composited over white, soft edges would get a pale rim when the alpha is put back."""
    Image.new("RGBA", SIZE, (10, 20, 30, 128)).save(tmp_path / "a.png")
    with Image.open(translate(tmp_path / "a.png")) as after:
        assert after.getpixel((5, 5)) == (10, 20, 30, 128)


# 16 bits


def deep_pixels(channels):
    values = np.random.default_rng(0).integers(0, 65536, (*SIZE[::-1], channels)).astype(np.uint16)
    return values if channels > 1 else values[..., 0]


def read_png(path):
    """Decode a PNG of 16 bits with the filters "none" and "up", with nothing of the package."""
    content, position, data = path.read_bytes(), 8, b""
    while position < len(content):
        (length,), name = struct.unpack(">I", content[position : position + 4]), content[position + 4 : position + 8]
        body = content[position + 8 : position + 8 + length]
        if name == b"IHDR":
            width, height, bits, colour = struct.unpack(">IIBB", body[:10])
        data += body if name == b"IDAT" else b""
        position += length + 12
    assert bits == 16
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, -1)
    assert set(rows[:, 0]) == {2}
    return np.add.accumulate(rows[:, 1:], axis=0, dtype=np.uint8).copy().view(">u2").reshape(height, width, channels)


def write_deep(path, pixels, name):
    """A file of 16 bits per channel, by way of the package's own writer, which `read_png` checks."""
    from cyclestyle.images import Frame, Source

    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    write_frames([Frame(pixels, Source(depth=16, dpi=(300, 300)))], path, WRITTEN[name])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_is_written_to_the_last_bit(tmp_path, channels):
    pixels = deep_pixels(channels)
    write_deep(tmp_path / "a.png", pixels, "png")
    assert np.array_equal(read_png(tmp_path / "a.png").squeeze(), pixels)


@pytest.mark.parametrize("name", ["png", "tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_of_colour_come_back_to_the_last_bit(tmp_path, name, channels):
    path = tmp_path / f"a{WRITTEN[name].endings[0]}"
    pixels = deep_pixels(channels)
    if channels == 4:
        pixels[..., 3] |= 1  # the colours of transparent pixels are not kept
    write_deep(path, pixels, name)
    after = translate(translate(path), tmp_path / "b.png")
    assert np.array_equal(read_png(after), pixels)
    with Image.open(path) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert np.array_equal(np.asarray(image), pixels >> 8)  # what Pillow reads: the higher bytes


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_of_grey_become_16_bits_of_colour(tmp_path, suffix):
    grey = deep_pixels(1)
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    after = translate(translate(tmp_path / f"a{suffix}"), tmp_path / "b.png")
    assert np.array_equal(read_png(after), np.repeat(grey[..., None], 3, axis=2))
    after = translate(tmp_path / f"a{suffix}", tmp_path / "grey.png", channels=1)
    with Image.open(after) as image:
        assert image.mode == "I;16"
        assert np.array_equal(np.asarray(image), grey)


def test_16_bits_are_rounded_where_a_format_has_8(tmp_path):
    write_deep(tmp_path / "a.png", np.full((8, 8, 3), 40000, np.uint16), "png")
    with Image.open(translate(tmp_path / "a.png", tmp_path / "b.bmp")) as after:
        assert after.getpixel((1, 1)) == (156, 156, 156)


def test_16_bits_go_through_a_profile_smoothly(tmp_path):
    from cyclestyle.images import Frame, Source

    ramp = np.linspace(0, 65535, 4096).astype(np.uint16)
    pixels = np.repeat(ramp.reshape(1, -1, 1), 3, axis=2)
    path, profile = tmp_path / "a.tif", wide_profile()  # made once: it holds the second in which it was made
    write_frames([Frame(pixels, Source(depth=16, icc=profile))], path, WRITTEN["tiff"])
    after = read_png(translate(path, tmp_path / "b.png")).astype(int)
    assert abs(after - pixels).max() <= 2 * 257
    assert len(np.unique(after)) > 3000  # 256 if 8 bits had been in between
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 32768)])
def test_floating_point_and_32_bits_become_16(tmp_path, mode, value):
    Image.new(mode, (8, 8), value).save(tmp_path / "a.tif")
    assert read_png(translate(tmp_path / "a.tif", tmp_path / "b.png"))[0, 0].tolist() == [32768] * 3


# Colours


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "I;16B"])
def test_other_colours_become_rgb(tmp_path, mode):
    image = Image.new("I;16B", SIZE, 30000) if mode == "I;16B" else smooth().convert(mode if mode != "LAB" else "RGB")
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    # Pillow 12.3 cannot read the uncompressed YCbCr that it writes
    image.save(tmp_path / "a.tif", **({"compression": "tiff_lzw"} if mode == "YCbCr" else {}))
    with Image.open(translate(tmp_path / "a.tif")) as after:
        assert after.mode == "RGB"
        assert "icc_profile" not in after.info


def test_a_profile_of_other_colours_is_not_written_into_rgb(tmp_path):
    """A grey profile in an RGB file makes viewers refuse it."""
    grey = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    grey[16:20] = b"GRAY"
    smooth().convert("L").save(tmp_path / "a.png", icc_profile=bytes(grey))
    with Image.open(translate(tmp_path / "a.png")) as after:
        assert after.mode == "RGB"
        assert "icc_profile" not in after.info


# Compression


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 75, 98])
def test_the_compression_of_jpeg_is_kept(tmp_path, quality, subsampling):
    path = tmp_path / "a.jpg"
    smooth().save(path, quality=quality, subsampling=subsampling, progressive=subsampling == 1)
    with Image.open(path) as before, Image.open(translate(path)) as after:
        assert after.quantization == before.quantization
        assert get_sampling(after) == get_sampling(before) == subsampling
        assert after.info.get("progressive") == before.info.get("progressive")


@by_name([one for one in WRITTEN.values() if one.quality])
def test_a_quality_that_is_asked_for_replaces_it(tmp_path, one):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=50)
    sizes = [
        translate(tmp_path / "a.jpg", tmp_path / f"{quality}{one.endings[0]}", quality=quality).stat().st_size
        for quality in (10, 90)
    ]
    assert sizes[0] < sizes[1]


def test_tags_that_are_too_long_for_jpeg_do_not_fail_the_image(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70000
    smooth().save(tmp_path / "a.tif", exif=exif.tobytes())
    with Image.open(translate(tmp_path / "a.tif", tmp_path / "b.jpg")) as after:
        assert not after.getexif()
    with Image.open(translate(tmp_path / "a.tif")) as after:
        assert len(after.getexif()[ExifTags.Base.ImageDescription]) == 70000


def test_grey_and_cmyk_jpegs_keep_their_tables(tmp_path):
    for mode in ("L", "CMYK"):
        smooth().convert(mode).save(tmp_path / f"{mode}.jpg", quality=40)
        with Image.open(tmp_path / f"{mode}.jpg") as before, Image.open(translate(tmp_path / f"{mode}.jpg")) as after:
            assert after.mode == "RGB"
            assert after.quantization[0] == before.quantization[0]


@pytest.mark.parametrize("animated", [False, True])
def test_lossless_webp_stays_lossless(tmp_path, animated):
    noise = [np.random.default_rng(seed).integers(0, 255, (32, 32, 3)).astype(np.uint8) for seed in range(2)]
    first, second = map(Image.fromarray, noise)
    more = {"save_all": True, "append_images": [second], "duration": 50} if animated else {}
    first.save(tmp_path / "a.webp", lossless=True, **more)
    with Image.open(translate(tmp_path / "a.webp")) as after:
        assert np.array_equal(np.asarray(after.convert("RGB")), noise[0])
    first.save(tmp_path / "lossy.webp", quality=60, **more)
    with Image.open(translate(tmp_path / "lossy.webp")) as after:
        assert not np.array_equal(np.asarray(after.convert("RGB")), noise[0])


# Animations and pages


def durations(path):
    with Image.open(path) as image:
        found = []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            found.append(round(image.info.get("duration", 0)))
        return found, image.info.get("loop")


@by_name(ANIMATED)
@pytest.mark.parametrize("loop", [0, 3])
def test_animations_keep_their_images_and_timing(tmp_path, one, loop):
    path = tmp_path / f"a{one.endings[0]}"
    frames = [smooth(shift=40 * number) for number in range(4)]
    timing = {"duration": [40, 100, 250, 70], "loop": loop}
    frames[0].save(path, save_all=True, append_images=frames[1:], **timing)
    after = translate(path)
    assert durations(after) == durations(path)
    assert durations(path)[0] == timing["duration"]
    with Image.open(after) as image, Image.open(path) as before:
        for number in range(4):
            image.seek(number)
            before.seek(number)
            assert close(image, before, 8 if one.name == "gif" else 3)


def test_a_gif_that_plays_once_plays_once(tmp_path):
    frames = [smooth(shift=60 * number) for number in range(2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=50)
    assert durations(translate(tmp_path / "a.gif")) == ([50, 50], None)
    for suffix in (".webp", ".png"):
        assert durations(translate(tmp_path / "a.gif", tmp_path / f"b{suffix}")) == ([50, 50], 1)
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=50, loop=2)
    assert durations(translate(tmp_path / "a.gif", tmp_path / "c.png")) == ([50, 50], 3)  # played, then repeated twice


@pytest.mark.parametrize("disposal", [1, 2, 3])
@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_disposal_is_applied_before_and_transparency_stays(tmp_path, suffix, disposal):
    """Each image is the whole canvas, whatever its file says about the image before it."""
    frames = []
    for number in range(3):
        frame = Image.new("RGBA", SIZE, (0, 0, 0, 0))
        frame.paste((250, 20 * number, 30, 255), (8 * number, 4, 8 * number + 10, 16))
        frames.append(frame)
    path = tmp_path / f"a{suffix}"
    kind = disposal if suffix == ".gif" else disposal - 1
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0, disposal=kind)
    with Image.open(path) as before, Image.open(translate(path)) as after:
        assert after.n_frames == before.n_frames
        for number in range(before.n_frames):
            before.seek(number)
            after.seek(number)
            first, second = (np.asarray(image.convert("RGBA")).astype(int) for image in (before, after))
            assert np.array_equal(first[..., 3], second[..., 3]), number
            assert abs(first - second)[first[..., 3] > 0].max() <= 8


def test_the_still_image_of_an_animated_png_stays_apart(tmp_path):
    still, *frames = [smooth(shift=60 * number) for number in range(3)]
    path = tmp_path / "a.png"
    still.save(path, save_all=True, append_images=frames, default_image=True, duration=[80, 120])
    with Image.open(translate(path)) as after:
        assert after.default_image
        assert after.n_frames == 3
        assert close(after, still, 1)
    assert durations(tmp_path / "out" / "a.png")[0][1:] == [80, 120]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits"])
def test_pages_keep_their_sizes_colours_and_resolution(tmp_path, compression):
    path = tmp_path / "a.tif"
    pages = [smooth((40, 24)), smooth((24, 50)), smooth((8, 8))]
    options = {"compression": compression} if compression else {}
    pages[0].save(path, save_all=True, append_images=pages[1:], dpi=(150, 150), **options)
    assert read_header(path).frames == 3
    with Image.open(translate(path)) as after:
        assert after.n_frames == 3
        for number, page in enumerate(pages):
            after.seek(number)
            assert after.size == page.size
            assert close(after, page, 6)
            assert after.info["dpi"] == pytest.approx((150, 150))


def test_pages_of_16_bits(tmp_path):
    first, second = deep_pixels(3), deep_pixels(3)[::-1].copy()
    from cyclestyle.images import Frame, Source

    source = Source(depth=16, exif=exif_with_details())
    write_frames([Frame(first, source), Frame(second, source)], tmp_path / "a.tif", WRITTEN["tiff"])
    with closing(ImageFile(translate(tmp_path / "a.tif"))) as file:
        for number, pixels in enumerate((first, second)):
            seen = np.rint((file.read(number, 3)[0].numpy().astype(np.float64) + 1) * 32767.5)
            assert np.array_equal(seen.transpose(1, 2, 0), pixels)
    with Image.open(tmp_path / "out" / "a.tif") as image:
        assert image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == 4.0
        image.seek(1)
        assert image.getexif()[ExifTags.Base.Make] == "Maker"


def exif_with_details():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 4.0
    return exif.tobytes()


def test_only_the_photo_of_a_file_with_previews_is_translated(tmp_path):
    """Phones put previews and depth maps behind the photo (MPO in a file that is named .jpg)."""
    smooth().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[smooth((8, 8))])
    assert read_header(tmp_path / "a.jpg") == read_header(tmp_path / "a.jpg").__class__("MPO", SIZE, 1)
    with Image.open(translate(tmp_path / "a.jpg")) as after:
        assert (after.format, after.size) == ("JPEG", SIZE)


# Names


@pytest.mark.parametrize("name", ["photo.psd", "photo.ico", "photo.pgm", "photo.xbm", "a.b.fli"])
def test_formats_that_are_not_written_become_png(name):
    one, target = target_format(Path(name))
    assert one.name == "png"
    assert target == Path(name).stem + ".png"


@pytest.mark.parametrize(("pillow", "target"), [("WEBP", "photo"), ("ICO", "photo.png"), (None, "photo.png")])
def test_a_file_without_an_ending_is_known_by_its_content(tmp_path, pillow, target):
    path = tmp_path / "photo"
    path.write_bytes(b"text") if pillow is None else smooth().save(path, pillow)
    assert target_format(path)[1] == target


def test_the_table_covers_what_pillow_reads():
    assert {".gif", ".avif", ".jp2", ".ppm", ".tga", ".psd", ".ico", ".jfif", ".dds", ".pgm"} <= EXTENSIONS
    assert not {".eps", ".pdf", ".mpg", ".h5", ".wmf"} & EXTENSIONS
    endings = [ending for one in FORMATS for ending in one.endings]
    assert len(endings) == len(set(endings))
    for one in WRITTEN.values():
        assert format_of(Path(f"a{one.endings[0].upper()}")) is one
        assert format_named(one.name) is format_named(one.endings[0][1:]) is one


def test_an_unknown_format_is_named_with_those_that_there_are():
    with pytest.raises(CycleStyleError, match="images cannot be written as psd; choose one of png, jpeg, webp"):
        format_named("psd")


def test_a_file_that_a_format_cannot_hold_is_named(tmp_path):
    Image.new("L", (16384, 2)).save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match=r"cannot write .*wide\.webp: webp cannot hold the image"):
        translate(tmp_path / "wide.png", tmp_path / "wide.webp")
    assert not (tmp_path / "wide.webp").exists()


def test_a_decompression_bomb_is_refused(tmp_path):
    content = io.BytesIO()
    Image.new("1", (1, 1)).save(content, "PNG")
    body = bytearray(content.getvalue())
    body[16:24] = struct.pack(">II", 600_000, 600_000)
    body[29:33] = struct.pack(">I", zlib.crc32(body[12:29]))
    (tmp_path / "bomb.png").write_bytes(body)
    with pytest.raises(ImageError, match=r"bomb\.png: 600000×600000 pixels take .* to decode, and"):
        read_header(tmp_path / "bomb.png")


def test_the_tags_of_the_layout_of_a_tiff_are_not_carried_into_other_files(tmp_path):
    smooth().save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={TiffImagePlugin.IMAGEDESCRIPTION: "a boat"})
    for suffix in (".tif", ".jpg", ".png"):
        with Image.open(translate(tmp_path / "a.tif", tmp_path / f"b{suffix}")) as after:
            assert after.getexif()[TiffImagePlugin.IMAGEDESCRIPTION] == "a boat"
            assert suffix == ".tif" or set(after.getexif()) == {TiffImagePlugin.IMAGEDESCRIPTION}
