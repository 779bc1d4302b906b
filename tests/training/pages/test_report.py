import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from browser import Browser, needs_chromium
from PIL import Image

from cyclestyle.cli import main


@pytest.fixture(scope="module")
def run(tiny_fit, checkpoint, tmp_path_factory):
    """A run that was tested."""
    run = tmp_path_factory.mktemp("tested") / "run"
    shutil.copytree(checkpoint.parents[1], run)
    words = [*tiny_fit[1:], f"--trainer.default_root_dir={run}", "--ckpt_path=best"]
    assert main(["test", *words]) == 0
    return run


def test_the_report_orders_images_by_content_distance(run):
    report = json.loads((run / "test" / "report.json").read_text())
    assert report["checkpoint"].endswith("best.ckpt")
    assert set(report["figures"]) == {"raw AtoB", "raw BtoA"}
    page = (run / "test" / "report.html").read_text()
    for direction, distances in report["content"].items():
        assert len(distances) == 3
        section = page.split(f"{direction}: best, median and worst")[1].split("<h2>")[0]
        best, worst = min(distances.values()), max(distances.values())
        assert f"{best:.3f}" in section.split("best: ")[1].split("<")[0]
        assert f"{worst:.3f}" in section.split("worst: ")[1].split("<")[0]


def test_the_report_shows_the_run(run):
    page = (run / "test" / "report.html").read_text()
    for text in ("step 4", "step 7", "train/loss_G", "KID", "Extractor: statistics", "3 to 7"):
        assert text in page


def test_the_report_shows_every_test_image_with_its_figures(run, samples):
    page = (run / "test" / "report.html").read_text()
    for direction, (source, target) in (("AtoB", "AB"), ("BtoA", "BA")):
        section = page.split(f"{direction}: every image")[1].split("<h2>")[0]
        names = [path.name for path in sorted((samples / f"test{source}").iterdir())]
        captions = re.findall(r"<figcaption>(.*?)</figcaption>", section)
        assert [caption.split(":")[0] for caption in captions] == names
        assert all(re.search(r"content [\d.]+, structure [\d.]+, cycle PSNR [\d.]+", caption) for caption in captions)
        assert section.count("<img") == 3
        legend = [f"input (real_{source})", f"translation (fake_{target})", f"reconstruction (rec_{source})"]
        assert re.findall(r"<span>(.*?)</span>", section) == 3 * legend


def test_a_strip_shows_what_its_legend_says(run, samples, cyclestyle, tmp_path):
    """The input is the test image, and the translation is that of `predict`."""
    page = (run / "test" / "report.html").read_text()
    first = sorted((samples / "testA").iterdir())[0]
    words = ["--ckpt_path", run / "checkpoints" / "best.ckpt", "--direction", "AtoB"]
    assert cyclestyle("predict", "--input", first, "--output", tmp_path / "out", *words)[0] == 0
    encoded = re.search(r'src="data:image/webp;base64,([^"]+)"', page.split("AtoB: every image")[1])[1]
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), float)
    assert strip.shape == (32, 96, 3)
    expected = [np.asarray(Image.open(path).resize((32, 32)), float) for path in (first, tmp_path / "out" / first.name)]
    differences = [[np.abs(strip[:, 32 * n : 32 * n + 32] - one).mean() for n in range(3)] for one in expected]
    assert np.argmin(differences[0]) == 0
    assert differences[0][0] < 12  # of 255: the encoding, and a crop that is resized a little otherwise
    assert np.argmin(differences[1]) == 1


def test_the_report_has_the_settings_and_the_alarms_of_the_run(run):
    page = (run / "test" / "report.html").read_text()
    assert "No alarm was raised." in page
    assert "decay_epochs: 0" in page.split("<summary>config.yaml</summary>")[1].split("</pre>")[0]
    assert "from top to bottom: real_A (image of domain A), fake_B" in page


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_of_the_report_runs_off_the_screen(run, tmp_path, width):
    browser = Browser(tmp_path)
    try:
        browser.open(run / "test" / "report.html", width)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert not browser.errors()
    finally:
        browser.close()


def test_an_unusable_checkpoint_raises_an_error(cyclestyle, tiny_fit, tmp_path):
    root = f"--trainer.default_root_dir={tmp_path}"
    for name, message in (("last", "holds no checkpoint; train first"), ("best", "best.ckpt does not exist")):
        status, _, error = cyclestyle("test", *tiny_fit[1:], root, f"--ckpt_path={name}")
        assert status == 1
        assert message in error
