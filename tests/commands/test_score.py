import json
import re

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folders(samples):
    return {
        "--output": samples / "truthB",
        "--truth": samples / "truthB",
        "--input": samples / "testA",
        "--source": samples / "trainA",
        "--target": samples / "trainB",
    }


def test_the_truth_scores_best(cyclestyle, folders, tmp_path):
    words = {**folders, "--json": tmp_path / "s.json", "--sheet": tmp_path / "s.png", "--columns": 2}
    status, text, _ = cyclestyle("score", *(word for pair in words.items() for word in pair))
    assert status == 0
    assert text.startswith("3 images")
    assert "by the extractor statistics; KID, with its 95 % bootstrap interval, and FID to 7 images of" in text
    assert "(interval n/a)" in text  # of 3 images
    table = json.loads((tmp_path / "s.json").read_text())
    assert table["untouched"]["kid_low"] is table["untouched"]["kid_high"] is None
    assert list(table) == ["untouched", "colour transfer, domain", "colour transfer, each image", "cyclestyle"]
    assert table["cyclestyle"]["texture_distance"] == 0
    assert table["cyclestyle"]["psnr"] > 100
    assert table["cyclestyle"]["ssim"] == pytest.approx(1)
    assert table["cyclestyle"]["perceptual"] == pytest.approx(0, abs=1e-3)
    assert table["cyclestyle"]["kid"] < table["untouched"]["kid"]
    assert table["cyclestyle"]["kid_half"] < table["untouched"]["kid_half"]
    assert table["untouched"]["probe"] < table["cyclestyle"]["probe"] == 1
    assert table["untouched"]["probe_half"] < table["cyclestyle"]["probe_half"] == 1
    assert "learnt from 7 images of" in text
    assert re.search(r"of held-out ones it takes \d+% and \d+%, at half size \d+% and \d+%\n", text)
    assert table["untouched"]["content"] == pytest.approx(0, abs=1e-3)
    assert 5 < table["untouched"]["psnr"] < 25
    assert table["untouched"]["texture_distance"] > 0.1
    assert Image.open(tmp_path / "s.png").size == (64, 128)


def test_a_large_source_is_thinned_out_for_the_probe(cyclestyle, folders, monkeypatch):
    monkeypatch.setattr("cyclestyle.commands.score.MOST", 5)  # of 7 images
    status, text, _ = cyclestyle("score", *(word for pair in folders.items() for word in pair))
    assert status == 0
    assert "learnt from 5 images of" in text


def test_numbers_that_become_black_or_white_are_said(cyclestyle, folders, tmp_path):
    for number in range(3):
        values = np.random.default_rng(number).normal(0, 500, (32, 32)).astype(np.float32)
        (tmp_path / "scans").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "scans" / f"{number}.tif")
    words = {name: folder for name, folder in folders.items() if name != "--truth"} | {"--target": tmp_path / "scans"}
    status, _, error = cyclestyle("score", *(word for pair in words.items() for word in pair))
    assert status == 0
    assert f"warning: {tmp_path / 'scans'}: values outside of 0 to 1 (0 to 65535 for integers)" in error
    assert "in 3 of 3 files: 0.tif, 1.tif, 2.tif" in error


def test_without_the_truth_and_with_several_outputs(cyclestyle, folders, samples):
    words = [*(word for pair in folders.items() if pair[0] != "--truth" for word in pair), samples / "testA"]
    at = words.index("--output") + 2
    words = [*words[:at], words[-1], *words[at:-1]]
    status, text, _ = cyclestyle("score", *words)
    assert status == 0
    assert "PSNR" not in text
    rows = [line[:30].strip() for line in text.splitlines()[1:-2]]
    assert rows[-2:] == ["truthB", "testA"]
    untouched, again = (line[30:] for line in text.splitlines() if line.startswith(("untouched", "testA")))
    assert untouched == again


def test_a_missing_counterpart_is_named(cyclestyle, folders, tmp_path):
    words = {**folders, "--output": tmp_path}
    status, _, error = cyclestyle("score", *(word for pair in words.items() for word in pair))
    assert status == 1
    assert "0000.png does not exist, with any ending; every image of" in error


def test_a_missing_counterpart_is_found_before_the_work(cyclestyle, folders, samples, tmp_path):
    """The first folder, of a smaller size, would be measured and its resizing reported."""
    (tmp_path / "small").mkdir()
    for path in (samples / "testA").iterdir():
        Image.open(path).resize((16, 16)).save(tmp_path / "small" / path.name)
    (tmp_path / "empty").mkdir()
    words = [word for pair in folders.items() if pair[0] not in ("--output", "--truth") for word in pair]
    status, text, error = cyclestyle("score", "--output", tmp_path / "small", tmp_path / "empty", *words)
    assert (status, text) == (1, "")
    assert f"{tmp_path / 'empty'}" in error


