"""`--speed` and `--tune.…` of fit and predict, called as users call them."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from cyclestyle.weights.checkpoints import read_checkpoint


def losses(run):
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss_G"]) for row in csv.DictReader(file) if row["train/loss_G"]]


def weights(run):
    return read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.fixture(scope="module")
def exact(tiny_fit, tmp_path_factory):
    from cyclestyle.cli import main

    run = tmp_path_factory.mktemp("exact")
    assert main([*tiny_fit, f"--trainer.default_root_dir={run}"]) == 0
    return run


def test_hardware_that_gains_by_nothing_else_fuses_adam_alone(cyclestyle, tiny_fit, exact, tmp_path):
    words = ["--speed=auto", "--data.decoder=pillow"]
    status, out, _ = cyclestyle(*tiny_fit, f"--trainer.default_root_dir={tmp_path}", *words)
    assert status == 0
    assert "speed auto: float32, because bfloat16 is not faster here; not compiled" in out
    assert losses(tmp_path) == pytest.approx(losses(exact), rel=1e-3)
    plain = tmp_path / "plain"
    assert cyclestyle(*tiny_fit, f"--trainer.default_root_dir={plain}", *words, "--tune.fused=false")[0] == 0
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(exact).items())


def test_fit_in_bfloat16_and_by_winograd_follows_the_exact_run(cyclestyle, tiny_fit, exact, tmp_path):
    for name, words in {"half": ["--tune.precision=bfloat16"], "tiled": ["--tune.winograd=true"]}.items():
        run = tmp_path / name
        words = [*words, "--tune.channels_last=true", "--speed=fast"]
        assert cyclestyle(*tiny_fit, f"--trainer.default_root_dir={run}", *words)[0] == 0
        assert losses(run) == pytest.approx(losses(exact), rel=0.05)
        assert not all(torch.equal(value, weights(run)[name]) for name, value in weights(exact).items())


def test_the_overlay_is_the_same_switch(cyclestyle, tiny_fit, tmp_path):
    words = [*tiny_fit, "--config=fast", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1"]
    status, out, _ = cyclestyle(*words, "--trainer.limit_val_batches=0")
    assert (status, "speed fast: " in out) == (0, True)


def test_a_resumed_run_has_the_same_decoder(cyclestyle, tiny_fit, tmp_path):
    words = [*tiny_fit, "--config=fast", f"--trainer.default_root_dir={tmp_path}", "--trainer.limit_val_batches=0"]
    assert cyclestyle(*words, "--trainer.max_steps=1")[0] == 0
    assert "decoder: null" in (tmp_path / "config.yaml").read_text()  # it follows from the speed again
    status, _, err = cyclestyle(*words, "--trainer.max_steps=2", "--ckpt_path=last")
    assert (status, "decoder" in err) == (0, False)


def test_what_is_missing_falls_back_with_a_line(cyclestyle, tiny_fit, tmp_path):
    words = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--speed=fast", "--tune.compile=true"]
    status, out, _ = cyclestyle(*tiny_fit, f"--trainer.default_root_dir={tmp_path}", *words)
    assert status == 0
    assert "compile left out, because there is no C or C++ compiler" in out


@pytest.mark.parametrize(("cache", "kept"), [("folder", True), ("file", False)])
def test_compiled_code_is_kept_in_the_cache_folder_where_there_can_be_one(tmp_path, cache, kept):
    place = tmp_path / cache
    if not kept:
        place.touch()
    code = (
        "import os; from cyclestyle.cli import main; main(['models']); print(os.environ.get('TORCHINDUCTOR_CACHE_DIR'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(place)
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert (done.stdout.splitlines()[-1] == str(place / "cyclestyle" / "compiled")) is kept


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.effect_mandelbrot((40, 28), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(path)
    return path


def test_predict_in_bfloat16(cyclestyle, checkpoint, photo, tmp_path):
    images = {}
    for name, words in {"exact": ["--speed=exact"], "half": ["--tune.precision=bfloat16"]}.items():
        target = tmp_path / name / "a.png"
        words = [*words, f"--manifest={tmp_path / 'done.jsonl'}"]
        status, out, _ = cyclestyle(
            "predict", f"--ckpt_path={checkpoint}", f"--input={photo}", f"--output={target}", *words
        )
        assert status == 0
        images[name] = torch.tensor(list(Image.open(target).convert("RGB").tobytes())).float()
    assert "precision as given" in out
    assert not torch.equal(images["half"], images["exact"])
    assert (images["half"] - images["exact"]).abs().mean() < 2
    settings = [json.loads(line)["settings"] for line in (tmp_path / "done.jsonl").read_text().splitlines()]
    assert [one["precision"] for one in settings] == ["float32", "bfloat16"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--speed=turbo"], "speed"),
        (["--tune.precision=half"], "precision"),
        (["--tune.threads=0"], "threads must be at least 1, got 0"),
    ],
)
def test_wrong_values_are_one_line(cyclestyle, checkpoint, photo, tiny_fit, tmp_path, words, message):
    paths = (f"--ckpt_path={checkpoint}", f"--input={photo}", f"--output={tmp_path / 'out'}")
    for command in (["predict", *paths], [*tiny_fit, f"--trainer.default_root_dir={tmp_path / 'run'}"]):
        status, _, err = cyclestyle(*command, *words)
        assert status == 1 or status == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()
