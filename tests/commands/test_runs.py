"""Commands around the folder of a run: looking at a run changes nothing in it, and its config serves again."""

import csv
import shutil

import pytest
import torch
import yaml


@pytest.fixture
def run(checkpoint, tmp_path):
    """A copy of a finished run."""
    shutil.copytree(checkpoint.parents[1], tmp_path / "run")
    return tmp_path / "run"


def content(folder, *names):
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("command", ["test", "validate"])
def test_measuring_with_the_saved_config_does_not_change_the_run(cyclestyle, run, command):
    before = content(run, "metrics.csv", "config.yaml", "checkpoints/last.ckpt")
    root = f"--trainer.default_root_dir={run}"
    status, _, error = cyclestyle(command, "--config", run / "config.yaml", root)
    assert status == 0, error
    assert content(run, *before) == before


def test_a_saved_config_trains_into_another_folder(cyclestyle, run, tmp_path):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    new = tmp_path / "new"
    status, _, error = cyclestyle("fit", "--config", run / "config.yaml", f"--trainer.default_root_dir={new}")
    assert status == 0, error
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    ours, theirs = (torch.load(one / "checkpoints" / "last.ckpt", weights_only=True) for one in (new, run))
    assert all(torch.equal(ours["state_dict"][name], value) for name, value in theirs["state_dict"].items())
    assert (new / "metrics.csv").read_text().count("\n") == (run / "metrics.csv").read_text().count("\n")


def test_a_resumed_run_does_not_store_its_checkpoint_in_the_config(cyclestyle, tiny_fit, run):
    words = [f"--trainer.default_root_dir={run}", "--ckpt_path=last", "--model.constant_epochs=2"]
    assert cyclestyle(*tiny_fit, *words)[0] == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["ckpt_path"] is None
    assert config["trainer"]["logger"]["init_args"]["save_dir"] is None


def test_a_changed_rate_is_applied_and_named(cyclestyle, tiny_fit, run):
    """It used to be ignored, while config.yaml had the new rate."""
    words = [f"--trainer.default_root_dir={run}", "--ckpt_path=last", "--model.constant_epochs=2", "--model.lr=0.01"]
    status, _, error = cyclestyle(*tiny_fit, *words)
    assert status == 0, error
    assert "warning: continuing with model.lr 0.01; " in error
    assert "warning: continuing with model.constant_epochs 2; " in error
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert [group["lr"] for group in last["optimizer_states"][0]["param_groups"]] == [0.01, 0.01]
    with (run / "metrics.csv").open(newline="") as file:
        rates = [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]
    assert rates == pytest.approx([2e-4] * 7 + [0.01] * 7)


def test_epochs_after_the_schedule_are_warned_of(cyclestyle, tiny_fit, tmp_path):
    words = [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=2", "--trainer.limit_train_batches=1"]
    status, _, error = cyclestyle(*tiny_fit, *words)
    assert status == 0
    assert "the learning rate is 0 after 1 epochs, but trainer.max_epochs is 2" in error


@pytest.mark.parametrize("command", ["test", "validate"])
def test_without_a_checkpoint_the_best_of_the_run_is_measured(cyclestyle, tiny_fit, run, tmp_path, command):
    """It used to be a network with random weights."""
    words = [*tiny_fit[1:], f"--trainer.default_root_dir={run}"]
    best = cyclestyle(command, *words, f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}")[1]
    assert cyclestyle(command, *words)[1] == best
    status, _, error = cyclestyle(command, *words, f"--trainer.default_root_dir={tmp_path / 'empty'}")
    assert status == 1
    assert "empty has no checkpoints/best.ckpt or checkpoints/last.ckpt; train first" in error


def test_the_folder_of_a_run_stands_for_its_best_checkpoint(cyclestyle, run, samples, tmp_path):
    for name, ckpt in (("folder", run), ("file", run / "checkpoints" / "best.ckpt")):
        words = ["--input", samples / "testA", "--output", tmp_path / name, "--ckpt_path", ckpt]
        assert cyclestyle("predict", *words)[0] == 0
    images = sorted(path.name for path in (samples / "testA").iterdir())
    assert content(tmp_path / "folder", *images) == content(tmp_path / "file", *images)


def test_a_dry_run_writes_no_config(cyclestyle, tiny_fit, tmp_path):
    words = ["--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path / 'dry'}"]
    assert cyclestyle(*tiny_fit, *words)[0] == 0
    assert not (tmp_path / "dry" / "config.yaml").exists()