def test_folders_of_the_same_name_have_a_row_each(cyclestyle, folders, samples, tmp_path):
    twins = [tmp_path / run / "photos" for run in ("a", "b")]
    for twin, source in zip(twins, ("testA", "truthB"), strict=True):
        twin.parent.mkdir()
        twin.symlink_to(samples / source)
    words = [word for pair in folders.items() if pair[0] not in ("--output", "--truth") for word in pair]
    table = tmp_path / "s.json"
    status, _, _ = cyclestyle("score", "--output", *twins, samples / "truthB", *words, "--json", table)
    assert status == 0
    rows = json.loads(table.read_text())
    assert list(rows)[3:] == [str(twins[0]), str(twins[1]), "truthB"]
    assert rows[str(twins[0])]["kid"] == rows["untouched"]["kid"]
    assert rows[str(twins[1])]["kid"] == rows["truthB"]["kid"]


def test_sample_data_from_the_command_line(cyclestyle, tmp_path):
    words = ["sample-data", tmp_path / "s", "--train", 1, "--test", 1, "--size", 32]
    assert cyclestyle(*words)[1] == f"5 images drawn into {tmp_path / 's'}\n"
    assert cyclestyle(*words)[1] == f"0 images drawn into {tmp_path / 's'}\n"
    assert "contains samples with other settings" in cyclestyle(*words, "--seed", 3)[2]
    assert "size must be at least 32, got 5" in cyclestyle("sample-data", tmp_path / "t", "--size", 5)[2]


def test_results_of_another_program_are_matched_by_stem_and_resized(cyclestyle, folders, samples, tmp_path):
    """Another ending and another size: JPEG at 48×48 for PNG at 32×32."""
    other = tmp_path / "other"
    other.mkdir()
    for path in (samples / "truthB").iterdir():
        Image.open(path).resize((48, 48)).save(other / f"{path.stem}.jpg")
    words = [word for pair in {**folders, "--output": other, "--sheet": tmp_path / "s.png"}.items() for word in pair]
    status, text, error = cyclestyle("score", *words)
    assert status == 0, error
    assert f"resized 3 of 3 images of {other} to the sizes of those of {samples / 'testA'}" in text
    assert Image.open(tmp_path / "s.png").size == (96, 128)
    first = next(iter((samples / "testA").iterdir())).stem
    Image.new("RGB", (32, 32)).save(other / f"{first}.webp")
    status, _, error = cyclestyle("score", *words)
    assert status == 1
    assert "may both belong to" in error


def test_what_one_image_does_not_have_is_not_available(cyclestyle, folders, samples, tmp_path):
    for name in ("testA", "truthB"):
        (tmp_path / name).mkdir()
        path = sorted((samples / name).iterdir())[0]
        Image.open(path).save(tmp_path / name / path.name)
    one = {"--output": tmp_path / "truthB", "--input": tmp_path / "testA", "--truth": tmp_path / "truthB"}
    words = [word for pair in {**folders, **one, "--json": tmp_path / "s.json"}.items() for word in pair]
    status, text, error = cyclestyle("score", *words)
    assert status == 0, error
    assert text.startswith("1 image ")
    assert "inf" not in text.partition("KID, FID")[0]
    assert text.splitlines()[1].split()[1:3] == ["n/a", "n/a"]
    assert json.loads((tmp_path / "s.json").read_text())["untouched"]["kid"] is None


@pytest.mark.parametrize("option", ["--json", "--sheet"])
def test_score_does_not_write_over_its_inputs(cyclestyle, folders, samples, option):
    path = sorted((samples / "testA").iterdir())[0]
    before = path.read_bytes()
    status, _, error = cyclestyle("score", *(word for pair in folders.items() for word in pair), option, path)
    assert status == 1
    assert f"the output {path} is an input; choose another path for it" in error
    assert path.read_bytes() == before


def test_compare_does_not_write_into_its_inputs(cyclestyle, samples, tmp_path):
    (tmp_path / "c.yaml").write_text("methods: [{name: a, predict: {ckpt_path: a.ckpt}}]")
    words = ["--input", samples / "testA", "--output", samples / "testA", "--target", samples / "trainB"]
    status, _, error = cyclestyle("compare", "--config", tmp_path / "c.yaml", *words)
    assert status == 1
    assert "is an input; choose another path for it" in error
