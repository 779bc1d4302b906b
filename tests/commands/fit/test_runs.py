"""Commands around the folder of a run: looking at a run changes nothing in it, and its config serves again."""

import csv
import shutil

import pytest
import torch
import yaml
from forks import wait_for


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


def test_a_run_that_outlives_its_schedule_by_its_steps_raises_an_alarm(cyclestyle, tiny_fit, tmp_path):
    words = ["--trainer.max_steps=2", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0"]
    status, _, error = cyclestyle(*tiny_fit, f"--trainer.default_root_dir={tmp_path}", *words)
    assert status == 0
    assert "alarm: step 1: the learning rate is 0 from epoch 2 on" in error


def test_the_saved_config_has_what_was_chosen_and_not_what_follows_from_it(cyclestyle, tiny_fit, tmp_path):
    """It used to hold the epochs of the schedule, so that more epochs of the schedule trained nothing."""
    words = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0", "--grid.every_n_steps=0"]
    assert cyclestyle(*tiny_fit, f"--trainer.default_root_dir={tmp_path}", *words)[0] == 0
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (config["trainer"]["max_epochs"], config["best"]["save_top_k"]) == (None, 1)
    saved = ["fit", f"--config={tmp_path / 'config.yaml'}", "--ckpt_path=last"]
    status, output, error = cyclestyle(*saved)
    assert (status, error) == (0, (
        "cyclestyle: warning: nothing was left to train: "
        "model.constant_epochs + model.decay_epochs is 1; raise it to go on\n"
    ))  # fmt: skip
    status, output, _ = cyclestyle(*saved, "--model.constant_epochs=2")
    assert status == 0
    assert "last.ckpt (epoch 2, step 2)" in output
    status, _, error = cyclestyle(*saved, "--model.constant_epochs=1")
    assert status == 1
    assert "last.ckpt is in epoch 2, but model.constant_epochs + model.decay_epochs is 1; raise it" in error
    status, _, error = cyclestyle(*saved, "--model.constant_epochs=3", "--trainer.max_epochs=2")
    assert status == 0
    assert "trainer.max_epochs is 2 (the schedule has 3 epochs); raise it to go on" in error


def test_a_schedule_without_epochs_is_refused(cyclestyle, tiny_fit, tmp_path):
    words = [f"--trainer.default_root_dir={tmp_path / 'run'}", "--model.constant_epochs=0"]
    status, _, error = cyclestyle(*tiny_fit, *words)
    assert status == 1
    assert "model.constant_epochs + model.decay_epochs is 0, so that nothing would be trained" in error
    assert not (tmp_path / "run").exists()


def test_without_a_checkpoint_the_best_of_the_run_is_measured(cyclestyle, tiny_fit, run, tmp_path):
    """It used to be a network with random weights."""
    words = [*tiny_fit[1:], f"--trainer.default_root_dir={run}"]
    best = cyclestyle("validate", *words, f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}")[1]
    assert cyclestyle("validate", *words)[1] == best
    status, _, error = cyclestyle("validate", *words, f"--trainer.default_root_dir={tmp_path / 'empty'}")
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


def test_a_second_fit_in_the_same_folder_is_refused(forks, cyclestyle, tiny_fit, tmp_path):
    """The lock ends with its process, also if that is killed; nothing has to be removed by hand."""
    words = [*tiny_fit, f"--trainer.default_root_dir={tmp_path}", "--data.workers=1", "--model.constant_epochs=5000"]
    first = forks.start(*words)
    wait_for((tmp_path / "checkpoints" / "last.ckpt").exists, first)
    for more in ([], ["--ckpt_path=last"]):
        status, _, error = cyclestyle(*words, *more)
        assert status == 1
        assert f"another process is working in {tmp_path} (process {first.pid} on " in error
    first.kill()
    status, _, error = cyclestyle(*words, "--ckpt_path=last", "--trainer.max_time=00:00:00:00")
    assert status == 0, error
    assert not (tmp_path / ".lock").exists()


def test_images_are_measured_as_the_run_prepared_them(cyclestyle, tiny_fit, run):
    """The config file says 256 pixels; the run was trained with 32 by an option. It used to be measured at 256."""
    data = next(word for word in tiny_fit if word.startswith("--data.root"))
    words = ["--config=cyclegan", data, f"--trainer.default_root_dir={run}", "--data.workers=0"]
    as_trained = cyclestyle("validate", *words, "--data.crop_size=32", "--data.load_size=36")
    assert as_trained[0] == 0, as_trained[2]
    assert "warning" not in as_trained[2]
    assert cyclestyle("validate", *words)[1] == as_trained[1]
    status, output, error = cyclestyle("validate", *words, "--data.crop_size=16", "--data.load_size=16")
    assert status == 0
    assert "measuring with data.crop_size 16; " in error
    assert output != as_trained[1]


def test_a_changed_batch_size_is_named_and_applied_from_the_next_epoch(cyclestyle, tiny_fit, run):
    """Lightning would continue the complete first epoch, which has more batches now than it had."""
    root = f"--trainer.default_root_dir={run}"
    words = [*tiny_fit, root, "--ckpt_path=last", "--model.constant_epochs=3"]
    assert cyclestyle(*words, "--data.batch_size=2", "--trainer.max_epochs=2")[0] == 0
    status, _, error = cyclestyle(*words, "--data.batch_size=1")
    assert status == 0, error
    assert "continuing with data.batch_size 1; " in error
    assert "trained with 2" in error
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss_G"]]
    epochs = [int(row["epoch"]) for row in rows]
    assert [epochs.count(epoch) for epoch in range(3)] == [7, 4, 7]
    assert [int(row["step"]) for row in rows] == list(range(18))


def test_an_interrupted_epoch_is_not_continued_with_another_batch_size(cyclestyle, tiny_fit, tmp_path):
    words = [*tiny_fit, f"--trainer.default_root_dir={tmp_path}"]
    assert cyclestyle(*words, "--trainer.max_steps=3")[0] == 0
    status, _, error = cyclestyle(*words, "--ckpt_path=last", "--data.batch_size=2")
    assert status == 1
    assert "the run was interrupted within an epoch of 7 batches, which has 4 now; resume with" in error


def test_steps_are_counted_on_where_max_steps_is_given_on_resuming(cyclestyle, tiny_fit, run):
    words = [*tiny_fit, f"--trainer.default_root_dir={run}", "--ckpt_path=last", "--model.constant_epochs=3"]
    assert cyclestyle(*words, "--trainer.max_steps=10")[0] == 0
    with (run / "metrics.csv").open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["train/loss_G"]] == list(range(10))


