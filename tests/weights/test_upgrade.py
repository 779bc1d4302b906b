"""Runs of the first version, with their names, resume, load and translate."""

import csv
import shutil

import pytest
import torch
import yaml

from cyclestyle.tasks import Autoencoder, CycleGAN, Johnson, load
from cyclestyle.translator import Translator
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.official import LOSSES


@pytest.fixture
def old_run(tiny_fit, checkpoint, tmp_path):
    """A run as the first version left it: names of losses, pools, settings and plugins."""
    run = tmp_path / "run"
    shutil.copytree(checkpoint.parents[1], run)
    for path in (run / "checkpoints").glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        states = content.pop("rank_states")
        content["hyper_parameters"]["upsample"] = content["hyper_parameters"].pop("resample")
        content["image_pools"] = [{"A": rank["pool_A"], "B": rank["pool_B"]} for rank in states]
        torch.save(content, path)
    new_to_old = {f"{stage}/{new}": f"{stage}/{old}" for old, new in LOSSES.items() for stage in ("train", "val")}
    header, _, rest = (run / "metrics.csv").read_text().partition("\n")
    header = ",".join(new_to_old.get(name, name) for name in header.split(","))
    (run / "metrics.csv").write_text(f"{header}\n{rest}")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["grid"]["pictures"] = config["grid"].pop("images")
    settings = config["model"]["init_args"]
    settings["upsample"] = settings.pop("resample")
    config["trainer"]["plugins"] = [{"class_path": "cyclestyle.callbacks.WholeCheckpointIO"}]
    (run / "old.yaml").write_text(yaml.safe_dump(config))
    return run


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_old_run_resumes_with_its_config_pools_and_log(cyclestyle, tiny_fit, old_run, checkpoint):
    words = ["--model.constant_epochs=2", f"--trainer.default_root_dir={old_run}", "--ckpt_path=last"]
    status, _, error = cyclestyle(*tiny_fit, *words)
    assert status == 0, error
    new, before = rows(old_run), rows(checkpoint.parents[1])
    assert [row["train/D_A"] for row in new[: len(before)]] == [row["train/D_A"] for row in before]
    assert [row["val/idt_B"] for row in new[: len(before)]] == [row["val/idt_B"] for row in before]
    assert "train/G_A" not in new[0]
    assert len(new) > len(before)


def test_an_old_config_is_understood_with_a_notice(cyclestyle, old_run, tmp_path, samples):
    words = ["fit", "--config", old_run / "old.yaml", f"--trainer.default_root_dir={tmp_path / 'new'}"]
    config = yaml.safe_load((old_run / "old.yaml").read_text())
    config.pop("ckpt_path", None)
    config["trainer"]["logger"] = {"class_path": "cyclestyle.callbacks.CSVLogger"}
    for key in ("best", "checkpoint"):
        config.pop(key)
    (old_run / "old.yaml").write_text(yaml.safe_dump(config))
    status, _, error = cyclestyle(*words)
    assert status == 0, error
    assert yaml.safe_load((tmp_path / "new" / "config.yaml").read_text())["grid"]["images"] == 2


@pytest.mark.parametrize("name", ["FastStyle", "cyclestyle.tasks.FastStyle"])
def test_old_class_names_in_configs(cyclestyle, tmp_path, name):
    config = {"model": {"class_path": name, "init_args": {"widht": 3}}, "data": {"class_path": "Photos"}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(config))
    error = cyclestyle("fit", "--config", tmp_path / "old.yaml")[2]
    assert "there is no option widht" in error  # the class is found, and its settings are checked


def test_settings_that_are_tuning_now(cyclestyle, tmp_path, checkpoint):
    """`compile` and `channels_last` of a model change how fast it runs, and not what it does."""
    model = {"class_path": "CycleGAN", "init_args": {"compile": True, "channels_last": False, "widht": 3}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"model": model, "data": {"class_path": "UnpairedImages"}}))
    error = cyclestyle("fit", "--config", tmp_path / "old.yaml")[2]
    assert "model.compile is left out; --tune.compile true does it now" in error
    assert "there is no option widht" in error
    old = read_checkpoint(checkpoint)
    old["hyper_parameters"] |= {"compile": True, "channels_last": True}
    torch.save(old, tmp_path / "old.ckpt")
    weights = load(tmp_path / "old.ckpt").state_dict()
    assert all(torch.equal(weights[key], value) for key, value in load(checkpoint).state_dict().items())


def test_old_names_of_weights(tmp_path):
    task = Autoencoder(width=2, level=2)
    old = {key.replace("input_transform", "colours"): value for key, value in task.state_dict().items()}
    assert old.keys() != task.state_dict().keys()
    content = {"cyclestyle_task": "AutoencoderStyle", "hyper_parameters": {"width": 2, "level": 2}, "state_dict": old}
    torch.save({**content, "ema": {key: value + 1 for key, value in old.items()}}, tmp_path / "old.ckpt")
    for averaging, change in (("raw", 0), ("ema", 1)):
        weights = load(tmp_path / "old.ckpt", averaging=averaging).state_dict()
        assert all(torch.equal(weights[key], value + change) for key, value in task.state_dict().items())


def test_old_class_names_in_checkpoints(tmp_path, caplog):
    task = Johnson(width=3, output="levels")  # the only output of earlier versions
    content = {"cyclestyle_task": "FastStyle", "hyper_parameters": {"width": 3}, "state_dict": task.state_dict()}
    torch.save(content, tmp_path / "old.ckpt")
    assert isinstance(load(tmp_path / "old.ckpt"), Johnson)
    assert "FastStyle, which is called Johnson now" in caplog.text
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(Translator.load(tmp_path / "old.ckpt").translate(images), task.transform(images))


def test_old_names_of_arguments_in_checkpoints(tmp_path):
    settings = {"generator": "resnet6", "ngf": 2, "ndf": 2, "resample": "resize"}
    task = CycleGAN(**settings)
    old = {"upsample" if key == "resample" else key: value for key, value in settings.items()}
    content = {"cyclestyle_task": "CycleGAN", "hyper_parameters": old, "state_dict": task.state_dict()}
    torch.save(content, tmp_path / "old.ckpt")
    assert load(tmp_path / "old.ckpt").hparams["resample"] == "resize"
    old = {"upsample": "transpose", "width": 3}  # Johnson's setting has kept its name
    content = {"cyclestyle_task": "Johnson", "hyper_parameters": old, "state_dict": Johnson(**old).state_dict()}
    torch.save(content, tmp_path / "johnson.ckpt")
    assert load(tmp_path / "johnson.ckpt").hparams["upsample"] == "transpose"


@pytest.mark.parametrize(("old", "contrast"), [(False, 0), (True, 0.99)])
def test_residual_was_true_or_false(cyclestyle, checkpoint, samples, tmp_path, old, contrast):
    content = torch.load(checkpoint, weights_only=True)
    for value, name in ((old, "old"), (contrast, "new")):
        content["hyper_parameters"]["residual"] = value
        torch.save(content, tmp_path / f"{name}.ckpt")
        words = ["--ckpt_path", tmp_path / f"{name}.ckpt", "--input", samples / "testA", "--output", tmp_path / name]
        assert cyclestyle("predict", *words)[0] == 0
    assert load(tmp_path / "old.ckpt").hparams["residual"] == contrast  # so that `init_from` finds the same networks
    for image in (tmp_path / "new").iterdir():
        assert (tmp_path / "old" / image.name).read_bytes() == image.read_bytes()
