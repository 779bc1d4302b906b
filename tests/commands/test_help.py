"""Help that fits on a screen, and suggestions for what was misspelt."""

import pytest


@pytest.mark.parametrize("command", ["fit", "test", "validate"])
def test_the_help_of_training_fits_on_a_screen(cyclestyle, capsys, command):
    with pytest.raises(SystemExit, match="0"):
        cyclestyle(command, "--help")
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 32
    assert "--data.root" in text
    assert f"cyclestyle {command} --config" in text


def test_the_short_help_has_the_defaults_of_the_classes(cyclestyle, capsys):
    with pytest.raises(SystemExit, match="0"):
        cyclestyle("fit", "--help")
    text = capsys.readouterr().out
    for shown in ("learning rate (default: 0.0002)", "(default: resnet9)", "--ckpt_path", "--init_from", "runs/"):
        assert shown in text


def test_help_all_lists_every_option(cyclestyle, capsys):
    with pytest.raises(SystemExit, match="0"):
        cyclestyle("fit", "--help", "all")
    text = capsys.readouterr().out
    for option in ("--trainer.limit_val_batches", "--alarms.enabled", "--grid.images", "--oversubscribe"):
        assert option in text


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--epochs", "3"], "--trainer.max_epochs or --model.constant_epochs or --model.decay_epochs"),
        (["--lr", "0.1"], "--model.lr"),
        (["--model.lamda_A", "3"], "--model.lambda_A"),
        (["--batch_size", "3"], "--data.batch_size"),
        (["--data.crop", "3"], "--data.crop_size"),
        (["--trainer.max_epochz", "3"], "--trainer.max_epochs"),
        (["--dataroot", "x"], "--data.root"),
        (["--gpu_ids", "0"], "--trainer.devices"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_misspelt_option_gets_a_suggestion(cyclestyle, words, meant):
    status, _, error = cyclestyle("fit", "--config", "cyclegan", *words)
    assert status == 1
    assert f"; did you mean {meant}?" in error
    assert error.count("did you mean") == 1
    assert len(error.strip().splitlines()) == 1


def test_an_option_that_is_like_no_other_gets_none(cyclestyle):
    status, _, error = cyclestyle("fit", "--config", "cyclegan", "--zzzzzz", "3")
    assert status == 1
    assert "did you mean" not in error


def test_fit_without_words_says_which_to_add(cyclestyle):
    assert "add --config cyclegan" in cyclestyle("fit")[2]


def test_an_empty_config_is_named(cyclestyle, tmp_path):
    for name, content, reason in (("empty", "", "is empty"), ("text", "hello", "holds 'hello', not options")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(content)
        status, _, error = cyclestyle("fit", "--config", path)
        assert status == 1
        assert f"{path} {reason}" in error


@pytest.mark.parametrize("as_option", [True, False])
def test_the_home_folder_is_expanded(cyclestyle, tmp_path, monkeypatch, as_option):
    """A shell leaves `~` alone in `--data.root=~/images`, and a config has no shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data.yaml").write_text("data:\n  init_args:\n    root: ~/images\n")
    words = ["--data.root=~/images"] if as_option else ["--config", tmp_path / "data.yaml"]
    status, _, error = cyclestyle("fit", "--config", "cyclegan", *words)
    assert status == 1
    assert f"{tmp_path / 'images'} does not exist" in error


def test_a_file_where_a_folder_is_wanted_is_named_as_one(cyclestyle, tmp_path):
    path = tmp_path / "file"
    path.touch()
    status, _, error = cyclestyle("fit", "--config", "cyclegan", f"--data.root={path}")
    assert status == 1
    assert f"data.root {path} is a file; expected a folder" in error
    root = f"--trainer.default_root_dir={path}"
    status, _, error = cyclestyle("fit", "--config", "cyclegan", f"--data.root={tmp_path}", root)
    assert status == 1
    assert f"{path} is a file; name a folder" in error


def test_output_that_nobody_reads_on_is_no_error(tmp_path):
    import subprocess
    import sys

    command = f"{sys.executable} -m cyclestyle configs cyclegan | head -c 1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in result.stderr
