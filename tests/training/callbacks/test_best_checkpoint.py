"""Which figure decides on the best checkpoint, and that it stays with the folder of the run."""

import csv
import shutil

import pytest
import torch

from cyclestyle.training import BestCheckpoint
from cyclestyle.weights.checkpoints import read_checkpoint


@pytest.fixture
def one_test_image(samples, tmp_path):
    """The sample domains with a single test image of B, so that KID cannot be computed."""
    shutil.copytree(samples, tmp_path / "data")
    for path in sorted((tmp_path / "data" / "testB").iterdir())[1:]:
        path.unlink()
    return [f"--data.root={tmp_path / 'data'}", f"--trainer.default_root_dir={tmp_path / 'run'}"]


REASON = "KID and FID need two images, but only one test image of B is measured"


def test_where_kid_cannot_be_computed_the_figure_of_the_task_decides(cyclestyle, tiny_fit, one_test_image, tmp_path):
    status, output, error = cyclestyle(*tiny_fit, *one_test_image, "--ema.decay=0.5")
    assert status == 0
    assert f"cyclestyle: warning: {REASON}; val/kid cannot be computed" in error
    assert "best.ckpt goes by val_ema/cycle, because val_ema/kid is nan" in error
    assert "best.ckpt (epoch 1, val_ema/cycle " in output


def test_a_figure_that_is_missing_decides_nothing(cyclestyle, tiny_fit, tmp_path):
    words = [f"--trainer.default_root_dir={tmp_path}", "--best.monitor=val/nix", "--evaluation.extractor=none"]
    words += ["--trainer.num_sanity_val_steps=0"]  # in which it would be refused
    status, output, error = cyclestyle(*tiny_fit, *words)
    assert status == 0
    assert "best.ckpt is not written, and last.ckpt stands for the run" in error
    assert "because val/nix is not logged; there are val/D_A_real, " in error
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["last.ckpt"]
    assert "best:" not in output


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--best.monitor=val/nix"], "best.ckpt goes by val/nix"),
        (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/nix"], "stopping goes by val/nix"),
    ],
)
def test_a_figure_that_no_validation_gives_is_refused_before_the_training(
    cyclestyle, tiny_fit, tmp_path, words, problem
):
    """And the list of the others is that of the validation at the end of an epoch."""
    run = tmp_path / "run"
    options = [*tiny_fit, "--ema.decay=0.5", f"--trainer.default_root_dir={run}"]
    status, _, error = cyclestyle(*options, *words)
    assert status == 1
    assert f"{problem}, which no validation gives; choose one of val/" in error
    assert not (run / "checkpoints").exists()
    assert cyclestyle(*options)[0] == 0
    with (run / "metrics.csv").open(newline="") as file:
        logged = {name for name in next(csv.reader(file)) if name.startswith("val")}
    listed = set(error.rpartition("choose one of ")[2].strip().split(", "))
    assert logged - listed == set()
    assert {name.replace("val_ema/", "val/") for name in listed - logged} <= {
        f"val/D_{domain}_real{suffix}" for domain in "AB" for suffix in ("", "_train")
    }


def test_early_stopping_without_a_validation_is_refused(cyclestyle, tiny_fit, tmp_path):
    words = [f"--trainer.default_root_dir={tmp_path / 'run'}", "--trainer.limit_val_batches=0"]
    words += ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/cycle"]
    status, _, error = cyclestyle(*tiny_fit, *words)
    assert status == 1
    assert "early stopping goes by val/cycle, but the run has no validation; leave trainer.limit_val_batches" in error


def test_early_stopping_by_a_figure_that_cannot_be_computed_is_refused(cyclestyle, tiny_fit, one_test_image, tmp_path):
    words = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/kid_BtoA"]
    status, _, error = cyclestyle(*tiny_fit, *one_test_image, *words)
    assert (status, error) == (
        1, f"cyclestyle: error: early stopping goes by val/kid_BtoA. {REASON}; choose another figure\n"
    )  # fmt: skip
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_copied_run_keeps_its_best_checkpoint(cyclestyle, tiny_fit, tmp_path):
    """It used to be replaced by that of the next validation, whatever its figure."""
    run, copy = tmp_path / "run", tmp_path / "copy"
    words = [*tiny_fit, "--best.monitor=val/cycle", "--best.mode=max"]  # it falls from the first epoch on
    assert cyclestyle(*words, f"--trainer.default_root_dir={run}")[0] == 0
    shutil.copytree(run, copy)
    more = [f"--trainer.default_root_dir={copy}", "--ckpt_path=last", "--model.constant_epochs=2"]
    status, output, error = cyclestyle(*words, *more)
    assert status == 0
    assert "dirpath" not in error
    with (copy / "metrics.csv").open(newline="") as file:
        first, second = (float(row["val/cycle"]) for row in csv.DictReader(file) if row["val/cycle"])
    assert first > second
    assert read_checkpoint(copy / "checkpoints" / "best.ckpt")["epoch"] == 0
    assert f"best: {copy}/checkpoints/best.ckpt (epoch 1, val/cycle {first:.4g})" in output


def state(folder, score, monitor="val/kid"):
    path = str(folder / "best.ckpt")
    scores = {"best_k_models": {path: torch.tensor(score)}, "best_model_score": torch.tensor(score)}
    return {"monitor": monitor, **scores}


@pytest.mark.parametrize(
    ("stored", "exists", "score"),
    [
        ((3.0, "val/kid"), True, 3.0),
        ((3.0, "val/kid"), False, None),
        ((3.0, "val/other"), True, None),
        ((float("inf"), "val/kid"), True, None),  # what earlier versions stored for NaN
    ],
)
def test_scores_of_earlier_versions_are_taken_over(tmp_path, stored, exists, score):
    if exists:
        (tmp_path / "best.ckpt").touch()
    best = BestCheckpoint("val/kid", dirpath=str(tmp_path), filename="best")
    earlier = {"ModelCheckpoint{'monitor': 'val/kid', 'mode': 'min'}": state(tmp_path / "elsewhere", *stored)}
    best.on_load_checkpoint(None, None, {"callbacks": earlier})
    assert best.best_model_score == score
    assert best.best_model_path == (str(tmp_path / "best.ckpt") if score else "")
