"""Every YAML that the project ships is parsed as its first lines say, against the real classes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cyclestyle.cli import main
from cyclestyle.tasks import CycleGAN

CONFIGS = Path(__file__).parents[1] / "configs"
DATA_SETS = sorted(CONFIGS.glob("*2*.yaml"))
OVERLAYS = sorted((CONFIGS / "overlays").glob("*.yaml"))


def parsed(capsys, *configs, words=()):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *(f"--config={path}" for path in configs), *words, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def test_every_file_is_tested():
    tested = {CONFIGS / "cyclegan.yaml", CONFIGS / "quickstart.yaml", CONFIGS / "sweep.yaml", *DATA_SETS, *OVERLAYS}
    assert set(CONFIGS.rglob("*.yaml")) == tested


def test_the_paper_recipe_shows_every_default(capsys):
    shown = yaml.safe_load((CONFIGS / "cyclegan.yaml").read_text())
    bare = parsed(capsys, words=["--model=CycleGAN", "--data=UnpairedImages"])
    for part in ("model", "data"):
        assert shown[part]["init_args"] == bare[part]["init_args"]
    assert shown["model"]["init_args"]["betas"] == [0.5, 0.999]


@pytest.mark.parametrize("path", DATA_SETS, ids=lambda path: path.stem)
def test_data_sets_are_the_paper_recipe_with_differences_only(capsys, path):
    config = parsed(capsys, CONFIGS / "cyclegan.yaml", path)
    assert config["data"]["init_args"]["root"] == f"datasets/{path.stem}"
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    assert set(yaml.safe_load(path.read_text())) == {"data", "trainer"}
    assert CycleGAN(**{**config["model"]["init_args"], "ngf": 1, "ndf": 1}).constant_epochs == 100


def test_the_quickstart(capsys):
    config = parsed(capsys, CONFIGS / "quickstart.yaml")
    assert config["model"]["init_args"]["generator"] == "resnet6"
    assert config["trainer"]["default_root_dir"] == "runs/quickstart"


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_change_the_trainer_alone(capsys, path):
    base = parsed(capsys, CONFIGS / "cyclegan.yaml")
    changed = parsed(capsys, CONFIGS / "cyclegan.yaml", path)
    assert {key for key in base if base[key] != changed[key]} == {"trainer"}
    assert set(yaml.safe_load(path.read_text())) == {"trainer"}


def test_the_sweep_calls_the_program_as_its_agent_would():
    sweep = yaml.safe_load((CONFIGS / "sweep.yaml").read_text())
    values = {name: spec.get("values", [spec.get("min")])[0] for name, spec in sweep["parameters"].items()}
    arguments = [f"--{name}={value}" for name, value in values.items()]
    words = [word for part in sweep["command"] for word in (arguments if part == "${args}" else [part])]
    environment = {**os.environ, "WANDB_RUN_ID": "abc", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run([*words, "--print_config"], capture_output=True, text=True, env=environment, check=True)
    config = yaml.safe_load(result.stdout)
    assert config["trainer"]["default_root_dir"] == "runs/sweep/abc"
    assert config["model"]["init_args"]["lr"] == 0.0001
    assert sweep["metric"]["name"] == config["best"]["monitor"]
