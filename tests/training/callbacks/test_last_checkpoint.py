"""Runs that are stopped, damaged, or out of disk, and how they go on."""

import csv
import os
import shutil
import signal
import subprocess

import pytest
import torch

from cyclestyle.cli import main
from cyclestyle.data.datasets import UnpairedTestSet, UnpairedTrainSet
from cyclestyle.errors import ImageError
from cyclestyle.tasks import CycleGAN, load
from cyclestyle.training import LastCheckpoint
from cyclestyle.weights.checkpoints import read_checkpoint

SCRIPT = "import sys; from kill_and_resume import main; sys.exit(main())"


@pytest.fixture(scope="module")
def words(tiny_fit):
    """Two epochs of seven batches, a step every second batch, validated after the fifth batch and the last."""
    return [
        *tiny_fit,
        "--model.constant_epochs=2",
        "--model.dropout=true",
        "--trainer.accumulate_grad_batches=2",
        "--trainer.val_check_interval=5",
        "--grid.every_n_steps=0",
        "--ckpt_path=last",
    ]


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole")
    assert main([*words, f"--trainer.default_root_dir={run}"]) == 0
    return run


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in csv.DictReader(file)]


def assert_same(run, whole):
    ours, theirs = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (run, whole))
    assert (ours["global_step"], ours["epoch"]) == (theirs["global_step"], theirs["epoch"])
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(weight, ours["state_dict"][name]), name
    for key, state in theirs["optimizer_states"][0]["state"].items():
        assert all(torch.equal(value, ours["optimizer_states"][0]["state"][key][name]) for name, value in state.items())
    for ours_pool, pool in zip(ours["rank_states"][0].values(), theirs["rank_states"][0].values(), strict=True):
        assert torch.equal(ours_pool["images"], pool["images"])
        assert ours_pool["random"] == pool["random"]
    assert torch.equal(ours["random"][0]["cpu"], theirs["random"][0]["cpu"])
    assert rows(run) == rows(whole)


def raise_at(monkeypatch, hook, call, number):
    """Send this process a signal within the nth call of a step."""
    original, calls = getattr(CycleGAN, hook), []

    def step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            calls.append(batch_idx)
            if len(calls) == call:
                signal.raise_signal(number)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(CycleGAN, hook, step)


@pytest.mark.parametrize(
    ("hook", "call", "number"),
    [
        ("training_step", 1, signal.SIGINT),  # while gradients accumulate
        ("training_step", 4, signal.SIGTERM),
        ("training_step", 5, signal.SIGINT),  # a validation follows
        ("training_step", 7, signal.SIGTERM),  # the last of the epoch
        ("validation_step", 2, signal.SIGINT),  # within an epoch
        ("validation_step", 5, signal.SIGTERM),  # at its end
    ],
)
def test_a_signal_writes_a_checkpoint_and_stops(monkeypatch, cyclestyle, words, whole, tmp_path, number, hook, call):
    words = [*words, f"--trainer.default_root_dir={tmp_path}"]
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        raise_at(patched, hook, call, number)
        status, _, error = cyclestyle(*words)
    assert status == 128 + number
    assert f"cyclestyle: stopped by {number.name} at step" in error
    assert "Traceback" not in error
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert signal.getsignal(signal.SIGINT) is handler
    assert cyclestyle(*words)[0] == 0
    assert_same(tmp_path, whole)


def test_slurm_requeues_the_job_and_the_run_resumes(monkeypatch, cyclestyle, words, whole, tmp_path):
    called = tmp_path / "called"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ > {called}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # Lightning then leaves the processes to us
    words = [*(word for word in words if not word.startswith("--ckpt_path"))]
    words.append(f"--trainer.default_root_dir={tmp_path / 'run'}")
    with monkeypatch.context() as patched:
        raise_at(patched, "training_step", 3, signal.SIGUSR1)
        status, _, error = cyclestyle(*words)
    assert status == 128 + signal.SIGUSR1
    assert "stopped by SIGUSR1" in error
    assert called.read_text() == "requeue 123\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert cyclestyle(*words)[0] == 0
    assert_same(tmp_path / "run", whole)


