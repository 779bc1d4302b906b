"""`fit --init_from`: a new run that starts from trained weights."""

import shutil

import pytest
import torch
import yaml

from cyclestyle.cli import main
from cyclestyle.tasks import CycleGAN, Task
from cyclestyle.tasks.load import start_from
from cyclestyle.translator import Translator
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.official import write_official


@pytest.fixture
def start(monkeypatch):
    """What a run starts with: weights, and the state of optimiser, schedule and pools."""
    seen = {}
    original = Task.on_train_start

    def on_train_start(self):
        original(self)
        seen["weights"] = {name: weight.clone() for name, weight in self.state_dict().items()}
        seen["optimiser"] = dict(self.trainer.optimizers[0].state)
        seen["position"] = self.trainer.current_epoch, self.trainer.global_step, len(self.pool_A)

    monkeypatch.setattr(Task, "on_train_start", on_train_start)
    return seen


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def last(run):
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


def test_a_run_starts_from_the_weights_of_a_checkpoint_with_a_new_optimiser(tiny_fit, checkpoint, start, tmp_path):
    words = [f"--trainer.default_root_dir={tmp_path}", f"--init_from={checkpoint}", "--model.lr=0.001"]
    assert main([*tiny_fit, *words]) == 0
    assert same(start["weights"], read_checkpoint(checkpoint)["state_dict"])
    assert start["optimiser"] == {}
    assert start["position"] == (0, 0, 0)
    assert last(tmp_path)["global_step"] == 7
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["init_from"] == str(checkpoint)


def test_the_folder_of_a_run_stands_for_its_best_checkpoint(tiny_fit, checkpoint, start, tmp_path):
    run = tmp_path / "source"
    shutil.copytree(checkpoint.parents[1], run)
    best = read_checkpoint(run / "checkpoints" / "best.ckpt")
    best["state_dict"]["G_AB.model.1.bias"] += 1
    torch.save(best, run / "checkpoints" / "best.ckpt")
    assert main([*tiny_fit, f"--trainer.default_root_dir={tmp_path / 'new'}", f"--init_from={run}"]) == 0
    assert same(start["weights"], best["state_dict"])


def test_averaged_weights_are_taken_where_there_are_any(tiny_fit, start, tmp_path):
    source, new = tmp_path / "source", tmp_path / "new"
    assert main([*tiny_fit, f"--trainer.default_root_dir={source}", "--ema.decay=0.9", "--model.lr=0.01"]) == 0
    assert (
        main([*tiny_fit, f"--trainer.default_root_dir={new}", f"--init_from={source / 'checkpoints/last.ckpt'}"]) == 0
    )
    stored = last(source)
    assert same(start["weights"], {**stored["state_dict"], **stored["ema"]})
    assert not same(start["weights"], stored["state_dict"])


def test_files_of_the_original_are_taken(tiny_fit, checkpoint, start, tmp_path):
    weights = read_checkpoint(checkpoint)["state_dict"]
    write_official(weights, tmp_path / "official")
    words = [f"--trainer.default_root_dir={tmp_path / 'new'}", f"--init_from={tmp_path / 'official'}"]
    assert main([*tiny_fit, *words]) == 0
    assert same(start["weights"], weights)
    translate = Translator.load(tmp_path / "official")
    generators = {key: value for key, value in weights.items() if key.startswith("G_")}
    assert same(translate.method.state_dict(), generators)


def test_a_run_that_resumes_itself_ignores_it(cyclestyle, tiny_fit, checkpoint, tmp_path):
    """Stopped and resumed from its config: the run that was not stopped. The source is gone by then."""
    source, whole, parts = tmp_path / "source.ckpt", tmp_path / "whole", tmp_path / "parts"
    shutil.copy(checkpoint, source)
    words = [*tiny_fit, f"--init_from={source}", "--ckpt_path=last", "--best.monitor=val/cycle"]
    assert main([*words, f"--trainer.default_root_dir={whole}"]) == 0
    assert main([*words, f"--trainer.default_root_dir={parts}", "--trainer.max_steps=3"]) == 0
    source.unlink()
    resumed = ["fit", "--config", parts / "config.yaml", "--ckpt_path", "last", "--trainer.max_steps=7"]
    status, _, error = cyclestyle(*resumed)
    assert status == 0, error
    assert same(last(parts)["state_dict"], last(whole)["state_dict"])
    named = ["--ckpt_path", parts / "checkpoints" / "previous.ckpt"]
    status, _, error = cyclestyle("fit", "--config", parts / "config.yaml", *named, "--trainer.max_steps=8")
    assert status == 0, error
    assert cyclestyle("test", "--config", parts / "config.yaml")[0] == 0


