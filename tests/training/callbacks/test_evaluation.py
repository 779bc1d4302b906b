import csv
import json
import shutil

import pytest
import torch

from cyclestyle.data.transforms import Preparation
from cyclestyle.images import read_image, to_tensor
from cyclestyle.metrics import build_extractor, content_distance, set_distance
from cyclestyle.training import Evaluation
from cyclestyle.training.callbacks.evaluation import append_step
from cyclestyle.translator import Translator


@pytest.fixture(scope="module")
def run(tiny_fit, samples, tmp_path_factory):
    """A run whose domain B has fewer test images than A, with averaged generators."""
    from cyclestyle.cli import main

    folder = tmp_path_factory.mktemp("evaluated")
    for split in ("trainA", "trainB", "testA", "testB"):
        (folder / "data" / split).mkdir(parents=True)
        for path in sorted((samples / split).iterdir())[: 2 if split == "testB" else None]:
            (folder / "data" / split / path.name).symlink_to(path)
    words = [*tiny_fit, f"--data.root={folder / 'data'}", "--model.constant_epochs=2", "--ema.decay=0.5"]
    assert main([*words, f"--trainer.default_root_dir={folder / 'run'}"]) == 0
    return folder


def make_images(folder):
    prepare = Preparation(load_size=36, crop_size=32)
    return torch.stack([to_tensor(prepare.for_evaluation(read_image(path))) for path in sorted(folder.iterdir())])


@pytest.mark.parametrize("variant", ["raw", "ema"])
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_figures_are_those_of_the_images(run, variant, direction):
    last = json.loads((run / "run" / "evaluation.jsonl").read_text().splitlines()[-1])
    source, target = direction[0], direction[-1]
    images = make_images(run / "data" / f"test{source}")
    translator = Translator.load(run / "run" / "checkpoints" / "last.ckpt", direction=direction, averaging=variant)
    fakes = translator.translate(images)
    extractor = build_extractor()
    expected = set_distance(extractor(make_images(run / "data" / f"train{target}")), extractor(fakes), "statistics")
    found = last[f"{variant} {direction}"]
    assert found["kid"] == pytest.approx(expected.kid, rel=1e-3, abs=1e-4)
    assert found["fid"] == pytest.approx(expected.fid, rel=1e-3, abs=1e-4)
    assert (found["extractor"], found["reals"], found["fakes"]) == ("statistics", 7, {"A": 3, "B": 2}[source])
    assert found["content"] == pytest.approx(content_distance(extractor, images, fakes).mean().item(), rel=1e-3)


def test_figures_are_logged_and_decide_which_checkpoint_is_best(run):
    with (run / "run" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/kid"]]
    assert len(rows) == 2
    for name in ("val/kid_AtoB", "val/fid_BtoA", "val/cycle_psnr_AtoB", "val_ema/kid", "val_ema/structure_BtoA"):
        assert all(row[name] for row in rows)
    best = torch.load(run / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    kids = [float(row["val_ema/kid"]) for row in rows]  # of the weights that predict uses
    assert best["global_step"] == [7, 14][kids.index(min(kids))]


def test_validate_leaves_the_history_of_the_run(cyclestyle, tiny_fit, checkpoint, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(checkpoint.parents[1], run)
    before = (run / "evaluation.jsonl").read_text()
    assert cyclestyle("validate", *tiny_fit[1:], f"--trainer.default_root_dir={run}", "--ckpt_path=last")[0] == 0
    assert before
    assert (run / "evaluation.jsonl").read_text() == before


def test_without_evaluation_the_cycle_error_decides(cyclestyle, tiny_fit, tmp_path):
    root = f"--trainer.default_root_dir={tmp_path}"
    assert cyclestyle(*tiny_fit, "--evaluation.extractor=none", root)[0] == 0
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert not (tmp_path / "evaluation.jsonl").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--evaluation.extractor=clip", "clip"),
        ("--evaluation.extractor=vgg", "the extractor vgg needs a file"),
        ("--evaluation.max_reals=1", "max_reals must be at least 2, got 1"),
    ],
)
def test_mistakes_get_one_line(cyclestyle, tiny_fit, tmp_path, word, message):
    status, _, error = cyclestyle(*tiny_fit, f"--trainer.default_root_dir={tmp_path}", word)
    assert status == 1
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


def test_lines_of_a_future_that_a_resumed_run_takes_again_are_dropped(tmp_path):
    for step in (10, 20, 30, 20):
        append_step(tmp_path / "e.jsonl", {"step": step})
    assert [json.loads(line)["step"] for line in (tmp_path / "e.jsonl").read_text().splitlines()] == [10, 20]


def test_the_default_needs_no_file():
    assert Evaluation().extractor.name == "statistics"
