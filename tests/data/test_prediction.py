"""The plan of what becomes of a folder, and its batches: full, of equal size, each image in exactly one."""

import pytest
from PIL import Image

from cyclestyle.errors import DataError
from cyclestyle.images import WRITTEN
from cyclestyle.translation import reading
from cyclestyle.translation.jobs import make_plan
from cyclestyle.translation.reading import Groups, ahead, read_batches


def batches_of(plan, **options):
    return list(read_batches(plan.jobs, **options))


def names(jobs):
    return [job.target.name for job in jobs]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_every_image_is_in_one_batch(samples, tmp_path, threads):
    plan = make_plan([samples / "trainA"], tmp_path)
    batches = batches_of(plan, batch_size=2, threads=threads)
    assert [piece.job.target for batch in batches for piece in batch.pieces] == [job.target for job in plan.jobs]
    assert all(len(batch.images) == len(batch.pieces) == len(batch.sources) for batch in batches)


def test_little_is_read_ahead_and_nothing_after_the_end():
    taken = []
    items = ahead((taken.append(number) or number for number in range(100)), 2)
    assert next(items) == 0
    items.close()
    assert len(taken) <= 4
    with pytest.raises(ValueError, match="broken"):
        list(ahead((number if number < 3 else _fail() for number in range(9)), 2))


def _fail():
    raise ValueError("broken")


def test_sizes_are_grouped_so_that_batches_are_full(save_image, tmp_path):
    for number in range(12):
        save_image(f"in/{number:02d}.png", size=[(8, 8), (9, 8), (8, 9)][number % 3])
    plan = make_plan([tmp_path / "in"], tmp_path / "out")
    batches = list(Groups(plan.jobs, 4))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert all(len({piece.size for piece in batch}) == 1 for batch in batches)


def test_an_image_waits_for_a_limited_number_of_others(save_image, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "WINDOW", 4)
    save_image("in/00.png", size=(50, 8))
    for number in range(1, 9):
        save_image(f"in/{number:02d}.png", size=(8 + number, 8))
    first = next(iter(Groups(make_plan([tmp_path / "in"], tmp_path / "out").jobs, 8)))
    assert [piece.job.source.name for piece in first] == ["00.png"]


def test_translation_starts_before_all_headers_are_read(save_image, tmp_path, monkeypatch):
    path, read = save_image("a.png"), []
    plan = make_plan([path], tmp_path / "out")
    header = reading.read_header
    monkeypatch.setattr(reading, "read_header", lambda one: (read.append(one), header(one))[1])
    assert len(next(iter(Groups(plan.jobs * 5000, 8)))) == 8
    assert len(read) < 200


def test_planning_opens_no_file_with_a_known_ending(save_image, tmp_path, monkeypatch):
    save_image("in/a.png")
    monkeypatch.setattr(Image, "open", None)
    assert len(make_plan([tmp_path / "in"], tmp_path / "out").jobs) == 1


def test_an_animation_has_batches_of_its_own_in_order(save_image, tmp_path):
    frames = [Image.new("RGB", (8, 8), (40 * number, 0, 0)) for number in range(5)]
    save_image("in/a.png")
    frames[0].save(tmp_path / "in" / "b.webp", save_all=True, append_images=frames[1:], duration=50, lossless=True)
    save_image("in/c.png")
    batches = batches_of(make_plan([tmp_path / "in"], tmp_path / "out"), batch_size=2)
    found = [[(piece.job.source.name, piece.number) for piece in batch.pieces] for batch in batches]
    assert sorted(found, key=str) == [
        [("a.png", 0), ("c.png", 0)], [("b.webp", 0), ("b.webp", 1)], [("b.webp", 2), ("b.webp", 3)], [("b.webp", 4)]
    ]  # fmt: skip
    reds = [image[0, 0, 0] for batch in batches if len(batch.pieces) for image in batch.images][-7:]
    assert len({round(float(red), 3) for red in reds}) == 5


def test_what_cannot_be_read_is_left_out_of_its_batch(save_image, tmp_path):
    save_image("in/a.bmp")
    cut = save_image("in/b.bmp")
    cut.write_bytes(cut.read_bytes()[:-20])
    (tmp_path / "in" / "c.png").write_text("text")
    batches = batches_of(make_plan([tmp_path / "in"], tmp_path / "out"), batch_size=8)
    failures = {path for batch in batches for path in batch.failures}
    assert failures == {str(cut), str(tmp_path / "in" / "c.png")}
    assert sum(len(batch.images) for batch in batches) == 1


