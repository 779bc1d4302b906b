"""The autoencoder, fitted, resumed, evaluated and used as users do it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="module")
def words(samples):
    return [
        "fit",
        "--config=configs/autoencoder.yaml",
        f"--data.root={samples}",
        "--data.load_size=36",
        "--data.crop_size=32",
        "--data.batch_size=2",
        "--data.workers=0",
        "--model.width=4",
        "--model.level=2",
        "--trainer.max_epochs=2",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--ema.decay=0.9",
        "--grid.every_n_steps=4",
        "--grid.images=2",
        "--page.every_n_seconds=0",
    ]


@pytest.fixture(scope="module")
def run(words, tmp_path_factory):
    from cyclestyle.cli import main

    folder = tmp_path_factory.mktemp("autoencoder")
    assert main([*words, f"--trainer.default_root_dir={folder}"]) == 0
    return folder


def test_it_is_evaluated_like_any_translation(run):
    row = json.loads((run / "evaluation.jsonl").read_text().splitlines()[-1])
    assert row["raw AtoB"]["content"] > 0
    assert row["ema BtoA"]["kid"] is not None
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert list((run / "grids").glob("*.png"))


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(cyclestyle, words, run, tmp_path):
    root = f"--trainer.default_root_dir={tmp_path}"
    assert cyclestyle(*words, root, "--trainer.max_steps=6", "--checkpoint.every_n_train_steps=3")[0] == 0
    assert cyclestyle(*words, root, "--checkpoint.every_n_train_steps=3", "--ckpt_path=last")[0] == 0
    found, expected = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (tmp_path, run)
    )
    for part in ("state_dict", "ema"):
        assert all(torch.equal(found[part][key], value) for key, value in expected[part].items())


def test_predict_takes_the_settings_of_the_checkpoint_and_changes_to_them(cyclestyle, run, samples, tmp_path):
    style = sorted((samples / "trainB").iterdir())[0]
    given = ["predict", "--ckpt_path", run / "checkpoints" / "last.ckpt", "--input", samples / "testA"]
    images = {}
    for name, change in {"as trained": [], "none": ["--model.strength=0"], "raw": ["--averaging=raw"]}.items():
        folder = tmp_path / name
        status, out, _ = cyclestyle(*given, "--output", folder, "--style", style, *change)
        assert status == 0
        assert "3 images written" in out
        images[name] = np.asarray(Image.open(sorted(folder.iterdir())[0]))
    assert not np.array_equal(images["as trained"], images["none"])
    assert not np.array_equal(images["as trained"], images["raw"])


def test_a_checkpoint_may_be_named_in_a_config(cyclestyle, run, samples, tmp_path):
    style = sorted((samples / "trainB").iterdir())[0]
    (tmp_path / "ours.yaml").write_text(f"ckpt_path: {run / 'checkpoints' / 'last.ckpt'}\n")
    given = ["predict", "--config", tmp_path / "ours.yaml", "--input", samples / "testA", "--output", tmp_path / "out"]
    status, out, _ = cyclestyle(*given, "--style", style)
    assert status == 0
    assert "3 images written" in out


def test_a_run_of_other_networks_is_not_resumed(cyclestyle, words, run):
    status, _, err = cyclestyle(*words, f"--trainer.default_root_dir={run}", "--ckpt_path=last", "--model.level=3")
    assert status == 1
    assert "was trained with model.level 2, but the config says 3" in err


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([], "no style: name a painting with --style"),
        (["--style", "{style}", "--mask", "{style}", "{style}"], "an Autoencoder has no styles in regions"),
        (["--style", "{style}", "--model.strength=2"], "strength must be in [0, 1], got 2.0"),
        (["--style", "{style}", "--model.level=3"], "do not fit Autoencoder"),
        (["--style", "{style}", "--model=Gatys", "--model.weights=random"], "is a checkpoint of Autoencoder"),
    ],
)
def test_mistakes_get_one_line(cyclestyle, run, samples, tmp_path, changes, text):
    style = sorted((samples / "trainB").iterdir())[0]
    given = ["predict", "--ckpt_path", run / "checkpoints" / "last.ckpt", "--input", samples / "testA"]
    status, _, err = cyclestyle(*given, "--output", tmp_path / "out", *(word.format(style=style) for word in changes))
    assert status == 1
    assert text in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
