"""Reports of a run: metrics.jsonl after a kill, progress, warnings, picture grids and tables."""

import json

import numpy as np
import pytest
from parameters import start
from PIL import Image
from tiny import least, tiny

from vaejax.data import open_dataset
from vaejax.likelihoods import MIN_LOG_SCALE
from vaejax.models import build_model
from vaejax.records import pictures, progress, tables
from vaejax.records.goodput import Clock
from vaejax.records.metric_log import MetricsFile, Reporter
from vaejax.tasks.vae import NET, vae_task
from vaejax.tasks.vae.gallery import Gallery
from vaejax.tasks.vae.health import Health

HEALTHY = {
    "kl_nats": 20.0,
    "active_units": 6.0,
    "log_std": -3.0,
    "effective_beta": 1.0,
    "elbo_bits_per_dim": 5.0,
}


def test_metrics_after_the_checkpoint_and_incomplete_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for at in (10, 20, 30):
        file.write(at, "train", {"value": at / 3})
    file.close()
    path.write_text(path.read_text() + '{"step": 15, "spl')
    MetricsFile(path, 20).close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert lines[0] == {"step": 10, "split": "train", "value": 10 / 3}


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_rate_and_time_left(terminal, monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: terminal)
    training = progress.Training(0, 100, 8, Clock())
    training.advance(50)
    values = {"elbo_bits_per_dim": 5.125, "kl_nats": 20.0, "psnr_pooled": 21.5}
    training.line(vae_task(tiny()).describe(values), 100.0)
    training.close()
    stderr = capsys.readouterr().err
    assert "5.125 bits/dim" in stderr and "100 images/s" in stderr and "21.50" in stderr
    assert ("50/100" in stderr) and (terminal or "0:04 left" in stderr)


def test_the_rate_counts_the_steps_and_seconds_since_the_clock_was_restarted(monkeypatch):
    seconds = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds)
    training = progress.Training(10, 100, 8, Clock())
    assert training.images_per_second() is None
    training.advance(20)
    training.restart_clock()
    training.advance(24)
    with training.waiting(None):
        seconds = 0.5
    seconds = 2.0
    assert training.images_per_second() == 4 * 8 / 2.0
    assert training.data_wait() == 0.5 / 2.0
    training.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kl_nats": 0.1}, "posterior collapse"),
        ({"active_units": 2.0}, "dead units: 4 of 6"),
        (
            {"kl_per_group": [9.0, 0.05, 3.0, 0.0]},
            "in group 1, 3 of 4, counted from 0 at the top",
        ),
        (
            {"information_per_channel": [9.0, 0.05, 3.0, 0.0]},
            "dead channels: the information is below 0.1 nats in channel 1, 3 of 4, counted from 0",
        ),
        ({"log_std": MIN_LOG_SCALE}, "saturated scale"),
        ({"effective_beta": 200.0}, "weighs 2e+02 times"),
    ],
)
def test_each_problem_is_named_once_with_a_remedy(change, message):
    health = Health(tiny(likelihood={"scale": "fixed"} if "effective_beta" in change else {}))
    assert health.training(1000, HEALTHY) == []
    (warning,) = health.training(1000, HEALTHY | change)
    assert message in warning and "config." in warning
    assert health.training(1001, HEALTHY | change) == []


def test_no_warning_is_given_before_the_warm_up_is_over():
    assert Health(tiny()).training(10, HEALTHY | {"kl_nats": 0.0}) == []


def test_unused_groups_are_named_only_when_training_ends():
    health = Health(tiny(train={"steps": 2000, "log_every": 100}))
    early, late = ({"kl_per_group": kl} for kl in ([9.0, 0.05, 3.0], [9.0, 2.0, 0.05]))
    assert health.training(1900, HEALTHY | early) == []
    (warning,) = health.training(2000, HEALTHY | late)
    assert "in group 2 of 3, counted from 0 at the top" in warning


def test_overfitting_is_named():
    health = Health(tiny())
    assert health.validation(HEALTHY, HEALTHY | {"elbo_bits_per_dim": 5.1}) == []
    (warning,) = health.validation(HEALTHY, HEALTHY | {"elbo_bits_per_dim": 5.4})
    assert "overfitting" in warning and "0.40 bits/dim more" in warning


def test_a_validation_before_the_first_log_gives_no_warning():
    assert Health(tiny()).validation(None, HEALTHY) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_every_picture_in_its_row_and_column(channels, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 28, 20, channels), np.uint8)
    sheet = pictures.grid(images, 3)
    factor = round(pictures.CELL / 28)
    high, wide = 28 * factor + pictures.GAP, 20 * factor + pictures.GAP
    assert sheet.shape == (2 * high + pictures.GAP, 3 * wide + pictures.GAP, channels)
    for place, image in enumerate(images):
        top, left = place // 3 * high + pictures.GAP, place % 3 * wide + pictures.GAP
        shown = sheet[top : top + 28 * factor : factor, left : left + 20 * factor : factor]
        np.testing.assert_array_equal(shown, image)
    pictures.save(tmp_path / "sheet.png", sheet)
    with Image.open(tmp_path / "sheet.png") as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(sheet.shape), sheet)


def test_originals_and_reconstructions_alternate_by_rows():
    first, second = (np.full((4, 2, 2, 1), value, np.uint8) for value in (1, 2))
    rows = pictures.interleave_rows(first, second, 2)
    assert rows[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 1, 1, 2, 2]


@pytest.mark.parametrize("faces", [1, 3])
def test_fewer_faces_than_a_row_holds_are_drawn_above_their_reconstructions(faces, tmp_path):
    config = least(data={"synthetic_counts": (8, faces, 0)})
    model, dataset = build_model(config), open_dataset(config.data)
    params = start(model, config)
    reporter = Reporter(tmp_path, 0)
    Gallery(config, dataset, tmp_path).draw(0, {NET: params}, reporter)
    reporter.close()
    sheet = np.asarray(Image.open(tmp_path / "reconstructions_00000000.png"))
    cell = 3 * 28 + pictures.GAP
    assert sheet.shape == (2 * cell + pictures.GAP, faces * cell + pictures.GAP, 3)
    for place in range(faces):
        left = pictures.GAP + place * cell
        original = sheet[pictures.GAP : cell : 3, left : left + 84 : 3]
        np.testing.assert_array_equal(original, dataset.splits["valid"].images[place])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0012345, "0.00123"), (12.345, "12.3"), (999.4, "999"), (999.7, "1,000"),
     (-1234.5, "-1,234"), ([1.0, 2.5], "1 2.5"), (None, ""), (1234, "1234")],
)  # fmt: skip
def test_a_table_cell_has_three_significant_digits(value, text):
    assert tables.cell(value) == text
