"""Every option of Lightning's Trainer works in a tiny fit, or is refused in one line before anything is written."""

import csv
import re

import pytest
import torch
import yaml

from cyclestyle.commands.fit.trainer_options import check_training, name_devices
from cyclestyle.errors import CycleStyleError


@pytest.fixture
def fit(cyclestyle, tiny_fit, tmp_path):
    """Run a tiny fit with further options: `fit("--trainer.max_steps=2") -> (status, stdout, stderr)`."""
    root = f"--trainer.default_root_dir={tmp_path / 'run'}"
    return lambda *words: cyclestyle(*tiny_fit, root, "--evaluation.extractor=none", *words)


def steps(folder):
    """The optimiser steps of which a row is in the log."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss_G"]]


CALLBACK = "--trainer.callbacks+="


NEUTRAL = [
    *("--trainer.limit_val_batches=0.5", "--trainer.val_check_interval=0.5", "--trainer.num_sanity_val_steps=-1"),
    *("--trainer.inference_mode=false", "--trainer.deterministic=true", "--trainer.profiler=simple"),
    *("--trainer.max_time=00:00:05:00", "--trainer.enable_model_summary=true", "--best.every_n_epochs=1"),
    *(f"{CALLBACK}ModelCheckpoint", "--trainer.callbacks.every_n_epochs=1"),
    *(f"{CALLBACK}EarlyStopping", "--trainer.callbacks.monitor=val/cycle"),
    *(f"{CALLBACK}Timer", "--trainer.callbacks.duration=00:00:05:00"),
    *(f"{CALLBACK}LearningRateMonitor", "--trainer.logger=CSVLogger"),
]
"""Options that change neither the number of steps nor each other."""


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (NEUTRAL, 7),
        (["--trainer.overfit_batches=2", f"{CALLBACK}ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"], 2),
        (["--trainer.overfit_batches=0.5", "--trainer.logger=pytorch_lightning.loggers.CSVLogger"], 3),
        (["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=0"], 2),
        (["--trainer.limit_train_batches=0.5", "--trainer.check_val_every_n_epoch=2", "--trainer.logger=true"], 3),
        (["--trainer.val_check_interval=5", "--trainer.check_val_every_n_epoch=null", "--trainer.max_steps=5"], 5),
        (["--trainer.reload_dataloaders_every_n_epochs=1", "--model.constant_epochs=2"], 14),
        (["--trainer.accumulate_grad_batches=2", "--trainer.enable_checkpointing=false"], 4),
        (["--trainer.logger=CSVLogger", "--trainer.logger+=CSVLogger"], 7),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_work(fit, tmp_path, words, count):
    status, _, error = fit(*words)
    assert status == 0, error
    run = tmp_path / "run"
    found = steps(run)
    if "CSVLogger+" not in " ".join(words) and "+=CSVLogger" not in " ".join(words):
        assert len(set(found)) == count
    assert (run / "config.yaml").is_file()
    assert (run / "checkpoints" / "last.ckpt").is_file() == ("--trainer.enable_checkpointing=false" not in words)
    assert not (run / "hparams.yaml").exists()
    assert not list(run.rglob(".*"))  # neither locks nor temporary files stay


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.max_epochs=0"], "trainer.max_epochs is 0, so that nothing would be trained"),
        (["--trainer.max_steps=0"], "trainer.max_steps is 0, so that nothing would be trained"),
        (["--trainer.limit_train_batches=0"], "trainer.limit_train_batches is 0, so that nothing would be trained"),
        (["--trainer.barebones=true"], "trainer.barebones leaves out logs and checkpoints"),
        (["--trainer.devices=99", "--trainer.accelerator=cpu"], "trainer.devices is 99, but there are"),
        (["--trainer.devices=0", "--trainer.accelerator=cpu"], "devices"),
        ([f"{CALLBACK}LearningRateFinder"], "LearningRateFinder cannot be used here"),
        ([f"{CALLBACK}StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"], "--ema.decay"),
        (["--trainer.profiler=fast"], "profiler"),
        (["--trainer.devices=-3", "--trainer.accelerator=cpu"], "should be an int > 0"),
        (["--trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches must be at least 1, got 0"),
        (["--trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch must be at least 1, got 0"),
        (["--trainer.val_check_interval=0"], "trainer.val_check_interval is 0"),
        (["--trainer.log_every_n_steps=-1"], "trainer.log_every_n_steps must be at least 0, got -1"),
        (["--trainer.enable_progress_bar=null", "--progress.refresh_rate=-1"], "refresh_rate must be at least 0"),
        (["--seed_everything=-1"], "seed_everything must be from 0 to 4294967295, got -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_is_refused(fit, tmp_path, words, message):
    status, _, error = fit(*words)
    assert status == 1
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_one_device_is_the_default(cyclestyle, command, capsys):
    """All GPUs of a machine would change the batch and the number of steps of a config without a word."""
    words = ["--model=CycleGAN", "--data=UnpairedImages", "--data.root=photos"]
    with pytest.raises(SystemExit):
        cyclestyle(command, *words, "--print_config")
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["devices"] == 1


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ({"devices": 1}, "using 1 of 4 GPUs; --trainer.devices 4 uses all of them, each with its own batches\n"),
        ({"devices": 4}, ""),
        ({"devices": "auto"}, ""),
        ({"devices": 1, "accelerator": "cpu"}, ""),
    ],
)
def test_a_line_says_how_to_use_more_gpus(monkeypatch, capsys, trainer, line):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    name_devices(trainer)
    assert capsys.readouterr().out == line


def test_a_training_on_a_gpu_cannot_be_deterministic(monkeypatch):
    """PyTorch has no deterministic gradients of paddings and interpolations there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(CycleStyleError, match=r"use trainer\.deterministic warn"):
        check_training({"deterministic": True})
    for trainer in ({"deterministic": "warn"}, {"deterministic": True, "accelerator": "cpu"}):
        check_training(trainer)


