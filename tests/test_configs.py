"""Every YAML that the project ships is parsed as its first lines say, against the real classes."""

import os
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
import yaml

from cyclestyle.cli import main
from cyclestyle.tasks import CUT, DCLGAN, Autoencoder, ContentGAN, CycleGAN, Gatys, Johnson
from cyclestyle.tasks.pixel_optimisation import Painting
from cyclestyle.tasks.schedule import scheduled_epochs

CONFIGS = Path(__file__).parents[1] / "configs"
DATA_SETS = sorted(CONFIGS.glob("*2*.yaml"))
STYLE = [CONFIGS / f"{name}.yaml" for name in ("gatys", "gatys_relu3", "wct")]
COMPARISON = [CONFIGS / f"{name}.yaml" for name in ("compare", "sample_johnson", "sample_autoencoder")]
AUTOENCODER = [CONFIGS / "autoencoder.yaml", CONFIGS / "adain.yaml"]
JOHNSON = [CONFIGS / "johnson.yaml", CONFIGS / "johnson_relu3.yaml"]
STYLES = CONFIGS / "styles.yaml"
OTHER_GANS = {CONFIGS / "cut.yaml": CUT, CONFIGS / "dclgan.yaml": DCLGAN, CONFIGS / "content_gan.yaml": ContentGAN}
FASTCUT = CONFIGS / "fastcut.yaml"
MONET, MONET_SMALL = CONFIGS / "monet.yaml", CONFIGS / "monet_small.yaml"
OVERLAYS = sorted((CONFIGS / "overlays").glob("*.yaml"))


def parsed(capsys, *configs, words=()):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *(f"--config={path}" for path in configs), *words, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def test_every_file_is_tested():
    tested = {CONFIGS / "cyclegan.yaml", CONFIGS / "quickstart.yaml", CONFIGS / "sweep.yaml", *DATA_SETS, *OVERLAYS}
    tested |= {*JOHNSON, *STYLE, *COMPARISON, *AUTOENCODER, *OTHER_GANS, FASTCUT, MONET, MONET_SMALL, STYLES}
    assert set(CONFIGS.rglob("*.yaml")) == tested


def test_the_paper_recipe_shows_every_default(capsys):
    shown = yaml.safe_load((CONFIGS / "cyclegan.yaml").read_text())
    bare = parsed(capsys, words=["--model=CycleGAN", "--data=UnpairedImages"])
    for part in ("model", "data"):
        assert shown[part]["init_args"] == bare[part]["init_args"]
    assert shown["model"]["init_args"]["betas"] == [0.5, 0.999]


@pytest.mark.parametrize(("path", "task"), OTHER_GANS.items(), ids=lambda value: getattr(value, "stem", ""))
def test_recipes_of_other_gans_show_every_default(capsys, path, task):
    shown = yaml.safe_load(path.read_text())
    bare = parsed(capsys, words=[f"--model={task.__name__}", "--data=UnpairedImages"])
    for part in ("model", "data"):
        assert shown[part]["init_args"] == bare[part]["init_args"]
    cyclegan = yaml.safe_load((CONFIGS / "cyclegan.yaml").read_text())
    assert {key for key in shown if shown[key] != cyclegan[key]} == {"model", "trainer"}
    assert shown["trainer"]["default_root_dir"] == f"runs/{path.stem}"


def test_fastcut_changes_the_losses_and_the_schedule_alone(capsys):
    base, changed = parsed(capsys, CONFIGS / "cut.yaml"), parsed(capsys, CONFIGS / "cut.yaml", FASTCUT)
    assert {key for key in base if base[key] != changed[key]} == {"model", "trainer"}
    before, after = (config["model"]["init_args"] for config in (base, changed))
    assert {key: after[key] for key in after if after[key] != before[key]} == {
        "lambda_NCE": 10.0, "nce_identity": False, "flip_equivariance": True, "constant_epochs": 150,
        "decay_epochs": 50,
    }  # fmt: skip
    assert scheduled_epochs(after) == 200


def test_the_recipe_for_cpus_is_an_overlay_of_the_paper_recipe(capsys):
    config = parsed(capsys, CONFIGS / "cyclegan.yaml", CONFIGS / "monet2photo.yaml", MONET_SMALL)
    assert config["data"]["init_args"]["root"] == "datasets/monet2photo"
    assert config["trainer"]["default_root_dir"] == "runs/monet_small"
    settings = config["model"]["init_args"]
    assert settings["residual"]
    assert CycleGAN(**settings).schedule.constant_epochs == 4


def test_monet_has_the_network_of_the_painter(capsys):
    config = parsed(capsys, CONFIGS / "content_gan.yaml", MONET)
    settings = config["model"]["init_args"]
    assert (settings["depth"], settings["ngf"], settings["resample"], settings["norm"]) == (5, 16, "resize", "none")
    assert config["data"]["init_args"]["train_A"] == ["datasets/monet2photo/trainB"]
    assert ContentGAN(**settings).schedule.constant_epochs == 40


