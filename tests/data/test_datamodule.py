import shutil

import pytest
import torch

from cyclestyle.data import UnpairedImages
from cyclestyle.errors import DataError

SMALL = {"load_size": 36, "crop_size": 32, "workers": 0}


def epoch(data, number=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def test_batches(samples):
    batch = epoch(UnpairedImages(str(samples), batch_size=3, **SMALL))[0]
    assert set(batch) == {"A", "B", "paths_A", "paths_B"}
    for domain in "AB":
        assert batch[domain].shape == (3, 3, 32, 32)
        assert batch[domain].dtype == torch.float32
        assert -1 <= batch[domain].min() < batch[domain].max() <= 1
        assert all(f"train{domain}" in path for path in batch[f"paths_{domain}"])


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(samples, workers):
    for number in (0, 1):
        alone = epoch(UnpairedImages(str(samples), **SMALL), number)
        helped = epoch(UnpairedImages(str(samples), **{**SMALL, "workers": workers}), number)
        for one, other in zip(alone, helped, strict=True):
            assert one["paths_A"] == other["paths_A"]
            assert torch.equal(one["A"], other["A"])
            assert torch.equal(one["B"], other["B"])


def test_the_seed_of_the_run_is_the_default(samples, monkeypatch):
    def paths(**settings):
        return [batch["paths_A"] for batch in epoch(UnpairedImages(str(samples), **SMALL, **settings))]

    default = paths()
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert paths() != default
    assert paths() == paths(seed=5)
    assert paths(seed=0) == default


def test_explicit_folders_of_unequal_size(samples, save_image, tmp_path):
    save_image("one/more.png", size=(40, 50))
    data = UnpairedImages(
        train_A=[str(samples / "trainA"), str(tmp_path / "one")],
        train_B=[str(samples / "testB")],
        test_A=[str(tmp_path / "one")],
        test_B=[str(samples / "testB")],
        **SMALL,
    )
    batches = epoch(data)
    assert len(batches) == 8
    assert len({path for batch in batches for path in batch["paths_A"]}) == 8
    assert len({path for batch in batches for path in batch["paths_B"]}) == 3
    assert len(list(data.val_dataloader())) == 3


def test_validation_is_deterministic_and_sorted(samples):
    data = UnpairedImages(str(samples), **SMALL)
    first, second = list(data.val_dataloader()), list(data.val_dataloader())
    assert [batch["paths_A"] for batch in first] == [[str(samples / "testA" / f"{i:04d}.png")] for i in range(3)]
    assert all(torch.equal(one["A"], other["A"]) for one, other in zip(first, second, strict=True))


def test_domains_may_differ_in_channels(samples):
    batch = epoch(UnpairedImages(str(samples), channels_A=1, channels_B=4, **SMALL))[0]
    assert batch["A"].shape == (1, 1, 32, 32)
    assert batch["B"].shape == (1, 4, 32, 32)


def test_images_of_several_sizes_need_batch_size_1(samples, save_image, tmp_path):
    save_image("A/a.png", size=(40, 47))
    save_image("A/b.png", size=(60, 47))
    settings = {"train_A": [str(tmp_path / "A")], "train_B": [str(samples / "trainB")], "resize": "none", "workers": 0}
    shapes = {tuple(batch["A"].shape[2:]) for batch in epoch(UnpairedImages(**settings))}
    assert shapes == {(48, 40), (48, 60)}  # rounded to multiples of 4
    with pytest.raises(DataError, match=r"differ in size and cannot share a batch; set batch_size to 1"):
        epoch(UnpairedImages(**settings, batch_size=7))


@pytest.fixture
def copy(samples, tmp_path):
    shutil.copytree(samples, tmp_path / "data")
    return tmp_path / "data"


def test_an_error_names_missing_and_empty_domains(copy):
    with pytest.raises(DataError, match=r"data.root nowhere does not exist"):
        UnpairedImages("nowhere").setup("fit")
    with pytest.raises(DataError, match=r"no folder for train_A: set data.root"):
        UnpairedImages().setup("fit")
    shutil.rmtree(copy / "testB")
    data = UnpairedImages(str(copy), **SMALL)
    data.setup("fit")
    with pytest.raises(DataError, match=r"domain B has no test split: .*testB does not exist.*limit_val_batches 0"):
        data.val_dataloader()
    for path in (copy / "trainA").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="trainA contains no images"):
        UnpairedImages(str(copy), **SMALL).setup("fit")


def test_bad_images_raise_an_error_or_are_skipped_and_logged(copy, caplog):
    (copy / "trainA" / "fake.jpg").write_text("text")
    cut = copy / "trainA" / "0001.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"0001\.png.*truncated; remove it, or set data\.on_bad_image to skip"):
        UnpairedImages(str(copy), **SMALL).setup("fit")
    data = UnpairedImages(str(copy), on_bad_image="skip", **SMALL)
    data.setup("fit")
    assert "skipped 2 of 8 files of train_A" in caplog.text
    assert "fake.jpg" in caplog.text
    used = {path for batch in epoch(data) for path in batch["paths_A"]}
    assert len(used) == 6
    assert str(cut) not in used


def test_only_the_first_images_of_each_domain_are_trained_on(samples):
    data = UnpairedImages(str(samples), max_images=3, **SMALL)
    for domain in "AB":
        folder = samples / f"train{domain}"
        assert data.paths(f"train_{domain}") == sorted(folder.iterdir())[:3]
        assert len(data.paths(f"test_{domain}")) == 3
    assert UnpairedImages(str(samples), max_images=1, **SMALL).paths("test_A") == sorted((samples / "testA").iterdir())
    batches = epoch(data)
    assert {path for batch in batches for path in batch["paths_A"]} == set(map(str, data.paths("train_A")))
    assert len(batches) == 3
    assert len(data.domain_images("train_A", 500)) == 3
    assert len(UnpairedImages(str(samples), max_images=50, **SMALL).paths("train_A")) == 7


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_image_is_refused(samples, count):
    with pytest.raises(ValueError, match=f"max_images must be at least 1, or null for all images, got {count}"):
        UnpairedImages(str(samples), max_images=count, **SMALL)
