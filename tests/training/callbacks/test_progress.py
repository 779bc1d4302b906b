import re
from types import SimpleNamespace

import pytest
import torch

from cyclestyle.training.callbacks import progress
from cyclestyle.training.callbacks.progress import ProgressBar
from cyclestyle.training.callbacks.speed import Speed


def test_time_left_is_that_of_the_whole_run(monkeypatch):
    clock = iter([100.0, 160.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    trainer = SimpleNamespace(global_step=50, training=True, estimated_stepping_batches=1000)
    trainer.callback_metrics = {"train/loss_G": torch.tensor(1.5), "train/cycle_A": torch.tensor(1.0)}
    bar = ProgressBar()
    bar._time._start = progress.time.monotonic(), 50
    trainer.global_step = 80  # 30 steps in 60 seconds, 920 to go
    assert bar.get_metrics(trainer, None) == {"loss_G": 1.5, "left": "0:30:40"}


def test_one_line_says_how_long_a_run_takes(cyclestyle, tiny_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LONG", -1)  # any time is a long one
    words = [*tiny_fit, "--trainer.enable_progress_bar=true", f"--trainer.default_root_dir={tmp_path}"]
    status, out, error = cyclestyle(*words, "--model.decay_epochs=1")  # 14 steps
    assert status == 0, error
    (line,) = (line for line in out.splitlines() if "s a step" in line)
    assert re.fullmatch(r"[\d.e-]+ s a step, about 0:00:\d\d for the 1 steps that are left; .*monet_small", line)


def test_images_per_second_counts_all_processes_and_leaves_validation_out(monkeypatch):
    times = iter([0.0, 2.0, 50.0, 52.0])
    monkeypatch.setattr("cyclestyle.training.callbacks.speed.time.perf_counter", lambda: next(times))
    logged = {}
    module = SimpleNamespace(log=lambda name, value, **_: logged.__setitem__(name, value))
    group = {"lr": 0.1}
    trainer = SimpleNamespace(world_size=3, optimizers=[SimpleNamespace(param_groups=[group])])
    speed = Speed()
    batch = {"A": torch.zeros(2, 3, 4, 4)}
    speed.on_train_batch_end(trainer, module, None, batch, 0)
    assert "train/images_per_second" not in logged
    speed.on_train_batch_end(trainer, module, None, batch, 1)
    speed.on_validation_end(trainer, module)
    for index in (2, 3):
        speed.on_train_batch_end(trainer, module, None, batch, index)
    assert logged == {"train/images_per_second": pytest.approx(3.0), "train/lr": 0.1}
