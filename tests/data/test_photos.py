import pytest
import torch

from cyclestyle.data import Photos
from cyclestyle.errors import DataError

SMALL = {"load_size": 36, "crop_size": 32, "workers": 0}


def epoch(data, number=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def test_every_photo_is_used_once_per_epoch(samples):
    data = Photos([str(samples / "trainA"), str(samples / "trainB")], batch_size=4, **SMALL)
    batches = epoch(data)
    assert [len(batch["images"]) for batch in batches] == [4, 4, 4, 2]
    assert batches[0]["images"].shape == (4, 3, 32, 32)
    assert -1 <= batches[0]["images"].min() < batches[0]["images"].max() <= 1
    paths = [path for batch in batches for path in batch["paths"]]
    assert len(set(paths)) == 14
    assert [path for batch in epoch(data, 1) for path in batch["paths"]] != paths


def test_an_epoch_resumes_at_the_saved_position(samples):
    settings = {"batch_size": 2, "flip": True, "seed": 3, **SMALL}
    whole = epoch(Photos([str(samples / "trainA")], **settings), 1)
    resumed = Photos([str(samples / "trainA")], **settings)
    resumed.load_state_dict({"epoch": 1, "pairs": 4})
    for one, other in zip(whole[2:], list(resumed.train_dataloader()), strict=True):
        assert one["paths"] == other["paths"]
        assert torch.equal(one["images"], other["images"])


def test_batches_do_not_depend_on_the_number_of_workers(samples):
    alone, helped = (epoch(Photos([str(samples / "trainA")], **{**SMALL, "workers": n})) for n in (0, 2))
    assert all(torch.equal(one["images"], other["images"]) for one, other in zip(alone, helped, strict=True))


def test_validation_is_deterministic_and_sorted(samples):
    data = Photos([str(samples / "trainA")], test=[str(samples / "testA")], flip=True, **{**SMALL, "batch_size": 1})
    first, second = list(data.val_dataloader()), list(data.val_dataloader())
    assert [batch["paths"] for batch in first] == [[str(samples / "testA" / f"{i:04d}.png")] for i in range(3)]
    assert all(torch.equal(one["images"], other["images"]) for one, other in zip(first, second, strict=True))


def test_errors_name_the_setting_or_the_file(samples, save_image, tmp_path):
    with pytest.raises(DataError, match=r"no folder for train: name a folder of photos in data\.train"):
        Photos().setup("fit")
    with pytest.raises(DataError, match="nowhere does not exist; expected a folder of images"):
        Photos(["nowhere"]).setup("fit")
    (tmp_path / "fake.jpg").write_text("text")
    with pytest.raises(DataError, match=r"fake\.jpg.*remove it, or set data\.on_bad_image to skip"):
        Photos([str(tmp_path)]).setup("fit")
    save_image("a.png", size=(40, 48))
    save_image("b.png", size=(60, 48))
    with pytest.raises(DataError, match="differ in size and cannot share a batch; set batch_size to 1"):
        epoch(Photos([str(tmp_path)], resize="none", on_bad_image="skip", workers=0))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Photos(batch_size=0)


def test_only_the_first_photos_are_trained_on(samples):
    data = Photos([str(samples / "trainA")], test=[str(samples / "testA")], max_images=2, **SMALL)
    assert sorted(path for batch in epoch(data) for path in batch["paths"]) == [
        str(path) for path in sorted((samples / "trainA").iterdir())[:2]
    ]
    assert len(data.paths("test")) == 3
    with pytest.raises(ValueError, match="max_images must be at least 1"):
        Photos([str(samples / "trainA")], max_images=0, **SMALL)
