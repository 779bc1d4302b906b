"""The page that a run writes while it trains."""

import csv
import errno
import json
import os
import re
import shutil
import signal
from contextlib import contextmanager

import pytest
import torch
from browser import Browser, needs_chromium

from cyclestyle.cli import main
from cyclestyle.files import atomic_write
from cyclestyle.report import Page
from cyclestyle.tasks import CycleGAN
from cyclestyle.training import RunPage
from cyclestyle.training.pages import run_page
from cyclestyle.training.pages.parts import read_curves

ON = "--page.every_n_seconds=60"


@pytest.fixture(scope="module")
def run(tiny_fit, tmp_path_factory):
    """A run of seven steps with a page."""
    folder = tmp_path_factory.mktemp("paged") / "run"
    assert main([*tiny_fit, ON, f"--trainer.default_root_dir={folder}"]) == 0
    return folder


@pytest.fixture
def pages(monkeypatch):
    """Every page that is written, in order; updates are due after every step."""
    pages, write = [], Page.write

    def kept(self, path):
        pages.append(self.html())
        write(self, path)

    monkeypatch.setattr(Page, "write", kept)
    monkeypatch.setattr(run_page, "PAUSE", 0)
    return pages


@pytest.fixture
def fit(tiny_fit, cyclestyle, tmp_path):
    """`fit` into `tmp_path / "run"` with an update of the page after every step."""

    def call(*more):
        words = [*tiny_fit, "--page.every_n_seconds=1e-9", f"--trainer.default_root_dir={tmp_path / 'run'}"]
        return cyclestyle(*words, *more)

    return call


def fact(page, name):
    return re.search(rf"<dt>{name}</dt><dd>(.*?)</dd>", page)[1]


def in_step(monkeypatch, number, action):
    """Let step `number` of CycleGAN do something before its losses are computed."""
    original, steps = CycleGAN.losses, []

    def losses(self, batch):
        steps.append(1)
        found = original(self, batch)
        return action(found) or found if len(steps) == number else found

    monkeypatch.setattr(CycleGAN, "losses", losses)


def test_the_page_of_a_finished_run_shows_its_files(run):
    page = (run / "index.html").read_text()
    assert [fact(page, name) for name in ("state", "epoch", "step")] == ["finished", "1 of 1", "7 of 7"]
    assert "data-reload-seconds" not in page
    grids = re.findall(r'src="(grids/[^"]+)"', page)
    assert grids == [f"grids/{path.name}" for path in sorted((run / "grids").iterdir())]
    assert len(grids) == 2
    assert "from top to bottom: real_A (image of domain A), fake_B (translation to domain B), rec_A" in page
    figures = json.loads((run / "evaluation.jsonl").read_text().splitlines()[-1])["raw BtoA"]
    assert f"{figures['cycle_psnr']:.4g}" in page.split("raw BtoA")[1].split("</tr>")[0]
    for text in ("train/loss_G", "train/cycle_A", "val/cycle_B", "No alarm was raised.", "decay_epochs: 0"):
        assert text in page


def test_the_page_needs_no_network(run):
    page = (run / "index.html").read_text()
    assert not re.findall(r"https?:|//[a-z]", re.sub(r"(?s)<script>.*</script>|<pre>.*?</pre>", "", page))
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#|grids/)""", page)


def test_a_running_page_grows_and_reloads_itself(fit, pages):
    assert fit()[0] == 0
    states = [fact(page, "state") for page in pages]
    assert states == ["running"] * (len(pages) - 1) + ["finished"]
    assert [fact(page, "step") for page in pages[:4]] == ["0 of 7", "1 of 7", "2 of 7", "3 of 7"]
    assert all("data-reload-seconds" in page and 'http-equiv="refresh"' in page for page in pages[:-1])
    assert "time left" in pages[3]
    assert "Latest validation" not in pages[6]
    assert "Latest validation" in pages[8], "after the validation, before the end"