def test_predict_takes_the_config_of_a_run(cyclestyle, run, samples, tmp_path):
    words = ["--input", samples / "testA", "--output", tmp_path / "out"]
    status, output, error = cyclestyle("predict", "--config", run / "config.yaml", *words)
    assert status == 0, error
    assert "3 images written" in output


def test_predict_takes_no_options_of_training(cyclestyle, run, samples, tmp_path):
    words = ["--ckpt_path", run, "--input", samples / "testA", "--output", tmp_path / "out"]
    status, _, error = cyclestyle("predict", *words, "--trainer.max_epochs=3")
    assert status == 1
    assert "unrecognized arguments: --trainer.max_epochs" in error
    assert not (tmp_path / "out").exists()


def test_lines_take_the_place_of_the_bar_where_there_is_no_terminal(cyclestyle, tiny_fit, tmp_path):
    words = [word for word in tiny_fit if "enable_progress_bar" not in word]
    root = f"--trainer.default_root_dir={tmp_path}"
    status, output, _ = cyclestyle(*words, root, "--progress.line_every_n_steps=3", "--model.constant_epochs=2")
    assert status == 0
    lines = [line for line in output.splitlines() if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines if "loss_G" in line] == [
        "epoch 1/2, step 3",
        "epoch 1/2, step 6",
        "epoch 1/2, step 7",
        "epoch 2/2, step 9",
        "epoch 2/2, step 12",
        "epoch 2/2, step 14",
    ]
    assert sum("val/kid" in line for line in lines) == 2
    assert "\r" not in output


def test_a_run_that_is_stopped_before_the_last_batch_of_an_epoch_trains_it(cyclestyle, tiny_fit, tmp_path):
    """Lightning has marked the batch as the last one already, which must not count as a complete epoch."""
    whole = [*tiny_fit, f"--trainer.default_root_dir={tmp_path / 'whole'}", "--model.constant_epochs=2"]
    assert cyclestyle(*whole)[0] == 0
    parts = [*tiny_fit, f"--trainer.default_root_dir={tmp_path / 'parts'}", "--model.constant_epochs=2"]
    for steps in (6, 13):
        assert cyclestyle(*parts, "--ckpt_path=last", f"--trainer.max_steps={steps}")[0] == 0
    assert cyclestyle(*parts, "--ckpt_path=last")[0] == 0
    last = [torch.load(tmp_path / one / "checkpoints" / "last.ckpt", weights_only=True) for one in ("whole", "parts")]
    assert [one["global_step"] for one in last] == [14, 14]
    assert all(torch.equal(value, last[1]["state_dict"][name]) for name, value in last[0]["state_dict"].items())
