from pathlib import Path

import pytest
import yaml

from cyclestyle.commands.line.shipped_configs import (
    config_folder,
    config_names,
    resolve_config,
    resolve_config_arguments,
)
from cyclestyle.errors import CycleStyleError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_config_of_the_project_has_a_name():
    assert config_folder() == CONFIGS
    assert {CONFIGS / f"{name}.yaml" for name in config_names()} == set(CONFIGS.rglob("*.yaml"))
    assert {"cyclegan", "overlays/ema"} <= set(config_names())


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("cyclegan", "cyclegan"),
        ("cyclegan.yaml", "cyclegan"),
        ("configs/cyclegan.yaml", "cyclegan"),
        ("./configs/cyclegan.yaml", "cyclegan"),
        ("overlays/bf16", "overlays/bf16"),
        ("configs/overlays/bf16.yaml", "overlays/bf16"),
        ("bf16", "overlays/bf16"),
        ("bf16.yaml", "overlays/bf16"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_a_config_is_found_by_name_from_any_folder(word, name):
    assert resolve_config(word) == CONFIGS / f"{name}.yaml"


@pytest.mark.parametrize("word", ["cyclegan", "cyclegan.yaml", "configs/cyclegan.yaml"])
def test_a_file_that_exists_wins(elsewhere, word):
    file = elsewhere / word
    file.parent.mkdir(exist_ok=True)
    file.write_text("model: CycleGAN\n")
    assert resolve_config(word).resolve() == file


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("cycelgan", "did you mean cyclegan? "),
        ("mine/configs/cyclegan.yaml", "did you mean cyclegan? "),
        ("early-stopping", "did you mean early_stopping? "),
        ("nowhere.yaml", ""),
        ("", ""),
    ],
)
def test_a_wrong_name_is_one_line_with_close_names(word, hint):
    with pytest.raises(CycleStyleError) as caught:
        resolve_config(word)
    assert str(caught.value) == f"config {word} does not exist; {hint}`cyclestyle configs` lists the shipped ones"


def test_arguments_are_rewritten_after_config_alone():
    cyclegan, bf16 = CONFIGS / "cyclegan.yaml", CONFIGS / "overlays" / "bf16.yaml"
    words = ["--config", "cyclegan", "-c", "bf16", "--config=bf16", "-c=cyclegan", "--input", "cyclegan", "--config"]
    assert resolve_config_arguments(words) == [
        *("--config", str(cyclegan), "-c", str(bf16), f"--config={bf16}", f"-c={cyclegan}"),
        *("--input", "cyclegan", "--config"),
    ]
    assert resolve_config_arguments([]) == []


@pytest.mark.usefixtures("elsewhere")
def test_fit_and_predict_take_names(cyclestyle, capsys):
    with pytest.raises(SystemExit, match="0"):
        cyclestyle("fit", "--config", "cyclegan", "--config=ema", "--print_config")
    assert yaml.safe_load(capsys.readouterr().out)["ema"]["decay"] == 0.999
    with pytest.raises(SystemExit, match="0"):
        cyclestyle("predict", "-c", "gatys", "--input=a", "--output=b", "--print_config")
    assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["preset"] == "reference"


@pytest.mark.parametrize("command", ["fit", "predict", "compare"])
def test_a_wrong_name_stops_a_command(cyclestyle, command):
    status, _, error = cyclestyle(command, "--config", "cycelgan")
    assert status == 1
    assert error.startswith("cyclestyle: error: config cycelgan does not exist; did you mean cyclegan?")
    assert len(error.splitlines()) == 1


@pytest.mark.usefixtures("elsewhere")
def test_compare_finds_the_configs_that_its_own_config_names(cyclestyle, samples):
    words = ["compare", "--config", "compare", "--input", samples / "testA", "--output", "out"]
    methods = [{"name": "Gatys", "predict": {"config": "configs/gatys_relu3.yaml", "style": "nowhere.png"}}]
    status, _, error = cyclestyle(*words, f"--target={samples / 'testB'}", f"--methods={methods}")
    assert status == 1
    assert error == "cyclestyle: error: Gatys failed: cannot read nowhere.png: No such file or directory\n"


def test_the_list_has_every_config_with_its_first_comment(cyclestyle):
    status, text, _ = cyclestyle("configs")
    assert status == 0
    rows = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert list(rows) == config_names()
    assert rows["overlays/bf16"].startswith("bfloat16")
    assert f"# {rows['cyclegan']}" == (CONFIGS / "cyclegan.yaml").read_text().splitlines()[0]


def test_a_config_is_printed_as_it_is(cyclestyle):
    assert cyclestyle("configs", "ema")[:2] == (0, (CONFIGS / "overlays" / "ema.yaml").read_text())


def test_a_config_is_copied_and_a_file_is_not_replaced_unasked(cyclestyle, tmp_path):
    mine = tmp_path / "new" / "mine.yaml"
    assert cyclestyle("configs", "cyclegan", "--output", mine)[:2] == (0, f"{mine}\n")
    assert mine.read_text() == (CONFIGS / "cyclegan.yaml").read_text()
    mine.write_text("mine")
    status, _, error = cyclestyle("configs", "cyclegan", "--output", mine)
    assert (status, mine.read_text()) == (1, "mine")
    assert error == f"cyclestyle: error: {mine} exists; add --overwrite, or choose another file\n"
    assert cyclestyle("configs", "cyclegan", "--output", mine, "--overwrite")[0] == 0
    assert mine.read_text() == (CONFIGS / "cyclegan.yaml").read_text()
    assert [path.name for path in mine.parent.iterdir()] == ["mine.yaml"]


def test_other_mistakes_are_one_line_too(cyclestyle, tmp_path):
    for words, message in (
        (["--output", tmp_path / "a.yaml"], "name the config to write to"),
        (["nothing_like_it"], "config nothing_like_it does not exist"),
        (["cyclegan", "--output", tmp_path], "is a folder; name a file"),
        (["cyclegan", "--output", "/proc/nowhere/a.yaml"], "cannot write /proc/nowhere/a.yaml"),
    ):
        status, _, error = cyclestyle("configs", *words)
        assert status == 1
        assert message in error
        assert len(error.splitlines()) == 1
