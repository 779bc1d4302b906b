"""A signal ends a run, its loader workers included."""

import os

import pytest
from forks import wait_for

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


@pytest.mark.parametrize(
    ("step", "name", "status"), [("training_step", "SIGINT", 130), ("validation_step", "SIGTERM", 143)]
)
def test_a_stop_ends_every_process(forks, tiny_fit, tmp_path, step, name, status):
    """In a validation with loader workers the process used to wait for workers that ignored SIGTERM, for ever."""
    words = [*tiny_fit, f"--trainer.default_root_dir={tmp_path}", "--data.workers=1", "--model.constant_epochs=50"]
    words += ["--trainer.num_sanity_val_steps=0"]
    code = SCRIPT.format(step=step, number=2, signal=name)
    process = forks.run(*words, code=code, session=True)
    assert process.returncode == status, process.stderr
    assert f"stopped by {name}" in process.stderr
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    wait_for(lambda: group_is_gone(process.pid), timeout=10)


PREDICT = """
import os, signal, sys
from cyclestyle.cli import main
from {module} import {task}
original, calls = {task}.translate, []
def translate(self, images, direction):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.{signal})
    return original(self, images, direction)
{task}.translate = translate
sys.exit(main(sys.argv[1:]))
"""


def test_predict_finishes_the_image_and_says_what_is_left(forks, cyclestyle, checkpoint, samples, tmp_path):
    words = ["--ckpt_path", checkpoint, "--input", samples / "trainA", "--output", tmp_path / "out", "--batch_size=1"]
    words = ["predict", *map(str, words)]
    code = PREDICT.format(module="cyclestyle.translation.plain", task="Generators", signal="SIGINT")
    process = forks.run(*words, code=code, session=True)
    assert process.returncode == 130, process.stderr
    assert "stopped by SIGINT; 5 of 7 images are left; the same command goes on with them" in process.stderr
    assert "Traceback" not in process.stderr
    wait_for(lambda: group_is_gone(process.pid), timeout=10)
    assert len(list((tmp_path / "out").iterdir())) == 2
    left = tmp_path / "out" / ".unfinished-of_a_killed_run.png"
    left.write_bytes(b"half an image")
    again, output, _ = cyclestyle(*words)
    assert again == 0
    assert "5 images written" in output
    assert not left.exists()


def test_gatys_finishes_the_image_on_sigterm(forks, samples, tmp_path):
    """`predict` used to ignore it until every image was done."""
    words = ["predict", "--model=Gatys", "--model.weights=random", "--model.sizes=[32]", "--model.steps=[2]"]
    words += ["--style", str(next((samples / "trainB").iterdir()))]
    words += ["--input", str(samples / "testA"), "--output", str(tmp_path / "out")]
    process = forks.run(*words, code=PREDICT.format(module="cyclestyle.tasks", task="Gatys", signal="SIGTERM"))
    assert process.returncode == 143, process.stderr
    assert "stopped by SIGTERM; 1 of 3 images are left" in process.stderr


def test_a_stop_before_the_last_batch_of_an_epoch_loses_no_batch(forks, cyclestyle, tiny_fit, tmp_path):
    """Lightning has marked that batch as the last one already; the epoch is not complete all the same."""
    words = [*tiny_fit, f"--trainer.default_root_dir={tmp_path}", "--model.constant_epochs=2"]
    code = SCRIPT.format(step="training_step", number=6, signal="SIGTERM")
    process = forks.run(*words, code=code)
    assert process.returncode == 143, process.stderr
    assert "stopped by SIGTERM at step 6" in process.stderr
    status, output, error = cyclestyle(*words, "--ckpt_path=last")
    assert status == 0, error
    assert "(epoch 2, step 14)" in output
