"""Translators in folders and repositories, without a network."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from cyclestyle.errors import CheckpointError
from cyclestyle.sharing.hub import Run, model_card
from cyclestyle.tasks import CycleGAN, load
from cyclestyle.translator import Translator
from cyclestyle.weights.checkpoints import write_checkpoint

pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with all that a model card names."""
    folder = tmp_path_factory.mktemp("hub") / "run"
    for name in ("checkpoints", "grids", "images/trainA", "images/trainB"):
        (folder / name).mkdir(parents=True)
    torch.manual_seed(0)
    task = CycleGAN(generator="resnet6", depth=1, ngf=2, ndf=2, discriminator="pixel")
    settings = {"hyper_parameters": dict(task.hparams), "cyclestyle_task": "CycleGAN"}
    write_checkpoint({"state_dict": task.state_dict(), **settings}, folder / "checkpoints" / "best.ckpt")
    config = {"data": {"init_args": {"root": str(folder / "images")}}}
    (folder / "config.yaml").write_text(json.dumps(config))
    row = {"step": 7, "raw AtoB": {"kid": 0.25, "extractor": "statistics"}}
    (folder / "evaluation.jsonl").write_text(json.dumps(row) + "\n{cut")
    Image.new("RGB", (8, 8)).save(folder / "grids" / "7.png")
    for name in ("trainA/1.png", "trainA/2.png", "trainB/1.png"):
        Image.new("RGB", (8, 8)).save(folder / "images" / name)
    return folder


@pytest.fixture(scope="module")
def saved(run):
    folder = run.parent / "saved"
    Translator.load(run, direction="BtoA").save_pretrained(folder, licence="CC0-1.0")
    return folder


def test_another_process_translates_the_same(forks, run, saved):
    code = (
        "import sys, torch; from cyclestyle import Translator; torch.manual_seed(1); "
        "images = torch.rand(1, 3, 30, 41) * 2 - 1; "
        "torch.save(Translator.from_pretrained(sys.argv[1]).translate(images), sys.argv[2])"
    )
    result = run.parent / "result.pt"
    assert forks.run(saved, result, code=code).returncode == 0
    torch.manual_seed(1)
    images = torch.rand(1, 3, 30, 41) * 2 - 1
    expected = Translator.load(run, direction="BtoA").translate(images)
    assert torch.equal(torch.load(result, weights_only=True), expected)


def test_the_card_is_written_from_the_run(run, saved):
    card = (saved / "README.md").read_text()
    for text in ("license: cc0-1.0\n", "CycleGAN", "domain A: 2 images", "domain B: 1 images", "samples.png"):
        assert text in card
    assert "| KID, AtoB, weights of the last step | 0.25 |" in card
    assert "| extractor, AtoB, weights of the last step | statistics |" in card
    assert (saved / "samples.png").read_bytes() == (run / "grids" / "7.png").read_bytes()
    config = json.loads((saved / "config.json").read_text())
    assert config["direction"] == "BtoA"
    assert str(run.parent) not in json.dumps(config)  # no folders of this machine


def test_predict_takes_the_folder(cyclestyle, saved, tmp_path):
    Image.new("RGB", (20, 12)).save(tmp_path / "photo.png")
    words = ["--input", tmp_path / "photo.png", "--output", tmp_path / "out.png", "--no_progress"]
    status, _, err = cyclestyle("predict", "--ckpt_path", saved, "--direction", "AtoB", *words)
    assert status == 0, err
    assert Image.open(tmp_path / "out.png").size == (20, 12)


def test_a_licence_that_the_hub_does_not_know_is_named():
    description = {"licence": "mine: ask me", "method": "CycleGAN", "settings": {}}
    assert 'license: other\nlicense_name: "mine: ask me"\n' in model_card(description, Run(), ["AtoB"])
    assert "license: gpl-3.0\n" in model_card({**description, "licence": "GPL-3.0-or-later"}, Run(), ["AtoB"])


def test_predict_takes_a_repository_as_python_does(cyclestyle, saved, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **_: asked.append(name) or str(saved))
    Image.radial_gradient("L").resize((20, 12)).convert("RGB").save(tmp_path / "photo.png")
    words = ["--input", tmp_path / "photo.png", "--output", tmp_path / "out.png", "--speed=exact", "--workers=0"]
    status, _, err = cyclestyle("predict", "--ckpt_path", "someone/mine", *words)
    assert status == 0, err
    translate = Translator.from_pretrained("someone/mine", speed="exact")
    assert set(asked) == {"someone/mine"}
    assert list(Image.open(tmp_path / "out.png").getdata()) == list(translate(tmp_path / "photo.png").getdata())


def test_pushing_hands_the_folder_to_the_client(run, saved, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    uploaded = {}

    def create_repo(self, repo_id, **options):
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, folder_path, **options):
        uploaded.update({path.name: path.read_bytes() for path in sorted(folder_path.iterdir())})
        return "https://huggingface.co/someone/mine/commit/1"

    monkeypatch.setattr(hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload_folder)
    assert Translator.load(run).push_to_hub("someone/mine").endswith("/commit/1")
    assert uploaded["model.safetensors"][-100:] == (saved / "model.safetensors").read_bytes()[-100:]
    assert {"README.md", "config.json", "model.safetensors", "samples.png"} == uploaded.keys()


def test_a_repository_is_not_reached_offline(forks, tmp_path):
    pytest.importorskip("huggingface_hub")
    code = "from cyclestyle import Translator; Translator.from_pretrained('someone/mine')"
    done = forks.run(code=code, env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    assert "CheckpointError: someone/mine does not exist, and cannot be downloaded" in done.stderr


def test_a_folder_without_a_translator_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        Translator.from_pretrained(tmp_path)


def test_an_artifact_is_loaded_by_its_name(run, monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    asked = []

    class Api:
        def artifact(self, name):
            asked.append(name)
            return SimpleNamespace(download=lambda root: str(run / "checkpoints"))

    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setenv("CYCLESTYLE_CACHE", str(tmp_path))
    assert type(load("wandb:me/paintings/model-1:v3")).__name__ == "CycleGAN"
    load("wandb:me/paintings/model-1")
    assert asked == ["me/paintings/model-1:v3", "me/paintings/model-1:latest"]
    with pytest.raises(CheckpointError, match="must be wandb:entity/project/name:alias"):
        load("wandb:model-1")
