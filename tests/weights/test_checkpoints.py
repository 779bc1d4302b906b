import pytest

from cyclestyle.errors import CheckpointError
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.resolve import resolve_checkpoint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "`git lfs pull` downloads it"),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page"),
        (b"<html><body>404</body></html>", "is a web page"),
        (b"\x89HDF\r\n\x1a\n\0\0\0", "is a file of Keras"),
        (b"", "is empty"),
    ],
)
def test_what_is_saved_as_a_checkpoint_by_mistake_is_named(tmp_path, content, message):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("style_monet", "did you mean official:style_monet?"),
        ("style", "did you mean styles?"),
        ("quite_another", "or a model: `cyclestyle models` lists "),
    ],
)
def test_a_name_that_is_none_leads_to_those_that_are(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as error:
        resolve_checkpoint(name)
    assert f"checkpoint {name} does not exist; " in str(error.value)
    assert message in str(error.value)
