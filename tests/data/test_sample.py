import hashlib
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from cyclestyle.data.sample import write_samples
from cyclestyle.data.sample.scene import draw_scene
from cyclestyle.errors import DataError
from cyclestyle.images import read_image, to_tensor
from cyclestyle.metrics import texture_distance


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(read_image(path).tobytes()).hexdigest()
        for path in sorted(folder.rglob("*.png"))
    }


def test_layout(samples):
    counts = {d.name: len(list(d.iterdir())) for d in samples.iterdir() if d.is_dir()}
    assert counts == {"trainA": 7, "trainB": 7, "testA": 3, "testB": 3, "truthB": 3}


def test_pixels_depend_on_the_seed_and_not_on_the_number_of_processes(samples, tmp_path):
    write_samples(tmp_path / "same", train=7, test=3, size=32, workers=2)
    write_samples(tmp_path / "other", train=2, test=1, size=32, workers=1, seed=1)
    assert digests(tmp_path / "same") == digests(samples)
    assert not set(digests(tmp_path / "other").values()) & set(digests(samples).values())


def test_no_scene_is_in_two_splits(samples, monkeypatch, tmp_path):
    seeds = []

    def record(rng, size):
        seeds.append(str(rng.bit_generator.state["state"]["state"]))
        return draw_scene(rng, size)

    monkeypatch.setattr("cyclestyle.data.sample.writer.draw_scene", record)
    write_samples(tmp_path, train=7, test=3, size=32, workers=1)
    train_A, train_B, test_A, test_B, truth = seeds[:7], seeds[7:14], seeds[14:17], seeds[17:20], seeds[20:]
    assert truth == test_A
    for one, other in combinations((train_A, train_B, test_A, test_B), 2):
        assert not set(one) & set(other)


def test_the_truth_has_the_scene_of_the_photo_of_the_same_name(samples):
    def image(folder, index):
        return to_tensor(read_image(samples / folder / f"{index:04d}.png")).mean(dim=0).flatten()

    for index in range(3):
        photo = image("testA", index)
        correlations = [torch.corrcoef(torch.stack([photo, image("truthB", other)]))[0, 1] for other in range(3)]
        assert max(range(3), key=correlations.__getitem__) == index


def test_paintings_differ_from_photos_in_texture(samples):
    photo, truth = (to_tensor(read_image(samples / d / "0000.png"))[None] for d in ("testA", "truthB"))
    assert texture_distance(photo, truth) > 0.2


def test_an_interrupted_run_can_be_continued(samples, tmp_path):
    write_samples(tmp_path, train=7, test=3, size=32, workers=1)
    removed = [tmp_path / "trainB" / "0003.png", tmp_path / "truthB" / "0000.png"]
    for path in removed:
        path.unlink()
    assert write_samples(tmp_path, train=7, test=3, size=32, workers=1) == 2
    assert digests(tmp_path) == digests(samples)


def test_other_settings_in_the_same_folder_raise_an_error(samples):
    with pytest.raises(DataError, match="contains samples with other settings than size 32, seed 9"):
        write_samples(samples, train=7, test=3, size=32, seed=9)
    with pytest.raises(DataError, match="size must be at least 32, got 8"):
        write_samples(samples, size=8)


def test_a_folder_with_images_of_ones_own_is_refused(cyclestyle, tmp_path, save_image):
    save_image("mine/trainB/own.png")
    status, _, error = cyclestyle("sample-data", tmp_path / "mine", "--train=1", "--test=1", "--size=32")
    assert status == 1
    assert f"{tmp_path / 'mine' / 'trainB'} holds files that are no samples; choose another folder" in error
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["trainB"]


def test_masks_show_the_trees_and_change_no_image(tmp_path):
    write_samples(tmp_path / "plain", train=2, test=1, size=32, workers=1)
    write_samples(tmp_path / "masked", train=2, test=1, size=32, workers=1, masks=True)
    for image in (tmp_path / "plain").rglob("*.png"):
        assert (tmp_path / "masked" / image.relative_to(tmp_path / "plain")).read_bytes() == image.read_bytes()
    for split, count in (("trainA", 2), ("trainB", 2), ("testA", 1)):
        masks = sorted((tmp_path / "masked" / f"masks_{split}").iterdir())
        assert [path.name for path in masks] == [f"{number:04d}.png" for number in range(count)]
        for path in masks:
            pixels = np.asarray(Image.open(path))
            assert pixels.shape == (32, 32)
            assert set(np.unique(pixels)) == {0, 255}
