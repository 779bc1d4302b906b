"""`compare`: methods on the same photos, on one page, as a user runs it."""

import json
import re

import pytest
import torch
import yaml
from browser import Browser, needs_chromium
from PIL import Image

from cyclestyle.commands import compare
from cyclestyle.report import comparison_page
from cyclestyle.translation.engine import Engine

GATYS = {
    "config": "configs/gatys_relu3.yaml",
    "model.weights": "random",
    "model.sizes": [32],
    "model.steps": [2],
}


@pytest.fixture(scope="module")
def inputs(samples, checkpoint, tmp_path_factory):
    """Two photos, and a config with a trained and an optimising method."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "photos" / "sub").mkdir(parents=True)
    first, second = sorted((samples / "testA").iterdir())[:2]
    Image.open(first).save(folder / "photos" / "one.png")
    Image.open(second).resize((40, 24)).save(folder / "photos" / "sub" / "two.jpg")
    painting = str(sorted((samples / "trainB").iterdir())[0])
    methods = [
        {"name": "Cycle GAN", "predict": {"ckpt_path": str(checkpoint)}},
        {"name": "Gatys", "predict": {**GATYS, "style": [painting, painting]}},
    ]
    config = {"target": str(samples / "trainB"), "methods": methods}
    (folder / "compare.yaml").write_text(yaml.safe_dump(config))
    return folder


def words(inputs, output, config="compare.yaml"):
    return ["compare", "--config", inputs / config, "--input", inputs / "photos", "--output", output]


@pytest.fixture(scope="module")
def report(inputs):
    from cyclestyle.cli import main

    assert main([str(word) for word in words(inputs, inputs / "report")]) == 0
    return inputs / "report"


def test_every_method_is_measured_and_every_photo_kept(report):
    rows = {row["name"]: row for row in json.loads((report / "compare.json").read_text())}
    assert list(rows) == ["photo", "Cycle GAN", "Gatys"]
    assert rows["photo"]["content"] == 0
    assert rows["photo"]["seconds"] is None
    for name in ("Cycle GAN", "Gatys"):
        assert rows[name]["content"] > 0
        assert rows[name]["style"] > 0
        assert rows[name]["seconds"] > 0
        assert rows[name]["memory"] > 1e8
    assert rows["Cycle GAN"]["training_seconds"] > 0
    assert rows["Gatys"]["training_seconds"] is None
    for folder in ("cycle_gan", "gatys"):
        assert Image.open(report / folder / "sub" / "two.jpg").size == (40, 24)
    assert Image.open(report / "sheet.png").size == (3 * 40, 20 + 2 * 40)


def test_the_page_is_one_file_that_names_the_extractor(report):
    page = (report / "index.html").read_text()
    assert "by the extractor statistics" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


@needs_chromium
def test_a_browser_shows_sorts_and_slides(report, tmp_path):
    browser = Browser(tmp_path / "profile")
    try:
        for width in (390, 1280):
            browser.open(report / "index.html", width=width)
            assert browser.run("[...document.images].every(image => image.naturalWidth > 0)")
            assert browser.run("document.images.length") >= 3 + 2 * (1 + 2)
            assert browser.run("document.documentElement.scrollWidth") <= width
        names = "[...document.querySelectorAll('tbody th')].map(cell => cell.textContent).join()"
        assert browser.run(names) == "photo,Cycle GAN,Gatys"
        heads = "[...document.querySelectorAll('thead button')]"
        browser.run(f"{heads}.find(head => head.textContent == 's / image').focus()")  # the photo took none
        browser.press("Enter", 13, "\r")
        ascending = browser.run(names).split(",")
        browser.press("Enter", 13, "\r")
        assert ascending[-1] == browser.run(names).split(",")[-1] == "photo"
        assert browser.run(names).split(",")[:2] == ascending[:2][::-1]
        slider = "document.querySelector('input[type=range]')"
        before = browser.run(f"{slider}.focus(), {slider}.value")
        browser.press("ArrowRight", 39)
        assert float(browser.run(f"{slider}.value")) > float(before)
        assert not browser.errors()
    finally:
        browser.close()


def test_a_method_that_fails_is_named_and_the_others_are_shown(cyclestyle, inputs, tmp_path):
    config = yaml.safe_load((inputs / "compare.yaml").read_text())
    config["methods"] = [config["methods"][0], {"name": "Broken", "predict": {"ckpt_path": "missing.ckpt"}}]
    (inputs / "broken.yaml").write_text(yaml.safe_dump(config))
    status, _, err = cyclestyle(*words(inputs, tmp_path / "out", "broken.yaml"))
    assert status == 1
    assert "Broken failed: checkpoint missing.ckpt does not exist" in err
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["name"] for row in rows] == ["photo", "Cycle GAN", "Broken"]
    assert rows[-1]["error"] == "checkpoint missing.ckpt does not exist"
    assert "Broken failed: checkpoint missing.ckpt does not exist" in (tmp_path / "out" / "index.html").read_text()


def test_whatever_a_method_does_the_page_is_written(cyclestyle, inputs, tmp_path, monkeypatch):
    def exhausting(engine, images):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "__call__", exhausting)
        status, _, error = cyclestyle(*words(inputs, tmp_path / "out"))
    assert status == 1
    assert "Cycle GAN failed: 2 images failed: cannot translate " in error
    assert "two.jpg: it does not fit into memory" in error
    monkeypatch.setattr(compare, "predict", lambda words: 1 / 0)
    assert "Gatys failed: division by zero" in cyclestyle(*words(inputs, tmp_path / "out"))[2]
    assert "Gatys failed: division by zero" in (tmp_path / "out" / "index.html").read_text()


def test_methods_leave_the_process_as_it_was(cyclestyle, inputs, tmp_path):
    config = yaml.safe_load((inputs / "compare.yaml").read_text())
    config["methods"] = [{"name": "Quick", "predict": {**config["methods"][0]["predict"], "tune.threads": 2}}]
    (inputs / "threads.yaml").write_text(yaml.safe_dump(config))
    assert cyclestyle(*words(inputs, tmp_path / "out", "threads.yaml"))[0] == 0
    assert torch.get_num_threads() == 1


def test_long_options_are_passed_to_predict_unchanged():
    files = [f"{'weights' * 9}/{n}.pth" for n in range(4)]
    assert compare._words("model.decoders", files) == [f"--model.decoders={json.dumps(files)}"]
    assert compare._words("model.weights", None) == ["--model.weights=null"]


def test_a_photo_lies_on_the_page_as_its_result_does(tmp_path):
    """A camera's orientation is a note in the file, which results do not have."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "photo.jpg", exif=exif)
    Image.new("RGB", (20, 40)).save(tmp_path / "result.png")
    page = comparison_page(
        [], [], {"a": tmp_path / "photo.jpg"}, {"b": {"a": tmp_path / "result.png"}}, paintings=[], notes=[]
    )
    assert page.html().count('width="20" height="40"') == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"target": "nowhere"}, "nowhere does not exist; expected a folder of images"),
        (
            {"methods": [{"name": "a b", "predict": {}}, {"name": "A-b", "predict": {}}]},
            "two methods have the same name",
        ),
        ({"methods": [{"title": "a"}]}, "there is no option title"),
        ({"methods": []}, "there is no method to compare"),
        ({"methods": [{"name": " ", "predict": {}}]}, "or one has no name"),
        ({"extractor": "eyes"}, "extractor"),
    ],
)
def test_mistakes_get_one_line(cyclestyle, inputs, tmp_path, change, text):
    config = {**yaml.safe_load((inputs / "compare.yaml").read_text()), **change}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    status, _, err = cyclestyle("compare", "--config", tmp_path / "wrong.yaml", "--input", inputs / "photos",
                                "--output", tmp_path / "out")  # fmt: skip
    assert status == 1
    assert text in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
