"""A signal ends a run, its loader workers included."""

import os
import subprocess
import sys
import time

import pytest

SCRIPT = """
import os, signal, sys
from cyclestyle.cli import main
from cyclestyle.tasks import CycleGAN
original, steps = CycleGAN.{step}, []
def step(self, batch, batch_idx):
    steps.append(1)
    if len(steps) == {number}:
        os.kill(os.getpid(), signal.{signal})
    return original(self, batch, batch_idx)
CycleGAN.{step} = step
sys.exit(main(sys.argv[1:]))
"""


def group_is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("step", ["training_step", "validation_step"])
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stop_ends_every_process(tiny_fit, tmp_path, step, name, status):
    """In a validation with loader workers the process used to wait for workers that ignored SIGTERM, for ever."""
    words = [*tiny_fit, f"--trainer.default_root_dir={tmp_path}", "--data.workers=1", "--model.constant_epochs=50"]
    words += ["--trainer.num_sanity_val_steps=0"]
    code = SCRIPT.format(step=step, number=2, signal=name)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    _, error = process.communicate(timeout=120)
    assert process.returncode == status, error
    assert f"stopped by {name}" in error
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    deadline = time.monotonic() + 10
    while not group_is_gone(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group_is_gone(process.pid)