def test_an_update_waits_until_fifty_times_its_duration_has_passed(monkeypatch):
    page, now = RunPage(every_n_seconds=10), [100.0]
    monkeypatch.setattr(run_page.time, "monotonic", lambda: now[0])
    page._active, page._updated, page._duration = True, 100.0, 1.0
    for seconds, due in ((11, False), (49, False), (51, True)):
        now[0] = 100.0 + seconds
        assert page._is_due(10) is due
        assert page._is_due(0) is due
    page._duration = 0.01
    now[0] = 109.0
    assert page._is_due(0)
    assert not page._is_due(10)


def test_a_resumed_run_shows_its_whole_history_once(fit, pages, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(run_page, "add_curves", lambda page, curves: shown.append(curves))
    assert fit("--trainer.max_epochs=2")[0] == 0
    folder = tmp_path / "run" / "checkpoints"
    shutil.copy(folder / "previous.ckpt", folder / "last.ckpt")  # as if the run had been killed in its second epoch
    pages.clear()
    shown.clear()
    assert fit("--trainer.max_epochs=2", "--ckpt_path=last")[0] == 0
    assert fact(pages[0], "step") == "7 of 14"
    assert [int(step) for step, _ in shown[0]["train/loss_G"]] == list(range(7))
    assert "Step 7." in pages[0], "of the validation"
    assert re.findall(r'src="grids/step_0*(\d+)', pages[0]) == [
        "4"
    ]  # the next ones, of steps 8, 12 and 14, are of the run that was killed
    assert "from top to bottom: real_A" in pages[0]
    assert [int(step) for step, _ in shown[-1]["train/loss_G"]] == list(range(14))
    assert [int(step) for step, _ in shown[-1]["val/kid"]] == [6, 13]
    assert [fact(pages[-1], name) for name in ("state", "epoch", "step")] == ["finished", "2 of 2", "14 of 14"]


def test_the_page_tells_that_a_signal_stopped_the_run(fit, pages, monkeypatch):
    in_step(monkeypatch, 3, lambda losses: os.kill(os.getpid(), signal.SIGTERM))
    assert fit()[0] == 143
    assert fact(pages[-1], "state") == "stopped"
    assert fact(pages[-1], "step") == "3 of 7"
    assert "stopped by SIGTERM at step 3; resume with the same command" in pages[-1]
    assert "data-reload-seconds" not in pages[-1]


def test_the_page_tells_that_the_run_diverged(fit, pages, monkeypatch):
    in_step(monkeypatch, 3, lambda losses: {**losses, "G_AB": losses["G_AB"] * float("nan")})
    assert fit()[0] == 1
    assert fact(pages[-1], "state") == "diverged"
    assert "train/G_AB" in pages[-1].split("<h2>")[0]
    assert "not finite at step 2" in pages[-1]


def test_the_page_tells_that_an_error_ended_the_run(fit, pages, monkeypatch):
    def fail(losses):
        raise ValueError("<no> idea")

    in_step(monkeypatch, 3, fail)
    with pytest.raises(ValueError, match="idea"):
        fit()
    assert fact(pages[-1], "state") == "failed"
    assert "&lt;no&gt; idea" in pages[-1]


def test_the_page_tells_that_a_run_ended_early(fit, pages):
    words = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/cycle"]
    words += ["--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=100", "--trainer.max_epochs=9"]
    assert fit(*words)[0] == 0
    assert [fact(pages[-1], name) for name in ("state", "epoch", "step")] == ["finished", "2 of 9", "14 of 63"]
    assert "ended before its last step" in pages[-1]


def test_a_full_disk_leaves_the_old_page_and_the_training_alone(fit, monkeypatch, tmp_path):
    """The disk is full for pages from the fourth update on."""
    folder, updates = tmp_path / "run", []

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            self.file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def full(path):
        updates.append(path.read_bytes() if path.exists() else b"")
        with atomic_write(path) as file:
            yield file if len(updates) <= 3 else Full(file)

    monkeypatch.setattr(run_page, "PAUSE", 0)
    monkeypatch.setattr("cyclestyle.report.page.atomic_write", full)
    status, _, error = fit()
    assert status == 0
    assert error.count("index.html is not up to date, and training goes on: No space left on device") == 1
    page = (folder / "index.html").read_bytes()
    assert set(updates[3:]) == {page}
    assert page.endswith(b"</html>\n")
    assert fact(page.decode(), "step") == "2 of 7"
    assert not list(folder.glob(".unfinished*"))


def test_names_with_markup_are_escaped(tiny_fit, cyclestyle, tmp_path):
    run = tmp_path / "<b>run"
    run.mkdir()
    (run / "alarms.txt").write_text("step 1: <script>alert()</script>\n" * 2)
    assert cyclestyle(*tiny_fit, ON, f"--trainer.default_root_dir={run}")[0] == 0
    page = (run / "index.html").read_text()
    assert "<b>" not in page
    assert "Run &lt;b&gt;run" in page
    assert page.count("<li>step 1: &lt;script&gt;alert()&lt;/script&gt;</li>") == 1, "raised again after a resume"


def test_without_a_log_the_page_has_no_curves(fit, pages):
    assert fit("--trainer.logger=false")[0] == 0
    assert "There are no curves without the CSVLogger." in pages[-1]
    assert "<svg" not in pages[-1]
    assert "raw AtoB" in pages[-1], "the figures are in evaluation.jsonl"


def test_a_page_can_be_left_out(checkpoint):
    assert not (checkpoint.parents[1] / "index.html").exists()


def test_a_trial_writes_no_page(fit, pages, tmp_path):
    assert fit("--trainer.fast_dev_run=2")[0] == 0
    assert not pages
    assert not (tmp_path / "run").exists()


def test_other_processes_write_no_page(tmp_path):
    class Trainer:
        is_global_zero, default_root_dir = False, str(tmp_path)

    page = RunPage()
    page.on_train_start(Trainer(), None)
    page.on_train_batch_end(Trainer(), None, None, None, 0)
    page.on_train_end(Trainer(), None)
    page.on_exception(Trainer(), None, ValueError())
    assert not list(tmp_path.iterdir())


def test_a_negative_pause_is_refused_in_one_line(fit):
    status, _, error = fit("--page.every_n_seconds=-1")
    assert status == 1
    assert "every_n_seconds must be 0 or more, got -1" in error


def test_long_curves_are_thinned_by_means_and_short_ones_kept(tmp_path):
    file = tmp_path / "metrics.csv"
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["epoch", "step", "train/loss", "val/loss", "train/nothing"])
        for step in range(1000):
            loss = "nan" if step % 10 == 9 else step % 10
            writer.writerow([0, step, loss, step if step % 100 == 99 else "", ""])
    curves = read_curves(file, points=100)
    assert len(curves["train/loss"]) == 90
    assert curves["train/loss"][-1][0] == 998
    assert sum(value for _, value in curves["train/loss"]) / 90 == pytest.approx(4.0)
    assert curves["val/loss"] == [(step, step) for step in range(99, 1000, 100)]
    assert "train/nothing" not in curves
    assert read_curves(tmp_path / "missing.csv") == {}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_runs_off_the_screen(browser, run, width):
    browser.open(run / "index.html", width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelector('details').open = true")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert not browser.errors()


@needs_chromium
def test_a_reload_keeps_the_selected_grid(browser, run):
    visible = "[...document.querySelectorAll('.flip figure')].filter(f => !f.hidden).map(f => f.innerText.trim())"
    browser.open(run / "index.html")
    assert browser.run(visible) == ["step 7"]
    browser.run("document.querySelector('.flip input').focus()")
    browser.press("ArrowLeft", 37)
    assert browser.run(visible) == ["step 4"]
    browser.events.clear()
    browser.call("Page.reload")
    while "load" not in [event["params"].get("name") for event in browser.events]:
        browser.events.append(browser.read())
    assert browser.run(visible) == ["step 4"]


def test_the_training_is_the_same_with_a_page(run, checkpoint):
    ours, theirs = (torch.load(one, weights_only=True) for one in (run / "checkpoints" / "last.ckpt", checkpoint))
    assert all(torch.equal(ours["state_dict"][name], theirs["state_dict"][name]) for name in ours["state_dict"])