@pytest.mark.parametrize("path", DATA_SETS, ids=lambda path: path.stem)
def test_data_sets_are_the_paper_recipe_with_differences_only(capsys, path):
    config = parsed(capsys, CONFIGS / "cyclegan.yaml", path)
    assert config["data"]["init_args"]["root"] == f"datasets/{path.stem}"
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    assert set(yaml.safe_load(path.read_text())) == {"data", "trainer"}
    assert CycleGAN(**{**config["model"]["init_args"], "ngf": 1, "ndf": 1}).schedule.constant_epochs == 100


def test_many_styles_are_an_overlay_of_johnson(capsys):
    config = parsed(capsys, JOHNSON[0], STYLES, words=["--model.style=[a.jpg,b.jpg]"])
    model = config["model"]["init_args"]
    assert (model["conditional"], model["preset"], model["width"]) == (True, "magenta", 16)
    assert Johnson(**model).style_names == ("a", "b")


def test_johnson_shows_every_default(capsys):
    shown = yaml.safe_load(JOHNSON[0].read_text())
    bare = parsed(capsys, words=["--model=Johnson", "--data=Photos"])
    for part in ("model", "data"):
        assert shown[part]["init_args"] == bare[part]["init_args"]
    config = parsed(capsys, JOHNSON[0])
    assert (config["trainer"]["max_steps"], config["data"]["init_args"]["batch_size"]) == (40000, 4)


def test_johnson_up_to_relu3_1_changes_the_layers_alone(capsys):
    base, changed = parsed(capsys, JOHNSON[0]), parsed(capsys, *JOHNSON)
    assert {key for key in base if base[key] != changed[key]} == {"model"}
    task = Johnson(**changed["model"]["init_args"])
    assert max(*task.content_layers, *task.style_layers) == "relu3_1"


def test_gatys_shows_every_default():
    shown = yaml.safe_load(STYLE[0].read_text())["model"]["init_args"]
    parameters = {**signature(Gatys).parameters, **signature(Painting).parameters}
    defaults = {name: one.default for name, one in parameters.items() if name != "painting"}
    assert shown == {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


@pytest.mark.parametrize("path", STYLE, ids=lambda path: path.stem)
def test_methods_that_take_a_style_are_parsed_by_predict(capsys, path):
    with pytest.raises(SystemExit, match="0"):
        main(["predict", f"--config={path}", "--input=a", "--output=b", "--print_config"])
    changed = yaml.safe_load(path.read_text())["model"]["init_args"]
    config = yaml.safe_load(capsys.readouterr().out)
    assert changed.items() <= config["model"]["init_args"].items()


def test_the_autoencoder_shows_every_default(capsys):
    shown = yaml.safe_load(AUTOENCODER[0].read_text())["model"]["init_args"]
    assert shown == parsed(capsys, words=["--model=Autoencoder", "--data=UnpairedImages"])["model"]["init_args"]
    changed = parsed(capsys, *AUTOENCODER)
    assert Autoencoder(**changed["model"]["init_args"]).objective == "adain"


def test_the_comparison_of_the_sample_domains(capsys):
    compared = yaml.safe_load(COMPARISON[0].read_text())
    checkpoints = {method["predict"].get("ckpt_path", "") for method in compared["methods"]}
    for base, path in ((JOHNSON[0], COMPARISON[1]), (AUTOENCODER[0], COMPARISON[2])):
        root = parsed(capsys, base, path)["trainer"]["default_root_dir"]
        assert f"{root}/checkpoints/last.ckpt" in checkpoints
    assert "runs/quickstart/checkpoints/last.ckpt" in checkpoints


def test_the_quickstart(capsys):
    config = parsed(capsys, CONFIGS / "quickstart.yaml")
    assert config["model"]["init_args"]["generator"] == "resnet6"
    assert config["trainer"]["default_root_dir"] == "runs/quickstart"


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_change_their_parts_alone(capsys, path):
    base = parsed(capsys, CONFIGS / "cyclegan.yaml")
    changed = parsed(capsys, CONFIGS / "cyclegan.yaml", path)
    parts = {"ema": {"ema"}, "fast": {"speed"}, "small_set": {"ema", "model"}, "projected": {"model"}}.get(
        path.stem, {"trainer"}
    )
    assert {key for key in base if base[key] != changed[key]} == parts
    assert set(yaml.safe_load(path.read_text())) == parts


@pytest.mark.parametrize("path", [CONFIGS / "cyclegan.yaml", *OTHER_GANS], ids=lambda path: path.stem)
def test_the_overlays_of_models_fit_every_gan(capsys, path):
    overlays = [CONFIGS / "overlays" / f"{name}.yaml" for name in ("small_set", "projected")]
    settings = parsed(capsys, path, *overlays)["model"]
    for overlay in overlays:
        shown = yaml.safe_load(overlay.read_text())["model"]["init_args"]
        assert all(settings["init_args"][name] == value for name, value in shown.items())
    task = {task.__name__: task for task in (CycleGAN, *OTHER_GANS.values())}[settings["class_path"].rpartition(".")[2]]
    built = task(**{**settings["init_args"], "ngf": 1, "ndf": 1})
    assert built.G_AB.comb_filter


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
    assert config["ema"]["decay"] == 0
    assert sweep["metric"]["name"] == "val/kid"  # which decides on the best checkpoint without averages