@pytest.fixture(scope="module")
def in_two_parts(words, tmp_path_factory):
    """A run that went on after its first epoch, with a checkpoint before the last one."""
    run = tmp_path_factory.mktemp("parts") / "run"
    words = [*words, f"--trainer.default_root_dir={run}"]
    assert main([*words, "--trainer.max_epochs=1"]) == 0
    assert not (run / "checkpoints" / "previous.ckpt").exists()
    assert main([*words, "--checkpoint.every_n_train_steps=1"]) == 0
    return run


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "missing"])
def test_the_checkpoint_before_a_damaged_one_is_used(cyclestyle, words, whole, in_two_parts, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(in_two_parts, run)
    last = run / "checkpoints" / "last.ckpt"
    words = [*words, f"--trainer.default_root_dir={run}"]
    content = last.read_bytes()
    match damage:
        case "truncated":
            last.write_bytes(content[: len(content) // 3])
        case "empty":
            last.write_bytes(b"")
        case "flipped":
            last.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
        case "missing":
            last.unlink()
    status, _, error = cyclestyle(*words)
    assert status == 0
    warned = [line for line in error.splitlines() if line.startswith("cyclestyle: warning: ")]
    if damage == "missing":
        assert not warned
    else:
        problem = "is damaged or not a checkpoint; use an earlier one"
        problem = "is empty; copy or download it again" if damage == "empty" else problem
        previous = last.with_name("previous.ckpt")
        assert warned == [f"cyclestyle: warning: {last} {problem}; resuming from {previous}"]
    assert_same(run, whole)


def test_a_resume_reads_its_checkpoint_twice(cyclestyle, words, in_two_parts, tmp_path, monkeypatch):
    """Once to check it and its settings, and once as Lightning does; large ones take seconds."""
    shutil.copytree(in_two_parts, tmp_path, dirs_exist_ok=True)
    read, original = [], torch.load

    def load_file(path, *args, **options):
        read.append(str(path))
        return original(path, *args, **options)

    monkeypatch.setattr(torch, "load", load_file)
    assert cyclestyle(*words, f"--trainer.default_root_dir={tmp_path}", "--model.constant_epochs=3")[0] == 0
    assert sum(name.endswith("last.ckpt") for name in read) == 2


def test_nothing_is_overwritten_when_both_are_damaged(cyclestyle, words, in_two_parts, tmp_path):
    shutil.copytree(in_two_parts, tmp_path, dirs_exist_ok=True)
    words = [*words, f"--trainer.default_root_dir={tmp_path}"]
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / "checkpoints" / name).write_bytes(b"damaged")
    status, _, error = cyclestyle(*words)
    assert status == 1
    assert error.splitlines()[-1].startswith(f"cyclestyle: error: {tmp_path / 'checkpoints' / 'previous.ckpt'} is ")
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == b"damaged"


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_checkpoint_that_would_run_code_is_refused(cyclestyle, words, whole, tmp_path):
    content = read_checkpoint(whole / "checkpoints" / "last.ckpt")
    content["hyper_parameters"]["betas"] = Attack(str(tmp_path / "run by the checkpoint"))
    torch.save(content, tmp_path / "evil.ckpt")
    root = f"--trainer.default_root_dir={tmp_path / 'run'}"
    for command in ("fit", "validate", "test"):
        line = [command, *words[1:-1], root, f"--ckpt_path={tmp_path / 'evil.ckpt'}"]
        status, _, error = cyclestyle(*line)
        assert status == 1
        assert (
            "evil.ckpt is not a checkpoint of plain tensors and values; it is not loaded because it could run code"
            in error
        )
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(tmp_path / "evil.ckpt", tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert cyclestyle(*words, root)[0] == 1
    assert not (tmp_path / "run by the checkpoint").exists()


def test_a_config_of_other_networks_is_refused(cyclestyle, words, whole):
    status, _, error = cyclestyle(*words, f"--trainer.default_root_dir={whole}", "--model.ngf=3")
    assert status == 1
    assert "last.ckpt was trained with model.ngf 2, but the config says 3" in error


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte and a half."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs to be root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_with_its_cause_and_leaves_the_last_checkpoint(cyclestyle, words, whole, small_disk):
    words = [*words, f"--trainer.default_root_dir={small_disk / 'run'}"]
    assert cyclestyle(*words, "--trainer.max_epochs=1")[0] == 0
    last = small_disk / "run" / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    with (small_disk / "filler").open("wb") as filler:
        filler.write(b"x" * (shutil.disk_usage(small_disk).free - 60_000))
    status, _, error = cyclestyle(*words)
    assert status == 1
    assert "No space left on device" in error.splitlines()[-1]
    assert str(last.parent) in error.splitlines()[-1]
    assert "Traceback" not in error
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*"))
    (small_disk / "filler").unlink()
    assert cyclestyle(*words)[0] == 0
    assert_same(small_disk / "run", whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_loaded_leaves_the_steps_so_far(
    monkeypatch, cyclestyle, words, whole, tmp_path, workers
):
    words = [*words, f"--trainer.default_root_dir={tmp_path}"]
    original = UnpairedTrainSet.__getitem__

    def fail(self, draw):
        if draw.seed == "0/0/4":  # after four batches, which are two steps
            raise ImageError("cannot read bad.jpg")
        return original(self, draw)

    with monkeypatch.context() as patch:
        patch.setattr(UnpairedTrainSet, "__getitem__", fail)
        status, _, error = cyclestyle(*words, f"--data.workers={workers}")
    assert status == 1
    assert error.splitlines()[-1] == "cyclestyle: error: cannot read bad.jpg"
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2
    assert cyclestyle(*words)[0] == 0
    assert_same(tmp_path, whole)


def test_an_error_in_a_validation_leaves_the_steps_before_it(monkeypatch, cyclestyle, words, whole, tmp_path):
    words = [*words, f"--trainer.default_root_dir={tmp_path}", "--trainer.val_check_interval=7"]
    words += ["--trainer.num_sanity_val_steps=0"]

    def fail(self, index):
        raise ImageError("cannot read bad.bmp")

    with monkeypatch.context() as patch:
        patch.setattr(UnpairedTestSet, "__getitem__", fail)
        assert cyclestyle(*words)[0] == 1
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert cyclestyle(*words)[0] == 0
    ours, theirs = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (tmp_path, whole))
    assert ours["global_step"] == theirs["global_step"]
    assert all(torch.equal(weight, ours["state_dict"][name]) for name, weight in theirs["state_dict"].items())


def test_numbers_that_are_not_finite_stop_the_run(cyclestyle, words, tmp_path):
    words = [*words, f"--trainer.default_root_dir={tmp_path}"]
    assert cyclestyle(*words, "--trainer.max_epochs=1")[0] == 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    status, _, error = cyclestyle(*words, "--model.gan_mode=hinge", "--model.lambda_A=1e39")
    assert status == 1
    line = error.splitlines()[-1]
    assert "train/" in line
    assert "not finite at step 4 of epoch 1, on " in line
    assert "trainA" in line
    assert "trainB" in line
    assert last.read_bytes() == before


def test_killed_at_random_moments(forks):
    """A short version of the slow test."""
    words = [
        "--kills=2",
        "--workers=1",
        "--accumulate=2",
        "--signals",
        "KILL",
        "TERM",
        "--",
        "--page.every_n_seconds=0",
    ]
    result = forks.run(*words, code=SCRIPT, env={"PYTHONPATH": "scripts"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 stops in " in result.stdout
    assert "0 differences" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_killed_many_times(forks, processes, workers, accumulate):
    options = [f"--processes={processes}", f"--workers={workers}", f"--accumulate={accumulate}", "--kills=40"]
    result = forks.run(*options, code=SCRIPT, env={"PYTHONPATH": "scripts"}, timeout=7200)
    assert result.returncode == 0, result.stdout + result.stderr


def test_snapshots_are_kept_and_a_resumed_run_continues_them(cyclestyle, words, samples, tmp_path):
    """Every second epoch; stopped in the third. Each is the state that a run of so many epochs ends with."""
    words = [*words, "--model.constant_epochs=5", "--checkpoint.keep_every_n_epochs=2", "--checkpoint.every_n_epochs=0"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*words, f"--trainer.default_root_dir={whole}"]) == 0
    names = {"last.ckpt", "previous.ckpt", "best.ckpt", "epoch_0002.ckpt", "epoch_0004.ckpt"}
    assert {path.name for path in (whole / "checkpoints").iterdir()} == names
    assert main([*words, f"--trainer.default_root_dir={parts}", "--trainer.max_steps=10"]) == 0
    assert not (parts / "checkpoints" / "epoch_0004.ckpt").exists()
    assert main([*words, f"--trainer.default_root_dir={parts}"]) == 0
    assert_same(parts, whole)
    for name, epochs in (("epoch_0002.ckpt", 2), ("epoch_0004.ckpt", 4)):
        ours, theirs = (read_checkpoint(run / "checkpoints" / name) for run in (parts, whole))
        assert ours["global_step"] == theirs["global_step"] == 4 * epochs
        assert all(torch.equal(weight, theirs["state_dict"][key]) for key, weight in ours["state_dict"].items())
    snapshot = whole / "checkpoints" / "epoch_0002.ckpt"
    assert torch.equal(
        load(snapshot).G_AB.model[1].weight, read_checkpoint(snapshot)["state_dict"]["G_AB.model.1.weight"]
    )
    root = f"--trainer.default_root_dir={whole}"
    status, _, _ = cyclestyle("test", *words[1:], root, "--ckpt_path", snapshot)
    assert status == 0
    assert f"Checkpoint {snapshot}." in (whole / "test" / "report.html").read_text()
    more = ["--input", samples / "testA", "--output", tmp_path / "out"]
    assert cyclestyle("predict", "--ckpt_path", snapshot, *more)[0] == 0
    again = tmp_path / "again"
    resumed = [*words, f"--trainer.default_root_dir={again}", f"--ckpt_path={snapshot}"]
    assert main(resumed) == 0
    theirs = read_checkpoint(whole / "checkpoints" / "last.ckpt")["state_dict"]
    ours = read_checkpoint(again / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(weight, ours[name]) for name, weight in theirs.items())


def test_negative_periods_are_refused():
    with pytest.raises(ValueError, match="keep_every_n_epochs must be 0 or more, got 0, 1 and -1"):
        LastCheckpoint(keep_every_n_epochs=-1)