def test_what_is_no_image_is_listed(save_image, tmp_path):
    save_image("in/a.png")
    save_image("in/.hidden.png")
    save_image("in/.cache/a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "noending", "PNG")
    for name in ("notes.txt", "film.srt", "LICENSE"):
        (tmp_path / "in" / name).write_text("text")
    plan = make_plan([tmp_path / "in"], tmp_path / "out")
    assert names(plan.jobs) == ["a.png", "noending"]
    assert {path.name for path in plan.others} == {"notes.txt", "film.srt", "LICENSE", ".hidden.png", ".cache"}


@pytest.mark.parametrize("suffix", [".gif", ".avif", ".jp2", ".ppm", ".tga", ".JPE", ".apng", ".pcx", ".ico", ".sgi"])
def test_whatever_pillow_reads_is_translated(save_image, tmp_path, suffix):
    save_image(f"in/a{suffix}", size=(16, 16))
    plan = make_plan([tmp_path / "in"], tmp_path / "out")
    assert names(plan.jobs) == [f"a{suffix}" if suffix != ".ico" else "a.png"]
    (batch,) = batches_of(plan)
    assert batch.images.shape == (1, 3, 16, 16)


def test_files_and_folders_are_mixed_and_nothing_is_done_twice(save_image, tmp_path):
    save_image("in/sub/a.png")
    save_image("in/b.png")
    plan = make_plan([tmp_path / "in", tmp_path / "in" / "b.png"], tmp_path / "out")
    assert sorted(job.target.relative_to(tmp_path / "out").as_posix() for job in plan.jobs) == ["b.png", "sub/a.png"]


def test_one_image_may_have_a_file_as_its_output(save_image, tmp_path):
    path = save_image("a.png")
    (job,) = make_plan([path], tmp_path / "painting.jpg").jobs
    assert (job.target, job.format.name) == (tmp_path / "painting.jpg", "jpeg")
    (tmp_path / "folder.jpg").mkdir()
    (job,) = make_plan([path], tmp_path / "folder.jpg").jobs
    assert job.target == tmp_path / "folder.jpg" / "a.png"


def test_a_format_changes_the_endings_of_others_only(save_image, tmp_path):
    for name in ("a.png", "b.JPEG", "c.tif"):
        save_image(f"in/{name}")
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "d", "PNG")
    plan = make_plan([tmp_path / "in"], tmp_path / "out", format=WRITTEN["jpeg"])
    assert names(plan.jobs) == ["a.jpg", "b.JPEG", "c.jpg", "d.jpg"]


def test_shards_split_the_images_whatever_else_is_there(save_image, tmp_path):
    for number in range(40):
        save_image(f"in/{number}.png")
    folder = tmp_path / "in"
    parts = [set(names(make_plan([folder], tmp_path / "out", shards=[(k, 3)]).jobs)) for k in (1, 2, 3)]
    assert set.union(*parts) == {f"{number}.png" for number in range(40)}
    assert sum(map(len, parts)) == 40
    assert min(map(len, parts)) > 5
    save_image("in/another.png")
    save_image("out/3.png")
    later = [set(names(make_plan([folder], tmp_path / "out", shards=[(k, 3)]).jobs)) for k in (1, 2, 3)]
    for before, after in zip(parts, later, strict=True):
        assert before - {"3.png"} == after - {"another.png"}


def inside(base, text):
    return [base / name if name else "" for name in text.split(",")]


@pytest.mark.parametrize(
    ("inputs", "output", "options", "message"),
    [
        ("", "out", {}, "an input is empty"),
        ("in,", "out", {}, "an input is empty"),
        ("nowhere", "out", {}, "nowhere does not exist"),
        ("empty", "out", {}, r"empty contains no images; it has notes\.txt"),
        ("in", "in", {}, "input and output are both"),
        ("in/sub", "in", {}, "the output .*in contains the input .*in/sub"),
        ("in", "one.jpg", {}, r"one\.jpg is the name of one image, but the input is not one image"),
        ("in/a.png,in/a.jpg", "one.jpg", {}, r"one\.jpg is the name of one image"),
        ("in/a.png", "one.psd", {}, r"images are not written as \.psd"),
        ("in/a.png", "one.jpg", {"format": WRITTEN["png"]}, "--format png contradicts the name"),
        ("in/a.png", "in", {}, r"in/a\.png is an input and would be overwritten"),
        ("in/a.png", "in/a.png", {}, "is an input and would be overwritten"),
        ("in", "empty/notes.txt", {}, "is a file; the output must be a folder"),
        ("in", "out", {"format": WRITTEN["webp"]}, r"in/a\.(png|jpg) and .*in/a\.(png|jpg) would both be written to"),
        ("in/b.ico,in/sub/b.png", "out", {}, r"b\.ico and .*sub/b\.png would both be written to .*out/b\.png"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(save_image, tmp_path, inputs, output, options, message):
    for name in ("in/a.png", "in/a.jpg", "in/sub/b.png", "in/b.ico"):
        save_image(name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("text")
    with pytest.raises(DataError, match=message):
        make_plan(inside(tmp_path, inputs), tmp_path / output, **options)


def test_a_folder_without_permission_is_named_and_the_rest_is_done(save_image, tmp_path, monkeypatch):
    import os

    save_image("in/a.png")
    save_image("in/locked/b.png")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    plan = make_plan([tmp_path / "in"], tmp_path / "out")
    assert names(plan.jobs) == ["a.png"]
    assert list(plan.failures.values()) == [f"cannot read {tmp_path / 'in' / 'locked'}: Permission denied"]
