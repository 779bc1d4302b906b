"""What the README and its siblings say is there."""

import re
import shlex
from pathlib import Path

import pytest

from cyclestyle.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "datasets" / "README.md", ROOT / "CONTRIBUTING.md"]


def shell_commands():
    for block in re.findall(r"```sh\n(.*?)```", PAGES[0].read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "cyclestyle" in words:
                yield words[words.index("cyclestyle") + 1 :]


@pytest.mark.parametrize("words", list(shell_commands()), ids=" ".join)
def test_every_option_that_the_readme_shows_is_known(words, capsys):
    assert words[0] in COMMANDS
    if "--style" in words:  # no dry run: a missing painting is the first thing that is noticed
        assert main(words) == 1
        assert f"cannot read {words[words.index('--style') + 1]}: No such file" in capsys.readouterr().err
    elif words[0] in ("predict", "export"):  # a missing checkpoint is
        assert main(words) == 1
        assert f"checkpoint {words[words.index('--ckpt_path') + 1]} does not exist" in capsys.readouterr().err
    elif words[0] == "score":
        assert main(words) == 1
        assert f"{words[words.index('--input') + 1]} does not exist" in capsys.readouterr().err
    else:
        with pytest.raises(SystemExit, match="0"):
            main([*words, "--print_config"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_paths_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:configs|scripts|tests)/[\w./]+\.\w+)", text):
        assert (ROOT / path).exists(), path
