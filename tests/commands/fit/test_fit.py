import csv
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from PIL import Image

from cyclestyle import __version__ as version
from cyclestyle.cli import main


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_in_its_folder(checkpoint):
    run = checkpoint.parents[1]
    assert {"best.ckpt", "last.ckpt"} == {path.name for path in (run / "checkpoints").iterdir()}
    assert {"step_00000004.png", "step_00000007.png"} == {path.name for path in (run / "grids").iterdir()}
    assert Image.open(run / "grids" / "step_00000004.png").size == (2 * 34, 6 * 34)
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["ngf"] == 2
    train = [row for row in rows(run) if row["train/loss_G"]]
    assert [int(row["step"]) for row in train] == list(range(7))
    names = ("G_AB", "G_BA", "cycle_A", "cycle_B", "idt_A", "idt_B", "D_A", "D_B", "loss_D", "lr")
    assert all(float(row[f"train/{name}"]) >= 0 for row in train for name in names)
    assert float(train[-1]["train/images_per_second"]) > 0
    validated = [row for row in rows(run) if row["val/cycle"]]
    assert len(validated) == 1
    assert float(validated[0]["val/idt_B"]) > 0


def test_a_second_run_does_not_touch_the_first(cyclestyle, tiny_fit, checkpoint):
    before = checkpoint.read_bytes()
    run = checkpoint.parents[1]
    status, _, error = cyclestyle(*tiny_fit, f"--trainer.default_root_dir={run}")
    assert status == 1
    assert error == (
        f"cyclestyle: error: {run} holds a run already; resume it with --ckpt_path last, "
        "or choose another folder with --trainer.default_root_dir\n"
    )
    assert checkpoint.read_bytes() == before


def test_validate_and_test_read_a_checkpoint(cyclestyle, tiny_fit, checkpoint):
    run = checkpoint.parents[1]
    before = (run / "metrics.csv").read_bytes()
    words = [*tiny_fit[1:], f"--trainer.default_root_dir={run}", "--ckpt_path=last"]
    for command, name in (("validate", "val/cycle_A"), ("test", "test/cycle_A")):
        status, out, _ = cyclestyle(command, *words)
        assert status == 0
        assert name in out
    assert (run / "metrics.csv").read_bytes() == before


def test_a_truncated_held_out_image_is_found_before_the_first_step(cyclestyle, tiny_fit, samples, tmp_path):
    shutil.copytree(samples, tmp_path / "images")
    cut = sorted((tmp_path / "images" / "testA").iterdir())[-1]  # behind those that the trial validation reads
    Image.open(cut).save(cut.with_suffix(".bmp"))
    cut.with_suffix(".bmp").write_bytes(cut.with_suffix(".bmp").read_bytes()[:-900])
    run = tmp_path / "run"
    status, _, error = cyclestyle(*tiny_fit, f"--data.root={tmp_path / 'images'}", f"--trainer.default_root_dir={run}")
    assert status == 1
    assert f"{cut.with_suffix('.bmp')}: image file is truncated" in error
    assert not (run / "metrics.csv").exists()


def test_without_validation_grids_show_training_images(tiny_fit, samples, tmp_path):
    words = [word for word in tiny_fit if not word.startswith("--data.root")]
    folders = [f"--data.train_{d}=[{samples / f'train{d}'}]" for d in "AB"]
    run = f"--trainer.default_root_dir={tmp_path}"
    assert main([*words, *folders, run, "--trainer.limit_val_batches=0"]) == 0
    assert Image.open(tmp_path / "grids" / "step_00000004.png").size == (2 * 34, 6 * 34)


