"""Messages of jsonargparse 4.53, as it writes them, and the line that a user gets."""

import errno
import subprocess
import sys

import pytest

from cyclestyle.commands.line.errors import one_line, one_line_errors
from cyclestyle.commands.line.shipped_configs import config_folder
from cyclestyle.errors import CycleStyleError

MESSAGES = {
    "unrecognized arguments: --nonsense=1": "unrecognized arguments: --nonsense=1",
    """Parser key "trainer.max_epochs":
      Does not validate against any of the Union subtypes
      Subtypes: [NoneType, int]
      Errors:
        - Expected a <class 'NoneType'>
        - Expected a <class 'int'>
      Given value type: <class 'str'>
      Given value: x""": "trainer.max_epochs: Expected int, got x",
    """Parser key "model":
      Does not validate against any of the Union subtypes
      Errors:
        - Parser key "generator":
          Expected a typing.Literal['resnet9', 'resnet6']. Got value: foo""": (
        "model.generator: Expected one of ['resnet9', 'resnet6'], got foo"
    ),
    "Parser key \"model\": Option 'ngff' is not accepted": "model: there is no option ngff",
    "the following arguments are required: fit.data, fit.model": (
        "nothing to train: add --config cyclegan, or any other name that `cyclestyle configs` lists"
    ),
    """Parser key "trainer.logger":
      Problem with given class_path 'cyclestyle.training.MLFlowLogger':
        Requirement 'mlflow>=1.0.0' not met. HINT: Try running `pip install -U 'mlflow>=1.0.0'`
      - Expected Iterable""": "mlflow is not installed; `pip install mlflow` adds it",
    "a plain\n   message": "a plain message",
}


@pytest.mark.parametrize(("message", "line"), MESSAGES.items())
def test_messages_are_one_line(message, line):
    assert one_line(message) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["fit", "--config=cyclegan", "--model.ngff=3"], "model: there is no option ngff"),
        (["fit", "--config=cyclegan", "--model.ngf=abc"], "model.ngf: Expected int, got abc"),
        (["fit", "--config=cyclegan", "--trainer.max_epochs=x"], "trainer.max_epochs: Expected int, got x"),
        (["fit"], "nothing to train: add --config cyclegan"),
        (["fit", "--config=cyclegan", "--trainer.logger=WandLogger"],
         "trainer.logger: there is no class WandLogger\n"),
        (["predict", "--input=tests"], "name the file or folder of the results with --output"),
        (["score", "--output=a"], "the following arguments are required: input, source, target"),
        (["score", "--json=/proc/none/x.json", *(f"--{one}=a" for one in ("output", "input", "source", "target"))],
         "cannot write into /proc/none"),
        (["sample-data"], "the following arguments are required: folder"),
        (["sample-data", "x", "--train=a"], "train: Expected int, got a"),
        (["score", "--columns=0", *(f"--{one}=a" for one in ("output", "input", "source", "target"))],
         "columns must be at least 1, got 0"),
        (["demo", "--port=80000"], "port must be from 1 to 65535, got 80000"),
        (["demo", "--host=300.1.1.1"], "cannot listen at 300.1.1.1, which is no address of this machine"),
        (["export", "--format=x"], "format: Expected one of ['official', 'safetensors',"),
        (["export", "--config=gatys", "--output=y"], "SHIPPED/gatys.yaml is no config of export, which has no "),
        (["export", "--ckpt_path=nowhere.ckpt", "--output=y"], "checkpoint nowhere.ckpt does not exist"),
    ],
)  # fmt: skip
def test_every_command_reports_a_mistake_in_one_line(cyclestyle, words, line):
    status, _, error = cyclestyle(*words)
    assert status == 1
    assert len(error.splitlines()) == 1
    assert error.startswith(f"cyclestyle: error: {line.replace('SHIPPED', str(config_folder()))}")


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "--ckpt_path", "nowhere.ckpt", "--input", "a", "--output", "b"),
        ("predict", "--input", "nowhere.png", "--output", "b"),
        ("export", "--ckpt_path=nowhere.ckpt"),
        ("fit", "--config", "nowhere.yaml"),
    ],
)
def test_a_missing_file_is_told_before_torch_is_imported(words):
    code = f"import sys; from cyclestyle.cli import main; print(main({list(words)}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1 False\n"
    assert "does not exist" in done.stderr


def test_a_full_disk_is_a_mistake_that_a_user_can_mend():
    with pytest.raises(CycleStyleError, match=r"cannot write last\.ckpt: No space left on device"), one_line_errors():
        raise OSError(errno.ENOSPC, "No space left on device", "last.ckpt")


@pytest.mark.parametrize("overlay", ["small_set", "monet_small"])
def test_an_overlay_alone_names_what_it_belongs_on(cyclestyle, overlay):
    status, _, err = cyclestyle("fit", f"--config={overlay}")
    assert status != 0
    assert err == "cyclestyle: error: " + (
        "the config names no method: put it on top of one, as in --config cyclegan --config small_set\n"
    )