def test_overfitting_repeats_the_same_crops(fit, tmp_path):
    """Every epoch sees the same batches: the discriminator losses on real images would differ otherwise."""
    words = ["--trainer.overfit_batches=1", "--model.constant_epochs=3", "--model.lr=1e-12"]
    status, _, error = fit(*words)
    assert status == 0, error
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        losses = {row["train/cycle_A"] for row in csv.DictReader(file) if row["train/cycle_A"]}
    assert len(losses) == 1


@pytest.mark.parametrize("value", ["true", "3"])
def test_a_trial_writes_nothing(fit, tmp_path, value):
    status, _, error = fit(f"--trainer.fast_dev_run={value}")
    assert status == 0, error
    assert not (tmp_path / "run").exists()


def test_early_stopping_says_that_and_why_it_stopped(fit):
    words = [f"{CALLBACK}EarlyStopping", "--trainer.callbacks.monitor=val/cycle", "--trainer.callbacks.patience=1"]
    words += ["--trainer.callbacks.min_delta=100", "--model.constant_epochs=9", "--trainer.max_epochs=9"]
    status, output, error = fit(*words)
    assert status == 0, error
    assert "stopped early: Monitored metric val/cycle did not improve in the last 1 records" in output


def test_early_stopping_by_an_unknown_figure_names_the_known_ones(fit):
    status, _, error = fit(f"{CALLBACK}EarlyStopping", "--trainer.callbacks.monitor=val/loss_G")
    assert status == 1
    assert "early stopping goes by val/loss_G, which no validation gives; choose one of val/" in error
    assert "val/cycle, " in error


def test_overlays_that_both_add_callbacks_add_up(cyclestyle, tiny_fit, tmp_path):
    for name, callback in (("one", "LearningRateMonitor"), ("two", "ModelSummary")):
        (tmp_path / f"{name}.yaml").write_text(f"trainer:\n  callbacks:\n    - class_path: {callback}\n")
    words = [*(f"--config={tmp_path / name}.yaml" for name in ("one", "two"))]
    status, _, error = cyclestyle(*tiny_fit, *words, f"--trainer.default_root_dir={tmp_path / 'run'}")
    assert status == 0, error
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert "LearningRateMonitor" in saved
    assert "ModelSummary" in saved


def test_tensorboard_has_scalars_and_grids_in_the_folder_of_the_run_and_continues(fit, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["--trainer.logger=TensorBoardLogger"]
    assert fit(*words)[0] == 0
    status, _, error = fit(*words, "--ckpt_path=last", "--model.constant_epochs=2")
    assert status == 0, error
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("train/loss_G")] == list(range(14))
    assert {event.step for event in found.Images("samples")} >= {7, 14}
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.slow
def test_mlflow_continues_its_run(fit, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    words = ["--trainer.logger=MLFlowLogger"]
    assert fit(*words)[0] == 0
    assert fit(*words, "--ckpt_path=last", "--model.constant_epochs=2")[0] == 0
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    run = (tmp_path / "run" / "mlflow_run_id.txt").read_text().strip()
    history = client.get_metric_history(run, "train/loss_G")
    assert sorted(one.step for one in history) == list(range(14))


def test_a_missing_package_is_named(fit, monkeypatch):
    import pytorch_lightning.callbacks.device_stats_monitor as module

    monkeypatch.setattr(module, "_PSUTIL_AVAILABLE", False)
    status, _, error = fit(f"{CALLBACK}DeviceStatsMonitor")
    assert status == 1
    assert "psutil is not installed; `pip install psutil` adds it" in error


def test_the_output_of_a_run_has_no_advertisement(fit):
    status, output, error = fit()
    assert status == 0
    assert not re.search(r"GPU|TPU|FLOP|Tip|Modules in|Seed set|sync_dist", output + error)
    assert len(output.strip().splitlines()) <= 4
