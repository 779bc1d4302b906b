"""The README, the docs and the comments of the configs: commands, options, configs, links and paths exist."""

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from settings_reference import on_page_markdown, options
from torch.distributed.run import get_args_parser

from cyclestyle.commands.line.shipped_configs import config_names, resolve_config

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "datasets/README.md", *ROOT.glob("docs/**/*.md")])
SCRIPTS = sorted(ROOT.glob("scripts/*.sh"))
CONFIGS = sorted(ROOT.glob("configs/**/*.yaml"))

TRAINING = ("fit", "validate", "test")
PREDICTION = ("predict", "export", "demo", "models", "sample-data", "score", "compare", "configs")
CLASSES = {
    "model": ("CycleGAN", "CUT", "DCLGAN", "ContentGAN", "Johnson", "Gatys", "Autoencoder"),
    "data": ("UnpairedImages", "Photos"),
}
USUAL = {"model": "CycleGAN", "data": "UnpairedImages"}  # of a training command without a config that names others


def relative(path):
    return path.relative_to(ROOT).as_posix()


def shell_text(path):
    """The shell code in a page, a script, or the comments of a config."""
    text = path.read_text()
    if path.suffix == ".md":
        return "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    if path.suffix == ".yaml":
        return "\n".join(re.findall(r"^# {3,}(.*)$", text, re.MULTILINE))
    return text


def shell_lines(path):
    for line in shell_text(path).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) if path.suffix == ".md" or "cyclestyle " in line else []
        if words:
            yield words


def commands(path):
    """The words after `cyclestyle` in each of its commands."""
    for words in shell_lines(path):
        if "cyclestyle" in words and words[0] != "echo":
            yield words[words.index("cyclestyle") + 1 :]


ALL_COMMANDS = [
    pytest.param(words, id=f"{relative(path)}: {' '.join(words)}")
    for path in [*PAGES, *SCRIPTS, *CONFIGS]
    for words in commands(path)
]


def given_options(words):
    """Each option of a command line with the word that follows it."""
    joined = [part for word in words for part in (word.split("=", 1) if word.startswith("-") else [word])]
    for word, following in zip(joined, [*joined, ""][1:], strict=True):
        if word.startswith("--") or word == "-c":
            yield ("config" if word == "-c" else word[2:]), following


def named_classes(command, given):
    """The class of the task and of the data on a command line."""
    classes = dict(USUAL) if command in TRAINING else {}
    for name, value in given:
        if name == "config":
            config = yaml.safe_load(resolve_config(value).read_text())
            parts = {group: config[group] for group in USUAL if isinstance(config.get(group), dict)}
            classes |= {group: part["class_path"] for group, part in parts.items() if "class_path" in part}
        elif not value.startswith("-"):
            classes[name] = value
    return classes


def unknown_options(words):
    command, *rest = words
    known, given = set(options(command)), list(given_options(rest))
    classes = named_classes(command, given)
    for group in {name.partition(".")[0] for name, _ in given} & classes.keys():
        if f"{group}.help" in known:
            known |= options(command, f"--{group}.help={classes[group]}").keys()
    return [name for name, _ in given if name not in known]


@pytest.fixture(scope="module", autouse=True)
def _own_method(tmp_path_factory):
    """The method of docs/write_a_method.md, which its commands name."""
    folder = tmp_path_factory.mktemp("own")
    code = (ROOT / "docs" / "write_a_method.md").read_text().split("```python\n")[1].split("```")[0]
    (folder / "colourise.py").write_text(code)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("colourise", None)


@pytest.mark.parametrize("words", ALL_COMMANDS)
def test_commands_have_options_and_configs_that_exist(words):
    assert unknown_options(words) == []


def test_the_check_finds_what_is_wrong():
    assert unknown_options(["fit", "--config", "cyclegan", "--model.lamda_A", "1"]) == ["model.lamda_A"]
    assert unknown_options(["fit", "--config", "johnson", "--model.lambda_A=1"]) == ["model.lambda_A"]
    assert unknown_options(["fit", "--config=johnson", "--data.train", "a", "--grid.pictures=1"]) == ["grid.pictures"]
    assert unknown_options(["predict", "--config", "gatys", "--model.sizes", "[256]", "--turbo"]) == ["turbo"]
    assert unknown_options(["compare", "--logger", "WandbLogger", "--logger.offline", "true"]) == []
    with pytest.raises(ValueError, match="cyclestyle nothing has no help"):
        unknown_options(["nothing"])
    assert len(ALL_COMMANDS) > 40


@pytest.fixture(scope="module")
def all_options():
    """Every option of every command and class, of torchrun and of the scripts."""
    known = {name for command in (*TRAINING, *PREDICTION) for name in options(command)}
    for group, classes in CLASSES.items():
        known |= {name for one in classes for name in options("fit", f"--{group}.help={one}")}
    known |= options("compare", "--logger.help=WandbLogger").keys()
    known |= {name.lstrip("-") for action in get_args_parser()._actions for name in action.option_strings}
    for script in ROOT.glob("scripts/*.py"):
        known |= set(re.findall(r'add_argument\(\s*"--([\w.]+)"', script.read_text()))
    return known


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_options_in_the_text_exist(page, all_options):
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    ours = [span for span in spans if span.startswith(("--", "cyclestyle "))]
    named = {name for span in ours for name in re.findall(r"(?<!\S)--([a-z][\w.]*)", span)}
    assert named - all_options == set()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_scripts_are_called_with_options_that_they_have(page):
    for words in shell_lines(page):
        script = next((word for word in words if word.startswith("scripts/")), None)
        if script is not None:
            text = (ROOT / script).read_text()
            assert [word for word in words if word.startswith("--") and f'"{word}"' not in text] == []


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=relative)
def test_links_and_paths_exist(page):
    text = page.read_text()
    if page.suffix == ".md":
        links = re.findall(r"\]\(([^)\s]+)\)", text)
        files = [link.partition("#")[0] for link in links if "://" not in link]
        assert [file for file in files if file and not (page.parent / file).exists()] == []
    paths = re.findall(r"(?<![\w./-])(?:configs|scripts|tests|docs|cyclestyle)/[\w./]+\.\w+", text)
    assert [path for path in paths if not (ROOT / path).exists() and not (page.parent / path).exists()] == []


def test_every_config_is_mentioned():
    text = "\n".join(page.read_text() for page in PAGES)
    named = {name.removeprefix("configs/").removesuffix(".yaml") for name in re.findall(r"`([\w./]+)`", text)}
    assert set(config_names()) - named == set()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_python_code_imports_what_exists(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [one.name for one in node.names if not hasattr(module, one.name)] == []


def test_the_configuration_page_shows_every_setting():
    page = on_page_markdown((ROOT / "docs" / "configuration.md").read_text())
    assert "<!--" not in page
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*)` \| (.*) \|$", page, re.MULTILINE)
    assert all(meaning for _, _, meaning in rows)
    assert {("model.lambda_A", "10.0"), ("model.preset", "reference"), ("grid.images", "4")} <= {
        row[:2] for row in rows
    }
    for name in ("cyclegan", "cut", "dclgan", "johnson", "gatys", "autoencoder"):
        for part in ("model", "data"):
            settings = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text()).get(part, {}).get("init_args", {})
            assert {f"{part}.{key}" for key in settings} <= {row[0] for row in rows}


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md")}
    assert set(re.findall(r"[\w/]+\.md", str(nav))) == pages
