"""`predict` with methods that take their style from images, called as users call it."""

import json

import numpy as np
import pytest
from PIL import Image

QUICK = [
    "--model.weights=random",
    "--model.content_layers=[relu2_1]",
    "--model.style_layers=[relu1_1,relu2_1]",
    "--model.sizes=[24]",
    "--model.steps=[4]",
]


@pytest.fixture
def photos(tmp_path):
    """Three photos of odd sizes in a tree, and two paintings beside them."""
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (30, 21), "b/c.jpg": (24, 24), "d.png": (40, 3)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    for name in ("one", "two"):
        Image.fromarray(rng.integers(0, 255, (20, 25, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def gatys(cyclestyle, photos):
    def call(*words, config="gatys.yaml"):
        given = ["--input", photos / "photos", "--output", photos / "out", "--no_progress"]
        return cyclestyle("predict", "--config", f"configs/{config}", *QUICK, *given, *words)

    return call


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_photo_comes_back_under_its_name_and_in_its_size(gatys, photos, precision):
    words = ["--style", photos / "one.png", "--stats", photos / "stats.json"]
    status, out, _ = gatys(*words, f"--model.features_precision={precision}")
    assert status == 0
    assert "3 images written" in out
    sizes = {name: Image.open(photos / "out" / name).size for name in ("a.png", "b/c.jpg", "d.png")}
    assert sizes == {"a.png": (30, 21), "b/c.jpg": (24, 24), "d.png": (40, 3)}
    stats = json.loads((photos / "stats.json").read_text())
    assert stats["images"] == 3
    assert stats["seconds"] > 0
    assert stats["peak_memory_bytes"] > 1e8


def test_styles_are_mixed_by_their_weights(gatys, photos):
    results = []
    for weights in ([1, 0], [0, 1], [1, 1]):
        styles = ["--style", photos / "one.png", photos / "two.png", "--style_weights", *weights]
        assert gatys(*styles, "--overwrite")[0] == 0
        results.append(np.asarray(Image.open(photos / "out" / "a.png")).astype(int))
    assert not np.array_equal(results[0], results[1])
    alone = gatys("--style", photos / "one.png", "--overwrite")
    assert alone[0] == 0
    assert np.array_equal(np.asarray(Image.open(photos / "out" / "a.png")), results[0])


def test_masks_of_another_size_fail_by_name_and_the_others_are_painted(gatys, photos):
    masks = photos / "masks"
    for name, size in {"a": (30, 21), "c": (10, 10), "d": (40, 3)}.items():
        masks.mkdir(exist_ok=True)
        Image.new("L", size, 255).save(masks / f"{name}.png")
    status, out, err = gatys("--style", photos / "one.png", "--mask", masks)
    assert status == 1
    assert "2 images written" in out
    assert "c.png is 10×10, but" in err
    assert not (photos / "out" / "b").exists()


def test_masks_lie_in_a_tree_as_the_photos_do(gatys, photos):
    for name, size in {"a": (30, 21), "b/c": (24, 24), "c": (10, 10), "d": (40, 3)}.items():
        path = photos / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, 255).save(path)
    assert gatys("--style", photos / "one.png", "--mask", photos / "masks")[0] == 0


def test_what_is_painted_stays_when_a_later_image_fails(gatys, photos):
    """Each is written when it is done, although all have one size."""
    images = sorted((photos / "photos").rglob("*.*g"))
    for name in ("e", "f"):
        Image.open(images[0]).save(photos / "photos" / f"{name}.png")
    (photos / "photos" / "f.png").write_bytes((photos / "photos" / "e.png").read_bytes()[:600])
    status, out, err = gatys("--style", photos / "one.png")
    assert status == 1
    assert "4 images written" in out
    assert "f.png" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no style: name a painting with --style"),
        (["--style", "missing.png"], "cannot read missing.png: No such file"),
        (["--style", "README.md"], "cannot read README.md: its content is not an image"),
        (["--style", "{one}", "--mask", "{one}", "{one}"], "2 masks for 1 styles"),
        (["--style", "{one}", "{one}", "--mask", "{one}", "{one}", "--style_weights", "1", "1"], "leave one out"),
        (["--style", "{one}", "--style_weights", "1", "2"], "style_weights [1.0, 2.0] for 1 styles"),
        (["--style", "{one}", "--model.weights", "vgg.pth"], "the weights vgg.pth do not exist"),
        (["--style", "{one}", "--model.style_layers", "[relu7_1]"], "vgg19 has no layer 'relu7_1'"),
        (["--style", "{one}", "--model.sizes", "[24,48]"], "sizes and steps need an entry"),
        (["--style", "{one}", "--tune.precision", "bfloat16"], "not painted in half precision"),
        (["--style", "{one}", "--stats", "tests"], "tests is a folder; name a file"),
        (["--style", "{one}", "--ckpt_path", "x.ckpt"], "checkpoint x.ckpt does not exist"),
    ],
)
def test_mistakes_get_one_line(gatys, photos, words, text):
    status, _, err = gatys(*(word.format(one=photos / "one.png") for word in words))
    assert status == 1
    assert text in err
    assert "Traceback" not in err
    assert not (photos / "out").exists() or not any((photos / "out").rglob("*.*g"))


def test_a_style_is_refused_where_the_style_is_learnt(cyclestyle, checkpoint, photos):
    words = ["--ckpt_path", checkpoint, "--input", photos / "photos", "--output", photos / "out"]
    status, _, err = cyclestyle("predict", *words, "--style", photos / "one.png")
    assert status == 1
    assert "CycleGAN has learnt its style; leave --style out" in err


def test_a_method_that_has_to_be_trained_is_named(cyclestyle, photos):
    words = ["--input", photos / "photos", "--output", photos / "out"]
    status, _, err = cyclestyle("predict", *words, "--model=CycleGAN")
    assert status == 1
    assert "a CycleGAN has to be trained first" in err
