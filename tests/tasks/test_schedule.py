"""Learning-rate policies against PyTorch's own schedulers, in training, and when a run is resumed."""

import csv
import random
import shutil

import pytest
import pytorch_lightning as pl
import torch
from test_contract import Alternating, batches, trained
from torch.optim import lr_scheduler

from cyclestyle.cli import main
from cyclestyle.tasks import Task
from cyclestyle.tasks.schedule import Plateau, Schedule
from cyclestyle.weights.checkpoints import read_checkpoint


def rates_of_torch(scheduler, epochs, **settings):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    built = scheduler(optimizer, **settings)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        built.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(lr_policy="step"), lambda: rates_of_torch(lr_scheduler.StepLR, 200, step_size=50, gamma=0.1)),
        (
            Schedule(lr_policy="step", lr_step_epochs=3, lr_factor=0.5),
            lambda: rates_of_torch(lr_scheduler.StepLR, 200, step_size=3, gamma=0.5),
        ),
        (
            Schedule(lr_policy="cosine", constant_epochs=150, decay_epochs=50),
            lambda: rates_of_torch(lr_scheduler.CosineAnnealingLR, 200, T_max=200, eta_min=0),
        ),
        (
            Schedule(constant_epochs=100, decay_epochs=100),
            lambda: [1 - max(0, epoch + 1 - 100) / 101 for epoch in range(200)],  # epoch_count is 1
        ),
        (Schedule(), lambda: [1.0] * 200),
    ],
    ids=["step", "step with its own settings", "cosine", "linear", "no end"],
)
def test_the_rate_of_every_epoch_is_that_of_the_original(schedule, expected):
    assert [schedule.at_epoch(epoch) for epoch in range(200)] == pytest.approx(expected(), abs=1e-12)


def test_linear_and_cosine_end_at_zero():
    for policy in ("linear", "cosine"):
        schedule = Schedule(lr_policy=policy, constant_epochs=3, decay_epochs=2)
        assert schedule.at_epoch(4) > 0
        assert schedule.at_epoch(5) == schedule.at_epoch(9) == 0


@pytest.mark.parametrize("patience", [0, 2, 5])
def test_plateau_is_that_of_torch(patience):
    rng = random.Random(patience)
    figures = [rng.uniform(0.5, 1) * 0.97**n for n in range(60)]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, threshold=0.01, patience=patience, eps=0)
    ours = Plateau(0.2, patience)
    reductions = set()
    for figure in figures:
        theirs.step(figure)
        ours.observe(figure)
        ours.observe(float("nan"))  # a figure that could not be computed is none
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        reductions.add(ours.factor)
    assert len(reductions) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_policy": "poly"}, "lr_policy must be one of linear, step, plateau, cosine, got 'poly'"),
        ({"lr_warmup_steps": -1}, "lr_warmup_steps must not be below 0, got -1"),
        ({"lr_step_epochs": 0}, "lr_step_epochs must be above 0, got 0"),
        ({"lr_factor": 1.0}, "lr_factor must be above 0 and below 1, got 1.0"),
        ({"lr_policy": "cosine"}, "set constant_epochs"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**settings)


class Rates(pl.Callback):
    """Keeps the rate of every step of each parameter group."""

    def __init__(self):
        self.rates = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        groups = trainer.optimizers[0].param_groups
        self.rates.append(groups[0]["lr"])
        assert {group["lr"] for group in groups} == {groups[0]["lr"]}


class Scheduled(Alternating):
    """A task that takes the options of the base class."""

    learning_rate_factor = Task.learning_rate_factor

    def __init__(self, lr=1.0, **schedule):
        super().__init__(lr=lr)
        self.schedule = Schedule(**schedule)


def test_warm_up_rises_step_by_step_and_multiplies_the_policy():
    rates = Rates()
    task = Scheduled(lr_policy="step", lr_step_epochs=1, lr_factor=0.5, lr_warmup_steps=4)
    trained(task, batches(3), epochs=2, callbacks=[rates])
    assert rates.rates == pytest.approx([0.25, 0.5, 0.75, 0.5, 0.5, 0.5])


def test_warm_up_counts_optimiser_steps_where_gradients_accumulate():
    rates = Rates()
    trained(Scheduled(lr_warmup_steps=2), batches(6), callbacks=[rates], accumulate_grad_batches=2)
    assert rates.rates == pytest.approx([0.5, 0.5, 1, 1, 1, 1])


# Runs


@pytest.fixture
def rows():
    def read(run):
        with (run / "metrics.csv").open(newline="") as file:
            return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in csv.DictReader(file)]

    return read


