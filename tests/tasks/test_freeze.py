"""`model.freeze`: parts of networks that are not trained, for every method."""

import pytest
import torch

from cyclestyle.cli import main
from cyclestyle.weights.checkpoints import read_checkpoint


def words(tiny_fit, config):
    """The words of a tiny training of another method."""
    if config == "cyclegan":
        return tiny_fit
    kept = [word for word in tiny_fit[2:] if "pool_size" not in word]
    return ["fit", f"--config=configs/{config}.yaml", *kept, "--model.nce_patches=16", "--model.nce_width=4"]


def last(run):
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(
    ("config", "freeze", "prefixes"),
    [
        ("cyclegan", "[G_AB.model.1,'*.conv_block.1',D_A]", ("G_AB.model.1.", "D_A.")),
        ("cut", "D_B", ("D_B.",)),
        ("cut", "[D_B.model.0,F_AB]", ("D_B.model.0.", "F_AB.")),
    ],
)
def test_what_is_frozen_does_not_move_and_a_resumed_run_is_the_whole_one(
    tiny_fit, tmp_path, monkeypatch, config, freeze, prefixes
):
    start, whole, parts = {}, tmp_path / "whole", tmp_path / "parts"
    fit = [*words(tiny_fit, config), f"--model.freeze={freeze}", "--model.lr=0.01", "--model.constant_epochs=2"]
    monkeypatch.setattr(
        "cyclestyle.tasks.Task.on_fit_start",
        lambda self: start.update({name: value.clone() for name, value in self.state_dict().items()}),
    )
    assert main([*fit, f"--trainer.default_root_dir={whole}"]) == 0
    begun, weights = dict(start), last(whole)["state_dict"]
    frozen = {name for name in weights if name.startswith(prefixes) or (".conv_block.1." in name and "conv" in freeze)}
    assert frozen
    for name, value in weights.items():
        if name.endswith(".filt"):  # constant
            continue
        assert torch.equal(value, begun[name]) == (name in frozen), name
    assert main([*fit, f"--trainer.default_root_dir={parts}", "--trainer.max_steps=5"]) == 0
    assert main([*fit, f"--trainer.default_root_dir={parts}", "--ckpt_path=last"]) == 0
    assert all(torch.equal(value, weights[name]) for name, value in last(parts)["state_dict"].items())


def test_what_was_frozen_is_trained_after_a_resume_without_it(cyclestyle, tiny_fit, tmp_path):
    fit = [*tiny_fit, "--model.lr=0.01", f"--trainer.default_root_dir={tmp_path}"]
    assert cyclestyle(*fit, "--model.freeze=G_AB", "--ema.decay=0.5")[0] == 0
    before = last(tmp_path)
    assert not any(name.startswith("G_AB.") for name in before["ema"])
    more = ["--ckpt_path=last", "--model.constant_epochs=2", "--ema.decay=0.5"]
    status, _, error = cyclestyle(*fit, *more)
    assert status == 0, error
    assert "continuing with model.freeze []" in error
    after = last(tmp_path)["state_dict"]
    moved = {
        name.partition(".")[0] for name, value in before["state_dict"].items() if not torch.equal(value, after[name])
    }
    assert moved == {"G_AB", "G_BA", "D_A", "D_B"}


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (
            "G_AB.encoder*",
            "G_AB.encoder* matches no trained weights; the networks are G_AB, G_BA, D_A, D_B, and their",
        ),
        ("*", "model.freeze leaves nothing to train; freeze less"),
    ],
)
def test_a_name_that_is_not_there_is_refused(cyclestyle, tiny_fit, tmp_path, freeze, message):
    status, _, error = cyclestyle(*tiny_fit, f"--trainer.default_root_dir={tmp_path}", f"--model.freeze={freeze}")
    assert status == 1
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
