"""Files that vaejax wrote among a user's pictures are not used as data."""

import json

import numpy as np
import pytest
from commands import command
from picture_trees import jpeg, opened
from PIL import Image
from tiny import CONFIG_FILE, LEAST, least, tiny

from vaejax.config.saved import save_json
from vaejax.data.sources.picture_files import PictureFiles
from vaejax.records import pictures
from vaejax.records.workdir import claim
from vaejax.training.loop import Outcome, train

pytestmark = pytest.mark.slow

FLAGS = [f"--config={CONFIG_FILE}", *LEAST, "--config.data.source=folder"]


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(40):
        (root / f"p{number:03d}.jpg").write_bytes(jpeg(number, 64, 64))
    return root


def test_a_run_among_its_pictures_trains_and_resumes(photos, monkeypatch, capsys):
    def config(steps):
        return least(
            data={"source": "folder", "path": ".", "crop": "center", "holdout": (0.0, 0.0)},
            model={"widths": (8,), "blocks": (0,)},
            train={"steps": steps},
        )

    monkeypatch.chdir(photos)
    workdir = photos / "runs" / "tiny"
    assert train(config(2), workdir) is Outcome.FINISHED
    assert "not used: 1 × vaejax run; their names are in" in capsys.readouterr().err
    pictures.save(photos / "faces.jpg", np.zeros((64, 64, 3), np.uint8))
    assert train(config(4), workdir) is Outcome.FINISHED
    stderr = capsys.readouterr().err
    assert "training from step 2 to 4" in stderr
    assert "1 × vaejax run" in stderr and "1 × drawn by vaejax" in stderr


def test_a_folder_of_a_run_is_the_same_data_from_any_working_directory(photos, monkeypatch):
    with claim(photos / "runs" / "tiny", tiny()):
        pass
    settings = {"source": "folder", "crop": "center", "holdout": (0.0, 0.0)}
    monkeypatch.chdir(photos)
    here = opened(photos.parent, path=".", **settings)
    monkeypatch.chdir(photos.parent)
    there = opened(photos.parent, path=str(photos), **settings)
    assert here.fingerprint == there.fingerprint and len(there.splits["train"].images) == 40
    assert there.report["set_aside"] == {"runs/tiny/": "vaejax run"}


def test_a_preview_among_the_pictures_does_not_add_to_them(photos):
    for notes in ("", "not used: 1 × drawn by vaejax"):
        path = f"--config.data.path={photos}"
        done = command("prepare", *FLAGS, path, "--preview=preview.png", cwd=photos)
        assert done.returncode == 0, done.stderr
        assert "train: 34 pictures" in done.stderr and "valid: 6 pictures" in done.stderr
        assert notes in done.stderr and ("not used" in done.stderr) == bool(notes)


def test_a_run_is_recognised_from_its_start_and_by_its_remains(photos):
    def left_out():
        return PictureFiles(photos, 10**8).left_out

    run = photos / "run"
    picture = np.zeros((8, 8, 3), np.uint8)
    with claim(run, tiny()):
        Image.fromarray(picture).save(run / "unmarked.png")
        assert left_out() == {"run/": "vaejax run"}
    (run / ".vaejax").unlink()
    assert "run/" not in left_out()
    # Some versions wrote no mark: their runs are recognised by the config.
    save_json(run / "config.json", tiny())
    assert left_out() == {"run/": "vaejax run"}
    # Other versions may have other sections.
    old = json.loads((run / "config.json").read_text())
    old["ladder"] = {}
    (run / "config.json").write_text(json.dumps(old))
    assert left_out() == {"run/": "vaejax run"}
    # Without a config, metrics and checkpoints together make a run.
    (run / "config.json").unlink()
    (run / "metrics.jsonl").write_text("{}\n")
    assert "run/" not in left_out()
    (run / "checkpoints").mkdir()
    assert left_out() == {"run/": "vaejax run"}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"data": 1, "model": {}, "train": {}}', '{"name": "my project"}', "[" * 10**5],
)
def test_other_config_files_do_not_mark_a_run(photos, content):
    (photos / "deep").mkdir()
    (photos / "deep" / "config.json").write_text(content)
    (photos / "deep" / "a.jpg").write_bytes(jpeg(77))
    assert len(PictureFiles(photos, 10**8).names) == 41


def test_a_cache_among_the_pictures_is_left_out(photos):
    settings = {"source": "folder", "path": str(photos), "crop": "center"}
    settings["cache_dir"] = str(photos / "cache")
    first = opened(photos, **settings)
    again = opened(photos, **settings)
    assert again.fingerprint == first.fingerprint
    assert "cache folder" in again.report["set_aside"].values()


def test_a_saved_picture_is_marked_and_a_copy_by_another_program_is_not(tmp_path):
    pictures.save(tmp_path / "a.png", np.zeros((8, 8, 1), np.uint8))
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["Software"] == "vaejax"
        assert pictures.is_marked(image)
    with Image.open(tmp_path / "a.png") as image:
        image.save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert not pictures.is_marked(image)