def assert_same(run, whole):
    ours, theirs = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (run, whole))
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(weight, ours["state_dict"][name]), name
    for key, state in theirs["optimizer_states"][0]["state"].items():
        assert all(torch.equal(value, ours["optimizer_states"][0]["state"][key][name]) for name, value in state.items())
    assert ours.get("plateau") == theirs.get("plateau")
    assert ours["global_step"] == theirs["global_step"]


POLICIES = {
    "plateau": ["--model.lr_policy=plateau", "--model.lr_patience=0", "--model.lr_factor=0.5", "--model.lr=1e-9"],
    "step": ["--model.lr_policy=step", "--model.lr_step_epochs=1"],
    "cosine": ["--model.lr_policy=cosine", "--model.lr_warmup_steps=9"],
}


@pytest.mark.parametrize(("policy", "stop"), [("plateau", 9), ("step", 14), ("cosine", 9)])
def test_a_resumed_run_has_the_rates_of_an_uninterrupted_one(tiny_fit, tmp_path, rows, policy, stop):
    """Weights that hardly move make no figure better by 1 %, so that `plateau` halves the rate from epoch 2 on."""
    words = [*tiny_fit, *POLICIES[policy], "--model.constant_epochs=4", "--grid.every_n_steps=0"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*words, f"--trainer.default_root_dir={whole}"]) == 0
    resumed = [*words, f"--trainer.default_root_dir={parts}", "--ckpt_path=last"]
    assert main([*resumed, f"--trainer.max_steps={stop}"]) == 0
    assert main(resumed) == 0
    assert_same(parts, whole)
    assert rows(parts) == rows(whole)
    rates = [float(row["train/lr"]) for row in rows(whole) if row["train/lr"]]
    if policy == "plateau":
        assert rates == pytest.approx([1e-9] * 14 + [0.5e-9] * 7 + [0.25e-9] * 7)
    if policy == "step":
        assert rates == pytest.approx([2e-4 * 0.1**epoch for epoch in range(4) for _ in range(7)])


def test_a_run_resumed_from_the_best_checkpoint_keeps_what_plateau_has_seen(tiny_fit, tmp_path):
    words = [*tiny_fit, *POLICIES["plateau"], "--model.constant_epochs=4", "--best.monitor=val/cycle"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*words, f"--trainer.default_root_dir={whole}"]) == 0
    shutil.copytree(whole, parts)
    best = parts / "checkpoints" / "best.ckpt"
    assert main([*words, f"--trainer.default_root_dir={parts}", f"--ckpt_path={best}"]) == 0
    assert_same(parts, whole)


def test_a_changed_rate_is_applied_by_every_policy(tiny_fit, tmp_path, rows):
    words = [*tiny_fit, *POLICIES["plateau"], f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=last"]
    assert main([*words, "--model.constant_epochs=3"]) == 0
    assert main([*words, "--model.constant_epochs=4", "--model.lr=4e-9"]) == 0
    assert [float(row["train/lr"]) for row in rows(tmp_path) if row["train/lr"]][-7:] == pytest.approx([1e-9] * 7)


def test_plateau_needs_a_validation(cyclestyle, tiny_fit, tmp_path):
    words = ["--model.lr_policy=plateau", "--trainer.limit_val_batches=0", f"--trainer.default_root_dir={tmp_path}"]
    status, _, error = cyclestyle(*tiny_fit, *words)
    assert status == 1
    assert error.splitlines()[-1].startswith(
        "cyclestyle: error: model.lr_policy plateau follows val/cycle, but the run has no validation; leave"
    )


def test_epochs_after_a_schedule_that_does_not_end_are_not_warned_of(cyclestyle, tiny_fit, tmp_path):
    words = [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=2", "--trainer.limit_train_batches=1"]
    status, _, error = cyclestyle(*tiny_fit, *words, "--model.lr_policy=step")
    assert status == 0
    assert "the learning rate is 0" not in error


def test_johnson_takes_the_options_too(cyclestyle, samples, tmp_path):
    words = ["--config=johnson", "--model.weights=random", f"--model.style=[{next((samples / 'testB').iterdir())}]"]
    words += [f"--data.train=[{samples / 'trainA'}]", f"--data.test=[{samples / 'testA'}]", "--data.workers=0"]
    words += ["--data.load_size=32", "--data.crop_size=32", "--model.width=2", "--trainer.max_steps=3"]
    words += ["--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false", "--model.lr_warmup_steps=4"]
    assert cyclestyle("fit", *words, f"--trainer.default_root_dir={tmp_path}")[0] == 0
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rates = [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3])
