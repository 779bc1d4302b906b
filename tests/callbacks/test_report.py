import json
import shutil

import pytest

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


def test_an_unusable_checkpoint_raises_an_error(cyclestyle, tiny_fit, tmp_path):
    root = f"--trainer.default_root_dir={tmp_path}"
    for name, message in (("last", "holds no checkpoint; train first"), ("best", "best.ckpt does not exist")):
        status, _, error = cyclestyle("test", *tiny_fit[1:], root, f"--ckpt_path={name}")
        assert status == 1
        assert message in error