def one_line(error):
    lines = [line for line in error.splitlines() if line.startswith("cyclestyle: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    return lines[0]


def test_another_checkpoint_beside_it_is_refused(cyclestyle, tiny_fit, checkpoint, tmp_path):
    words = [f"--trainer.default_root_dir={tmp_path}", f"--init_from={checkpoint}", f"--ckpt_path={checkpoint}"]
    status, _, error = cyclestyle(*tiny_fit, *words)
    assert status == 1
    assert "--init_from starts a new run, --ckpt_path " in one_line(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--model.ngf=3"], "have model.ngf 2, but the config says 3; set both to the same"),
        (["--model.resample=resize"], "have model.resample transpose, but the config says resize"),
        (["--model.residual=0.9"], "have model.residual 0.0, but the config says 0.9"),
        (["--init_from=nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
        (["--init_from=configs"], "configs is a folder; expected a checkpoint file"),
    ],
)
def test_other_networks_and_other_files_are_refused(cyclestyle, tiny_fit, checkpoint, tmp_path, changes, message):
    words = [f"--trainer.default_root_dir={tmp_path}", f"--init_from={checkpoint}", *changes]
    status, _, error = cyclestyle(*tiny_fit, *words)
    assert status == 1
    assert message in one_line(error)
    assert not (tmp_path / "checkpoints").exists()


def test_a_depth_may_be_written_in_two_ways(checkpoint, tmp_path):
    """Null is the number in the generator's name."""
    source = CycleGAN(generator="resnet6", discriminator="pixel", ngf=1, ndf=1)
    stored = {
        **read_checkpoint(checkpoint),
        "state_dict": source.state_dict(),
        "hyper_parameters": dict(source.hparams),
    }
    torch.save({name: value for name, value in stored.items() if name != "ema"}, tmp_path / "source.ckpt")
    same_depth = CycleGAN(generator="resnet6", discriminator="pixel", ngf=1, ndf=1, depth=6)
    start_from(same_depth, tmp_path / "source.ckpt")
    assert same(same_depth.state_dict(), source.state_dict())


@pytest.mark.parametrize(("name", "place"), [("200_net_G_A", "G_AB"), ("200_net_G_B", "G_BA"), ("painter", "G_AB")])
def test_one_generator_starts_a_run_with_new_other_networks(
    cyclestyle, tiny_fit, checkpoint, start, tmp_path, caplog, name, place
):
    weights = read_checkpoint(checkpoint)["state_dict"]
    write_official(weights, tmp_path, epoch="200")
    (tmp_path / "200_net_G_A.pth").with_stem("painter").write_bytes((tmp_path / "200_net_G_A.pth").read_bytes())
    words = [*tiny_fit, f"--trainer.default_root_dir={tmp_path / 'new'}", f"--init_from={tmp_path / name}.pth"]
    status, _, error = cyclestyle(*words)
    assert status == 0, error
    assert f"{place} starts with the generator of {name}.pth, all other networks start anew" in caplog.text
    for key, value in start["weights"].items():
        assert not value.any() or torch.equal(value, weights[key]) == key.startswith(f"{place}."), key
    status, _, error = cyclestyle(
        *words[:-2], words[-1], f"--trainer.default_root_dir={tmp_path / 'x'}", "--model.ngf=3"
    )
    assert "have model.ngf 2, but the config says 3" in one_line(error)


def test_files_of_the_last_epoch_stand_for_a_folder(tiny_fit, checkpoint, start, tmp_path):
    weights = read_checkpoint(checkpoint)["state_dict"]
    write_official({key: torch.zeros_like(value) for key, value in weights.items()}, tmp_path, epoch="95")
    write_official(weights, tmp_path, epoch="200")
    words = [f"--trainer.default_root_dir={tmp_path / 'new'}", f"--init_from={tmp_path}"]
    assert main([*tiny_fit, *words]) == 0
    assert same(start["weights"], weights)


def test_another_method_is_refused(cyclestyle, tiny_fit, checkpoint, tmp_path):
    run = f"--trainer.default_root_dir={tmp_path / 'new'}"
    words = ["fit", "--model=Autoencoder", "--data=UnpairedImages", f"--data.root={tmp_path}", run]
    (tmp_path / "trainA").mkdir()
    (tmp_path / "trainB").mkdir()
    status, _, error = cyclestyle(*words, f"--init_from={checkpoint}")
    assert status == 1
    assert "holds a CycleGAN, but the config says Autoencoder" in one_line(error)


def test_official_files_of_another_width_name_the_setting(cyclestyle, tiny_fit, tmp_path):
    words = [f"--trainer.default_root_dir={tmp_path / 'new'}", f"--init_from={tmp_path / 'official'}"]
    network = CycleGAN(generator="resnet6", ngf=2, ndf=2, discriminator="n_layers", n_layers=1)
    write_official(network.state_dict(), tmp_path / "official")
    status, _, error = cyclestyle(*tiny_fit, *words, "--model.depth=null", "--model.ndf=4")
    assert status == 1
    assert "have model.ndf 2, but the config says 4" in one_line(error)


def test_a_basic_discriminator_of_the_original_fits_one_of_three_layers(tmp_path):
    """Files of the original do not say which of the two names their discriminator had."""
    settings = {"generator": "resnet6", "ngf": 2, "ndf": 2}
    source = CycleGAN(**settings)
    write_official(source.state_dict(), tmp_path)
    task = CycleGAN(**settings, discriminator="n_layers", n_layers=3)
    start_from(task, tmp_path)
    assert same(task.state_dict(), source.state_dict())
