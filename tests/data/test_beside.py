"""Masks and pairs: found, checked, and moved with their images."""

import numpy as np
import pytest
import torch
from PIL import Image

from cyclestyle.data.datamodule import UnpairedImages
from cyclestyle.errors import DataError

SPLITS = ("trainA", "trainB", "testA", "testB")


def save(path, seed, size=(40, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Four images a split; those of A and B with one number have one name."""
    for split in SPLITS:
        for number in range(4):
            save(tmp_path / split / "sub" / f"{number}.png", 10 * SPLITS.index(split) + number)
    return tmp_path


def module(root, **options):
    data = UnpairedImages(str(root), **{"load_size": 36, "crop_size": 32, "workers": 0, "batch_size": 2, **options})
    data.setup("fit")
    return data


@pytest.mark.parametrize("resize", ["resize_and_crop", "crop", "scale_width_and_crop"])
def test_masks_are_cropped_and_flipped_with_their_images(root, resize):
    for number in range(4):  # the mask is the red channel, so that both can be compared after any crop
        red = Image.open(root / "trainA" / "sub" / f"{number}.png").getchannel("R")
        (root / "masks" / "sub").mkdir(parents=True, exist_ok=True)
        red.save(root / "masks" / "sub" / f"{number}.png")
    plain = list(module(root, resize=resize, seed=1).train_dataloader())
    batches = list(module(root, resize=resize, seed=1, masks_A=str(root / "masks")).train_dataloader())
    for before, batch in zip(plain, batches, strict=True):
        assert torch.equal(before["A"], batch["A"])  # the draws are the same as without masks
        assert torch.equal(before["B"], batch["B"])
        assert batch["mask_A"].shape == (2, 1, 32, 32)
        assert torch.allclose(batch["mask_A"][:, 0], (batch["A"][:, 0] + 1) / 2, atol=1e-6)
        assert "mask_B" not in batch


def test_missing_and_wrong_masks_are_named(root):
    (root / "masks").mkdir()
    for number in range(3):
        Image.new("L", (40, 32)).save(root / "masks" / f"{number}.png")
    with pytest.raises(DataError, match=r"data\.masks_B .*masks has no mask for 1 of 4 images: 3\.png"):
        module(root, masks_B=str(root / "masks"))
    Image.new("L", (32, 40)).save(root / "masks" / "3.png")
    with pytest.raises(DataError, match=r"masks/3\.png is 32×40, but .*3\.png is 40×32; make them equal"):
        module(root, masks_B=str(root / "masks"))
    with pytest.raises(DataError, match=r"data\.masks_A nowhere is not a folder"):
        module(root, masks_A="nowhere")


@pytest.mark.parametrize("way", ["names", "csv"])
def test_pairs_come_beside_the_other_images_and_have_one_crop(root, way, capsys):
    for number in range(2):  # B is the negative of A
        image = Image.open(root / "trainA" / "sub" / f"{number}.png")
        Image.fromarray(255 - np.asarray(image)).save(root / "trainB" / "sub" / f"{number}.png")
    for number in (2, 3):
        (root / "trainB" / "sub" / f"{number}.png").rename(root / "trainB" / "sub" / f"x{number}.png")
    for number in (1, 2, 3):
        (root / "testB" / "sub" / f"{number}.png").rename(root / "testB" / "sub" / f"x{number}.png")
    pairs = way
    if way == "csv":
        pairs = root / "pairs.csv"
        lines = [
            f"{split}A/sub/{n}.png, {split}B/sub/{n}.png" for split, n in (("train", 0), ("train", 1), ("test", 0))
        ]
        pairs.write_text("\n".join([*lines, "trainA/sub/2.png,testB/sub/0.png", ""]))
    plain = list(module(root, seed=1).train_dataloader())
    capsys.readouterr()
    data = module(root, seed=1, pairs=str(pairs))
    left = "; 2 are left out, whose images are not both in one split" if way == "csv" else ""  # one is to test with
    assert f"data.pairs: 2 to train with{left}\n" in capsys.readouterr().out
    for before, batch in zip(plain, data.train_dataloader(), strict=True):
        assert torch.equal(before["A"], batch["A"])
        assert torch.allclose(batch["pair_A"], -batch["pair_B"], atol=0.02)
        assert not torch.allclose(batch["pair_A"], batch["A"])
    data.setup("test")
    assert "data.pairs: 1 to test with\n" in capsys.readouterr().out
    batch = next(iter(data.val_dataloader()))
    assert torch.equal(batch["truth_B"][0], batch["B"][0])
    assert batch["truth_B"][1].isnan().all()
    assert torch.equal(batch["truth_A"][0], batch["A"][0])


def test_held_out_pairs_are_measured_without_the_training_images(root):
    (root / "pairs.csv").write_text("trainA/sub/0.png,trainB/sub/0.png\ntestA/sub/1.png,testB/sub/1.png\n")
    data = UnpairedImages(str(root), load_size=36, crop_size=32, workers=0, pairs=str(root / "pairs.csv"))
    data.setup("test")
    truths = [bool(batch["truth_B"].isnan().any()) for batch in data.test_dataloader()]
    assert truths == [True, False, True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainA/sub/0.png\n", "line 1: expected an image of A and one of B, got trainA/sub/0.png"),
        ("\ntrainA/sub/9.png,trainB/sub/0.png\n", r"line 2: .*9\.png does not exist"),
        ("\ufefftrainA/sub/0.png,trainB/sub/9.png\n", r"line 1: .*trainB/sub/9\.png does not exist"),  # as of Excel
        ("", "has no lines"),
    ],
)
def test_mistakes_in_the_list_of_pairs_are_named(root, text, message):
    (root / "pairs.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        module(root, pairs=str(root / "pairs.csv"))


def test_other_mistakes_with_pairs_are_named(root):
    with pytest.raises(DataError, match=r"cannot read data\.pairs nowhere\.csv: No such file"):
        module(root, pairs="nowhere.csv")
    with pytest.raises(DataError, match=r"0\.png is no CSV file in UTF-8"):
        module(root, pairs=str(root / "trainA" / "sub" / "0.png"))
    for number in range(4):
        save(root / "trainB" / "sub" / f"{number}.png", 0, size=(64, 32))
    with pytest.raises(DataError, match=r"are a pair, but differ in size"):
        list(module(root, pairs="names", resize="scale_width", batch_size=1).train_dataloader())
