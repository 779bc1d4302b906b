"""`demo`: what visitors do, without a page, and in a browser. The browser tests need Gradio and Chromium."""

import json
import time
from dataclasses import asdict

import numpy as np
import pytest
import torch
from browser import Browser, needs_chromium
from PIL import Image

from cyclestyle.commands.demo import load_studio
from cyclestyle.commands.demo.studio import Wishes
from cyclestyle.errors import CycleStyleError
from cyclestyle.speed.choice import Hardware, hardware_name
from cyclestyle.speed.setup import choose_device
from cyclestyle.tasks import Autoencoder, CycleGAN
from cyclestyle.translation.large import LargeImages
from cyclestyle.weights.checkpoints import write_checkpoint

MAKER = 271  # EXIF tag


def checkpoint(task, path):
    settings = {"hyper_parameters": dict(task.hparams), "cyclestyle_task": type(task).__name__}
    write_checkpoint({"state_dict": task.state_dict(), **settings}, path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two checkpoints, an upload with metadata, a file that is no image, and one that is too large."""
    folder = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)  # the filters of so small a network may all be dead
    checkpoint(CycleGAN(generator="resnet6", depth=1, ngf=2, ndf=2, discriminator="pixel"), folder / "gan.ckpt")
    checkpoint(Autoencoder(width=8, level=2, transfer="adain", strength=0.5), folder / "adain.ckpt")
    pixels = np.random.default_rng(0).integers(0, 255, (61, 90, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[MAKER] = "a camera"
    Image.fromarray(pixels).save(folder / "photo.jpg", exif=exif)
    Image.new("RGB", (400, 300)).save(folder / "large.png")
    Image.fromarray(pixels[::-1] // 2).save(folder / "style.png")
    (folder / "text.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def studio(folder):
    (folder / "work").mkdir()
    return load_studio([str(folder / "gan.ckpt"), str(folder / "adain.ckpt")], folder / "work", 0.1, 10)


def test_a_translation_has_the_size_and_the_metadata_of_the_upload(studio, folder):
    result = studio.translate("gan", folder / "photo.jpg", Wishes(direction="BtoA"))
    written = Image.open(result.file)
    assert result.file.name == "photo-translated.jpg"
    assert written.size == (90, 61)
    assert written.getexif()[MAKER] == "a camera"
    assert result.before.size == result.after.size == (90, 61)


def test_the_page_takes_what_is_faster_on_the_hardware(folder, tmp_path, monkeypatch):
    hardware = Hardware(kind="cpu", bfloat16=0.0, winograd=3.0, winograd_training=3.0, compiler=False)
    (tmp_path / "cyclestyle").mkdir()
    known = json.dumps({hardware_name("cpu"): asdict(hardware)})
    (tmp_path / "cyclestyle" / "hardware.json").write_text(known)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    studio = load_studio([str(folder / "gan.ckpt")], tmp_path, 0.1, 10)
    assert studio.translators["gan"].engine.tuning.channels_last
    assert studio.translate("gan", folder / "photo.jpg", Wishes()).after.size == (90, 61)


def test_images_are_translated_on_the_gpu_if_there_is_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclestyle.commands.demo.choose_device", lambda name: torch.device(name or "meta"))
    studio = load_studio([str(folder / "gan.ckpt")], tmp_path, 0.1, 10)
    assert studio.translators["gan"].engine.device.type == "meta"
    studio = load_studio([str(folder / "gan.ckpt")], tmp_path, 0.1, 10, "cpu")
    assert studio.translators["gan"].engine.device.type == "cpu"
    with pytest.raises(CycleStyleError, match="cannot use the device cuda:99"):
        choose_device("cuda:99")


def test_an_image_that_exhausts_the_memory_gets_a_friendly_line(studio, folder, monkeypatch):
    def translate(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(studio.translators["gan"], "translate", translate)
    with pytest.raises(CycleStyleError, match="does not fit into the memory of this server"):
        studio.translate("gan", folder / "photo.jpg", Wishes())


def test_a_long_translation_tells_how_far_it_is(folder, tmp_path):
    studio = load_studio([str(folder / "gan.ckpt")], tmp_path, 0.1, 10)
    studio.translators["gan"].engine.large_images = LargeImages(memory="100KB")  # less than the image takes
    shares = []
    studio.translate("gan", folder / "photo.jpg", Wishes(), shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[0] < 1 == shares[-1]


def test_directions_differ(studio, folder):
    there, back = (
        studio.translate("gan", folder / "photo.jpg", Wishes(direction=way)).after for way in ("AtoB", "BtoA")
    )
    assert not np.array_equal(there, back)
    assert studio.directions("gan") == ["AtoB", "BtoA"]


def test_strength_changes_the_style(studio, folder):
    weak, strong = (
        studio.translate("adain", folder / "photo.jpg", Wishes(painting=folder / "style.png", strength=strength)).after
        for strength in (0.0, 1.0)
    )
    assert not np.array_equal(weak, strong)


@pytest.fixture(scope="module")
def styles(tmp_path_factory):
    """The models of the package."""
    return load_studio(["styles"], tmp_path_factory.mktemp("styles"), 0.1, 10)


def test_styles_of_one_network_are_chosen_and_mixed(styles, folder):
    wishes = [
        Wishes(style="wave"),
        Wishes(style="starry_night"),
        Wishes(style="wave", second="starry_night", share=0.0),
        Wishes(style="wave", second="starry_night", share=1.0),
        Wishes(style="wave", strength=0.0),
    ]
    found = [np.asarray(styles.translate("styles", folder / "photo.jpg", one).after).astype(int) for one in wishes]
    assert np.abs(found[0] - found[1]).mean() > 1
    assert np.array_equal(found[2], found[0])
    assert np.array_equal(found[3], found[1])
    assert np.abs(found[4] - np.asarray(Image.open(folder / "photo.jpg")).astype(int)).max() <= 1
    assert styles.translate("styles", folder / "photo.jpg", Wishes(style="nix")).after  # a style that is not there


def test_each_style_has_a_thumbnail_of_our_own_network(styles, folder):
    found = styles.thumbnails("styles", folder / "photo.jpg", 32)
    assert list(found) == list(styles.method("styles").style_names)
    assert {image.size for image in found.values()} == {(32, 22)}


@pytest.mark.parametrize(
    ("name", "upload", "style", "text"),
    [
        ("gan", None, None, "Choose an image first"),
        ("gan", "text.png", None, "The image is no image that can be read"),
        ("gan", "large.png", None, "0.1 megapixels; at most 0.1"),
        ("adain", "photo.jpg", None, "Choose a style image"),
        ("adain", "photo.jpg", "text.png", "The style image is no image"),
    ],
)
def test_mistakes_of_visitors_get_a_friendly_line(studio, folder, name, upload, style, text):
    paths = [None if one is None else folder / one for one in (upload, style)]
    with pytest.raises(CycleStyleError, match=text) as caught:
        studio.translate(name, paths[0], Wishes(painting=paths[1]))
    assert str(folder) not in str(caught.value)  # nobody needs to know where the server keeps uploads


def test_mistakes_in_the_call_are_one_line(cyclestyle, folder):
    for words, text in (
        (["--ckpt_path", folder / "no.ckpt"], "does not exist"),
        (["--max_upload", "many"], "max_upload"),
        (["--domains", "photo"], "--domains are the names of A and B, such as photo painting, got photo"),
        (["--max_waiting", "0"], "must be above 0"),
    ):
        status, _, err = cyclestyle("demo", *words)
        assert status == 1
        assert text in err
        assert len(err.splitlines()) == 1


@pytest.fixture(scope="module")
def address(folder, studio):
    """A page that is served; its uploads are in a folder that tests look into."""
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install '.[demo]'")
    import os

    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    from cyclestyle.commands.demo.page import Look, build_page, launch

    look = Look(title="Paint", domains=("photo", "painting"), styles=[folder / "style.png"])
    page = build_page(studio, look, waiting=4)
    yield launch(page, host="127.0.0.1", port=None, password=None, upload="100kb")
    page.close(verbose=False)


@pytest.fixture
def visitor(tmp_path, address):
    browsers = []

    def visit(width=1280):
        browsers.append(Browser(tmp_path / f"browser{len(browsers)}"))
        browsers[-1].open(address, width=width)
        browsers[-1].wait_for("document.querySelector('#upload input[type=file]') !== null")
        return browsers[-1]

    yield visit
    for browser in browsers:
        browser.close()


SHOWN = "document.querySelectorAll('#result img').length >= 2"


def upload(browser, path):
    browser.choose_file("#upload input[type=file]", path)
    browser.wait_for("document.querySelector('#upload img') !== null")


def said(browser, text):
    browser.wait_for(f"document.body.innerText.includes({json.dumps(text)})")


@needs_chromium
@pytest.mark.slow
def test_upload_translate_slide_and_download(visitor, folder, address):
    browser = visitor()
    said(browser, "photo → painting")
    assert browser.run("document.title") == "Paint"
    upload(browser, folder / "photo.jpg")
    browser.run("document.querySelector('#translate').click()")
    browser.wait_for(SHOWN)
    moved = "getComputedStyle(document.querySelector('#result img[style*=clip], #result .fixed')).clipPath"
    measure = "(r => [r.x, r.y, r.width, r.height])(document.querySelector('#result img').getBoundingClientRect())"
    box = browser.run(measure)
    before = browser.run(moved)
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    for kind, to in (("Moved", x), ("Pressed", x), ("Moved", x - box[2] / 4), ("Released", x - box[2] / 4)):
        browser.mouse(kind, to, y)
    assert browser.run(moved) != before
    browser.wait_for("document.querySelector('#download').disabled === false")
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
    browser.run("document.querySelector('#download').click()")
    end = time.monotonic() + 30
    while not (found := list(folder.glob("downloads/*.jpg"))):
        assert time.monotonic() < end, "nothing is downloaded"
        browser.run("0")
    downloaded = Image.open(found[0])
    assert downloaded.size == (90, 61)
    assert downloaded.getexif()[MAKER] == "a camera"
    outside = "performance.getEntriesByType('resource').filter(one => !one.name.startsWith(location.origin)).length"
    assert browser.run(outside) == 0  # no analytics, no fonts from elsewhere
    assert browser.errors() == []


@needs_chromium
@pytest.mark.slow
def test_a_wrong_and_a_large_file_are_told(visitor, folder):
    browser = visitor()
    browser.choose_file("#upload input[type=file]", folder / "text.png")
    browser.wait_for("document.querySelector('#upload img') !== null")
    browser.run("document.querySelector('#translate').click()")
    said(browser, "is no image that can be read")
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "heavy.png")  # more than the 100 kB of the page
    other = visitor()
    other.choose_file("#upload input[type=file]", folder / "heavy.png")
    other.wait_for("/exceeds|too large|maximum/i.test(document.body.innerText)")


@needs_chromium
@pytest.mark.slow
def test_two_visitors_at_once_on_a_narrow_screen_with_the_keyboard(visitor, folder):
    browsers = [visitor(width=390), visitor(width=390)]
    for browser in browsers:
        upload(browser, folder / "photo.jpg")
        browser.run("document.querySelector('#translate').focus()")
    for browser in browsers:
        browser.press("Enter", 13, "\r")
    for browser in browsers:
        browser.wait_for(SHOWN)
        assert browser.run("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_uploads_are_removed_when_the_demo_ends(folder):
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install '.[demo]'")
    import os
    import signal
    import subprocess
    import sys
    import tempfile

    home = folder / "temporary"
    home.mkdir()
    words = [sys.executable, "-m", "cyclestyle", "demo", "--ckpt_path", folder / "gan.ckpt", "--password", "open"]
    environment = {**os.environ, "TMPDIR": str(home)}
    with subprocess.Popen([*map(str, words)], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().startswith("serving gan at http://127.0.0.1:")
            assert list(home.glob("cyclestyle-demo-*"))
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert not list(home.glob("cyclestyle-demo-*"))
    assert tempfile.gettempdir() != str(home)