def test_two_plain_folders_suffice_and_a_run_is_tested_by_its_folder(cyclestyle, tiny_fit, samples, tmp_path, caplog):
    run, config = tmp_path / "run", tmp_path / "paintings.yaml"
    config.write_text(f"data:\n  init_args:\n    train_B: {samples / 'trainB'}\n")  # one value for a list of one
    words = [word for word in tiny_fit if not word.startswith("--data.root")]
    words += [f"--config={config}", "--data.train_A", samples / "trainA", f"--trainer.default_root_dir={run}"]
    status, _, error = cyclestyle(*words)
    assert status == 0, error
    line = "held out for evaluation, since no test folders are named: 2 of 7 images of data.train_A, 2 of 7 images of"
    assert caplog.text.count(line) == 1
    assert max(int(row["step"]) for row in rows(run)) <= 5  # batches of an epoch: five of seven images
    assert any(row["val/cycle"] for row in rows(run))
    status, out, error = cyclestyle("test", "--ckpt_path", run)
    assert status == 0, error
    assert f"Report: {run / 'test' / 'report.html'}" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--data.root=nowhere"], "data.root nowhere does not exist"),
        (
            ["--data.root=configs"],
            "configs/trainA does not exist; data.root must have the folders trainA, trainB, testA",
        ),
        (["--model.ngff=3"], "ngff"),
        (["--model.ngf=many"], "ngf"),
        (["--model.generator=vit"], "vit"),
        (["--model.gan_mode=wgan"], "wgan"),
        (["--model.lr=-1"], "lr must be above 0, got -1"),
        (["--data.max_images=0"], "max_images must be at least 1, or null for all images, got 0"),
        (["--data.crop_size=30"], "crop_size must be a positive multiple of 4, got 30"),
        (
            ["--model.channels_B=1", "--model.lambda_identity=0"],
            "model.channels_B is 1 and data.channels_B is 3; set both",
        ),
        (["--model.generator=unet128", "--model.depth=null"], "multiples of 128, got 32×32; change data.crop_size"),
        (["--ckpt_path=nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
        (["--trainer.default_root_dir=/proc/nowhere"], "cannot write into /proc/nowhere"),
        (["--trainer.accelerator=gpu"], "gpu|cuda|GPU|CUDA"),
    ],
)
def test_mistakes_get_one_line(cyclestyle, tiny_fit, tmp_path, changes, message):
    if "gpu" in message and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    status, _, error = cyclestyle(*tiny_fit, f"--trainer.default_root_dir={tmp_path}", *changes)
    lines = [line for line in error.splitlines() if line.startswith("cyclestyle: error: ")]
    assert status in (1, 2)
    assert len(lines) == 1
    assert any(part in lines[0] for part in message.split("|"))
    assert "Traceback" not in error
    assert len(lines[0]) < 400
    assert not (tmp_path / "checkpoints").exists()


def test_unknown_keys_in_a_yaml_are_named(cyclestyle, tmp_path):
    (tmp_path / "typo.yaml").write_text("model:\n  init_args:\n    lambda_C: 3\n")
    status, _, error = cyclestyle("fit", "--config=configs/cyclegan.yaml", f"--config={tmp_path / 'typo.yaml'}")
    assert status == 1
    assert "lambda_C" in error
    (tmp_path / "broken.yaml").write_text("model: [\n")
    status, _, error = cyclestyle("fit", f"--config={tmp_path / 'broken.yaml'}")
    assert status == 1
    assert error.count("\n") == 1
    assert "broken.yaml" in error


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_during_training_is_named(cyclestyle, tiny_fit, samples, tmp_path, workers):
    cut = tmp_path / "A" / "cut.bmp"  # its header is whole, so only decoding finds it
    cut.parent.mkdir()
    Image.new("RGB", (64, 64)).save(cut)
    cut.write_bytes(cut.read_bytes()[:-5000])
    words = [f"--data.train_A=[{cut.parent}]", f"--data.workers={workers}"]
    status, _, error = cyclestyle(*tiny_fit, *words, f"--trainer.default_root_dir={tmp_path / 'run'}")
    assert status == 1
    assert f"cannot read {cut}: " in error.splitlines()[-1]
    assert "Traceback" not in error


def test_help_and_lists_do_not_import_torch():
    code = "import sys, cyclestyle.cli as c; [c.main([word]) for word in ('--help', 'models', 'configs')]\n"
    code += "assert not {'torch', 'pytorch_lightning'} & sys.modules.keys()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "predict" in result.stdout


def test_the_module_is_the_program():
    result = subprocess.run([sys.executable, "-m", "cyclestyle", "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"cyclestyle {version}\n")


@pytest.mark.parametrize(("words", "status"), [([], 2), (["--help"], 0), (["--version"], 0), (["paint"], 2)])
def test_status_of_help_and_of_unknown_commands(cyclestyle, words, status):
    assert cyclestyle(*words)[0] == status


@pytest.mark.parametrize("command", ["fit", "test", "predict", "sample-data", "score"])
def test_every_command_has_help(cyclestyle, command):
    with pytest.raises(SystemExit, match="0"):
        cyclestyle(command, "--help")
