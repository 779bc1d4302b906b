"""Fast style transfer from the command line: fit, stop, go on, predict."""

import csv
import shutil
import signal

import pytest
import torch
from PIL import Image

from cyclestyle import Translator
from cyclestyle.cli import main
from cyclestyle.images import read_image
from cyclestyle.tasks import Johnson
from cyclestyle.weights.checkpoints import read_checkpoint


@pytest.fixture(scope="module")
def words(samples, tmp_path_factory):
    """Two epochs of three batches."""
    style = tmp_path_factory.mktemp("style") / "painting.png"
    shutil.copy(samples / "trainB" / "0000.png", style)
    return [
        "fit",
        "--config=configs/johnson.yaml",
        f"--model.style=[{style}]",
        "--model.weights=random",
        "--model.content_layers=[relu2_2]",
        "--model.style_layers=[relu1_2,relu2_2]",
        "--model.width=2",
        f"--data.train=[{samples / 'trainA'}]",
        f"--data.test=[{samples / 'testA'}]",
        "--data.load_size=36",
        "--data.crop_size=32",
        "--data.batch_size=3",
        "--data.flip=true",
        "--data.workers=0",
        "--trainer.max_steps=6",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--grid.every_n_steps=4",
        "--grid.images=2",
        "--page.every_n_seconds=0",
        "--ema.decay=0.5",
        "--alarms.after_steps=1",
        "--ckpt_path=last",
    ]


@pytest.fixture(scope="module")
def run(words, tmp_path_factory):
    run = tmp_path_factory.mktemp("fast_style")
    assert main([*words, f"--trainer.default_root_dir={run}"]) == 0
    return run


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in csv.DictReader(file)]


def test_a_run_leaves_everything_in_its_folder(run):
    assert {"best.ckpt", "last.ckpt", "previous.ckpt"} == {path.name for path in (run / "checkpoints").iterdir()}
    assert {"step_00000004.png", "step_00000006.png"} == {path.name for path in (run / "grids").iterdir()}
    assert Image.open(run / "grids" / "step_00000004.png").size == (2 * 34, 2 * 34)  # photos above, painted below
    terms = ("content", "style", "tv", "loss")
    train = [row for row in rows(run) if row["train/loss"]]
    assert [int(row["step"]) for row in train] == list(range(6))
    for row in train:
        content, style, tv, loss = (float(row[f"train/{name}"]) for name in terms)
        assert content + style + tv == pytest.approx(loss, rel=1e-4)
    validated = [row for row in rows(run) if row["val/loss"]]
    assert len(validated) == 2
    assert all(float(row[f"val/{name}"]) > 0 for row in validated for name in terms)
    assert not (run / "evaluation.jsonl").exists()
    assert not (run / "alarms.txt").exists()


def test_the_best_checkpoint_is_that_of_the_lowest_loss(run):
    losses = [float(row["val_ema/loss"]) for row in rows(run) if row["val_ema/loss"]]
    assert read_checkpoint(run / "checkpoints" / "best.ckpt")["global_step"] == [3, 6][losses.index(min(losses))]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(monkeypatch, cyclestyle, words, run, tmp_path):
    words = [*words, f"--trainer.default_root_dir={tmp_path}"]
    original, calls = Johnson.training_step, []

    def step(self, batch, batch_idx):
        calls.append(batch_idx)
        if len(calls) == 5:  # within the second epoch
            signal.raise_signal(signal.SIGTERM)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(Johnson, "training_step", step)
        assert cyclestyle(*words)[0] == 128 + signal.SIGTERM
    assert cyclestyle(*words)[0] == 0
    ours, theirs = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (tmp_path, run))
    assert ours["global_step"] == theirs["global_step"] == 6
    for part in ("state_dict", "ema"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(value, ours[part][name]) for name, value in theirs[part].items())
    for key, state in theirs["optimizer_states"][0]["state"].items():
        assert all(torch.equal(value, ours["optimizer_states"][0]["state"][key][name]) for name, value in state.items())
    assert rows(tmp_path) == rows(run)


@pytest.mark.parametrize("averaging", ["raw", "ema"])
def test_predict_paints_photos_of_any_size(cyclestyle, run, save_image, tmp_path, averaging):
    photo = save_image("in/wide.png", size=(37, 22), colour="orange")
    checkpoint = run / "checkpoints" / "last.ckpt"
    words = ["--input", photo.parent, "--output", tmp_path / "out", "--averaging", averaging]
    status, _, error = cyclestyle("predict", "--ckpt_path", checkpoint, *words)
    assert status == 0, error
    painted = Image.open(tmp_path / "out" / "wide.png")
    expected = Translator.load(checkpoint, averaging=averaging)(read_image(photo))
    assert painted.size == (37, 22)
    assert painted.tobytes() == expected.tobytes()
    assert painted.tobytes() != read_image(photo).tobytes()


