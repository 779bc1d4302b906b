"""CUT, FastCUT and DCLGAN from the command line: fit, stop, go on, predict, export."""

import csv
import signal

import pytest
import torch
from PIL import Image

from cyclestyle import Translator
from cyclestyle.cli import main
from cyclestyle.images import read_image
from cyclestyle.tasks import CUT
from cyclestyle.weights.checkpoints import read_checkpoint

TINY = {"generator": "resnet6", "depth": 2, "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}
TINY |= {"nce_patches": 16, "nce_width": 4}


def fit_words(samples, *configs):
    """Two epochs of four batches; the last batch of an epoch has one pair."""
    return [
        "fit",
        *(f"--config=configs/{name}.yaml" for name in configs),
        *(f"--model.{key}={value}" for key, value in TINY.items()),
        "--model.constant_epochs=1",
        "--model.decay_epochs=1",
        f"--data.root={samples}",
        "--data.load_size=36",
        "--data.crop_size=32",
        "--data.batch_size=2",
        "--data.workers=0",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--grid.every_n_steps=3",
        "--grid.images=2",
        "--ema.decay=0.5",
        "--alarms.after_steps=1",
        "--page.every_n_seconds=0",
        "--ckpt_path=last",
    ]


CONFIGS = {"cut": ("cut",), "fastcut": ("cut", "fastcut"), "dclgan": ("dclgan",)}


@pytest.fixture(scope="module", params=CONFIGS)
def words(request, samples):
    return fit_words(samples, *CONFIGS[request.param])


@pytest.fixture(scope="module")
def run(words, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    assert main([*words, f"--trainer.default_root_dir={run}"]) == 0
    return run


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in csv.DictReader(file)]


def test_a_run_leaves_everything_in_its_folder(run):
    assert {"best.ckpt", "last.ckpt", "previous.ckpt"} == {path.name for path in (run / "checkpoints").iterdir()}
    train = [row for row in rows(run) if row.get("train/loss_G")]
    steps = read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"]
    assert [int(row["step"]) for row in train] == list(range(steps))
    for row in train:
        terms = [float(v) for k, v in row.items() if k.startswith("train/") and k[6:7] in "GNi" and v]
        assert sum(terms) == pytest.approx(float(row["train/loss_G"]), rel=1e-5)
    validated = [row for row in rows(run) if row.get("val/NCE")]
    assert len(validated) == 2
    assert all(row["val/kid"] for row in validated)
    assert set(read_checkpoint(run / "checkpoints" / "last.ckpt")["ema"]) <= {
        name for name in read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] if name.startswith("G_")
    }


def test_a_run_that_was_stopped_ends_as_one_that_was_not(monkeypatch, cyclestyle, words, run, tmp_path):
    from cyclestyle.tasks import DCLGAN

    call = {"CUT": 6, "DCLGAN": 4}["DCLGAN" if "dclgan" in words[1] else "CUT"]  # inside an epoch, and at its end
    words = [*words, f"--trainer.default_root_dir={tmp_path}"]
    calls = []
    with monkeypatch.context() as patched:
        for task in (CUT, DCLGAN):

            def step(self, batch, batch_idx, original=task.training_step):
                calls.append(batch_idx)
                if len(calls) == call:
                    signal.raise_signal(signal.SIGTERM)
                return original(self, batch, batch_idx)

            patched.setattr(task, "training_step", step)
        assert cyclestyle(*words)[0] == 128 + signal.SIGTERM
    assert cyclestyle(*words)[0] == 0
    ours, theirs = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (tmp_path, run))
    assert ours["global_step"] == theirs["global_step"]
    for part in ("state_dict", "ema"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(value, ours[part][name]) for name, value in theirs[part].items())
    for key, state in theirs["optimizer_states"][0]["state"].items():
        assert all(torch.equal(value, ours["optimizer_states"][0]["state"][key][name]) for name, value in state.items())
    assert torch.equal(ours["random"][0]["cpu"], theirs["random"][0]["cpu"])
    assert rows(tmp_path) == rows(run)


@pytest.mark.parametrize("averaging", ["raw", "ema"])
def test_predict_translates_images_of_any_size(cyclestyle, run, save_image, tmp_path, averaging):
    photo = save_image("in/wide.png", size=(37, 22), colour="orange")
    checkpoint = run / "checkpoints" / "last.ckpt"
    words = ["--input", photo.parent, "--output", tmp_path / "out", "--averaging", averaging]
    status, _, error = cyclestyle("predict", "--ckpt_path", checkpoint, *words)
    assert status == 0, error
    translated = Image.open(tmp_path / "out" / "wide.png")
    expected = Translator.load(checkpoint, averaging=averaging)(read_image(photo))
    assert translated.size == (37, 22)
    assert translated.tobytes() == expected.tobytes()


def test_validate_and_test_read_a_checkpoint(cyclestyle, words, run):
    words = [*words[1:], f"--trainer.default_root_dir={run}"]
    for command, name in (("validate", "val/NCE"), ("test", "test/NCE")):
        status, out, error = cyclestyle(command, *words)
        assert status == 0, error
        assert name in out
    assert (run / "test" / "report.html").is_file()


def test_exported_generators_translate_as_the_run(cyclestyle, run, samples, tmp_path):
    checkpoint = run / "checkpoints" / "last.ckpt"
    words = ["--ckpt_path", checkpoint, "--output", tmp_path / "official", "--averaging", "raw"]
    status, out, error = cyclestyle("export", *words)
    assert status == 0, error
    generator = next(path for path in map(str, out.splitlines()) if path.endswith(("_net_G.pth", "_net_G_A.pth")))
    for name, path in (("run", checkpoint), ("official", generator)):
        words = ["--input", samples / "testA", "--output", tmp_path / f"by_{name}", "--averaging", "raw"]
        if name == "official":
            words = words[:-2]
        assert cyclestyle("predict", "--ckpt_path", path, *words)[0] == 0
    for one in (tmp_path / "by_run").iterdir():
        assert one.read_bytes() == (tmp_path / "by_official" / one.name).read_bytes()


def test_cut_has_one_direction(cyclestyle, samples, tmp_path):
    run = tmp_path / "run"
    words = [*fit_words(samples, "cut"), "--trainer.max_epochs=1", f"--trainer.default_root_dir={run}"]
    assert cyclestyle(*words)[0] == 0
    words = ["predict", "--ckpt_path", run, "--input", samples / "testB", "--output", tmp_path / "out"]
    status, _, error = cyclestyle(*words, "--direction", "BtoA")
    assert status != 0
    assert "AtoB" in error
    status, _, error = cyclestyle(*fit_words(samples, "cut"), "--model.channels_B=1", "--data.channels_B=1")
    assert status == 1
    assert "needs the same channels in both domains" in error.splitlines()[-1]


def test_generator_files_of_the_original_translate(cyclestyle, samples, reference, tmp_path):
    file = reference / "cut_cut" / "latest_net_G.pth"
    words = ["predict", "--ckpt_path", file, "--input", samples / "testA", "--output", tmp_path / "out"]
    status, _, error = cyclestyle(*words)
    assert status == 0, error
    assert len(list((tmp_path / "out").iterdir())) == 3