def test_validate_and_test_read_a_checkpoint(cyclestyle, words, run):
    words = [*words[1:], f"--trainer.default_root_dir={run}"]
    for command, name in (("validate", "val/style"), ("test", "test/style")):
        status, out, error = cyclestyle(command, *words)
        assert status == 0, error
        assert name in out
    page = (run / "test" / "report.html").read_text()
    assert "test/style" in page
    assert "painted" in page


def test_without_held_out_photos(cyclestyle, words, tmp_path):
    words = [word for word in words if not word.startswith("--data.test")]
    words.append(f"--trainer.default_root_dir={tmp_path}")
    assert cyclestyle(*words, "--trainer.limit_val_batches=0")[0] == 0
    assert Image.open(tmp_path / "grids" / "step_00000004.png").size == (2 * 34, 2 * 34)
    assert {"last.ckpt", "previous.ckpt"} == {path.name for path in (tmp_path / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--model.style=[nowhere.jpg]"], "cannot read nowhere.jpg: No such file"),
        (["--model.style=[CONTRIBUTING.md]"], "cannot read CONTRIBUTING.md: its content is not an image"),
        (["--model.style=null"], "no painting: list files in model.style"),
        (["--model.style_layers=[relu9_1]"], "vgg16 has no layer 'relu9_1'; its layers are relu1_1 to relu5_3"),
        (["--model.weights=nowhere.pth"], "the weights nowhere.pth do not exist"),
        (["--model.style_layers=[relu4_3]", "--data.crop_size=12"], "photos of 12×12 are too small for relu4_3"),
        (["--data.train=[nowhere]"], "nowhere does not exist; expected a folder of images"),
        (["--model.preset=gatys"], "gatys"),
    ],
)
def test_mistakes_get_one_line(cyclestyle, words, tmp_path, changes, message):
    status, _, error = cyclestyle(*words, f"--trainer.default_root_dir={tmp_path}", *changes)
    lines = [line for line in error.splitlines() if line.startswith("cyclestyle: error: ")]
    assert status in (1, 2)
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in error


def test_checkpoints_of_other_tasks_and_networks_are_refused(cyclestyle, words, run, checkpoint, tmp_path):
    words = [*words[:-1], f"--trainer.default_root_dir={tmp_path}"]
    for path, change, message in (
        (checkpoint, [], "last.ckpt is a checkpoint of CycleGAN, but the config says Johnson"),
        (
            run / "checkpoints" / "last.ckpt",
            ["--model.width=3"],
            "was trained with model.width 2, but the config says 3",
        ),
    ):
        status, _, error = cyclestyle(*words, *change, f"--ckpt_path={path}")
        assert status == 1
        assert message in error.splitlines()[-1]


def test_many_styles_go_on_where_they_stopped(monkeypatch, cyclestyle, words, samples, tmp_path):
    """The styles of the images are drawn from the random state of the run."""
    words = [word for word in words if not word.startswith(("--model.style=", "--grid"))]
    words += [f"--model.style=[{samples / 'trainB'}]", "--model.conditional=true", "--model.preset=magenta"]
    for name in ("whole", "stopped"):
        run = f"--trainer.default_root_dir={tmp_path / name}"
        if name == "stopped":
            original, calls = Johnson.training_step, []

            def step(self, batch, batch_idx, original=original, calls=calls):
                calls.append(batch_idx)
                if len(calls) == 4:
                    signal.raise_signal(signal.SIGTERM)
                return original(self, batch, batch_idx)

            with monkeypatch.context() as patched:
                patched.setattr(Johnson, "training_step", step)
                assert cyclestyle(*words, run)[0] == 128 + signal.SIGTERM
        status, _, error = cyclestyle(*words, run)
        assert (status, "style_names" in error) == (0, False)
    ours, theirs = (read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("stopped", "whole"))
    assert ours["hyper_parameters"]["style_names"] == [f"{number:04}" for number in range(7)]
    for part in ("state_dict", "ema"):
        assert all(torch.equal(value, ours[part][name]) for name, value in theirs[part].items())
    words = [*words[:-3], f"--model.style=[{samples / 'trainA'},{samples / 'testB'}]", *words[-2:]]
    status, _, error = cyclestyle(*words, f"--trainer.default_root_dir={tmp_path / 'whole'}", "--trainer.max_steps=8")
    assert status == 1
    assert "two paintings are called 0000" in error
    words = [*words[:-3], f"--model.style=[{samples / 'testB'}]", *words[-2:]]
    status, _, error = cyclestyle(*words, f"--trainer.default_root_dir={tmp_path / 'whole'}", "--trainer.max_steps=8")
    assert status == 1
    assert "the checkpoint has the styles 0000, 0001" in error
