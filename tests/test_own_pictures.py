"""Files that vaejax wrote among a user's pictures are never used as data."""

import json

import numpy as np
import pytest
from commands import command
from picture_trees import jpeg, opened
from PIL import Image
from tiny import CONFIG_FILE, LEAST, tiny

from vaejax.config.saved import save_json
from vaejax.data.sources.picture_files import PictureFiles
from vaejax.records import pictures
from vaejax.records.workdir import claim

pytestmark = pytest.mark.slow

FLAGS = [f"--config={CONFIG_FILE}", *LEAST, "--config.data.source=folder"]


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(40):
        (root / f"p{number:03d}.jpg").write_bytes(jpeg(number, 64, 64))
    return root


def prepared(root, *flags):
    done = command("prepare", *FLAGS, f"--config.data.path={root}", *flags, cwd=root)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_run_among_the_pictures_trains_and_goes_on(photos):
    done = command("main", *FLAGS, "--config.data.path=.", cwd=photos)
    assert done.returncode == 0, done.stderr
    assert "not used: 1 × vaejax run; their names are in" in done.stderr
    assert (photos / "runs" / "tiny" / "samples.png").is_file()
    # A command in another working directory finds the same pictures.
    told = prepared(photos.parent, f"--config.data.path={photos}")
    assert "train: 34 pictures" in told and "1 × vaejax run" in told
    done = command("sample", "--workdir=runs/tiny", "--count=4", "--out=faces.jpg", cwd=photos)
    assert done.returncode == 0, done.stderr
    flags = ["--config.data.path=.", "--config.train.steps=18"]
    done = command("main", *FLAGS, *flags, cwd=photos)
    assert done.returncode == 0, done.stderr
    assert "training from step 12 to 18" in done.stderr
    assert "1 × drawn by vaejax" in done.stderr


def test_previews_among_the_pictures_do_not_add_to_them(photos):
    for previews in (0, 1, 1):
        told = prepared(photos, "--preview=preview.png")
        assert "train: 34 pictures" in told
        assert "valid: 6 pictures" in told
        assert ("not used: 1 × drawn by vaejax" in told) == bool(previews)


def test_a_run_is_known_from_its_first_moment_to_its_remains(photos):
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
def test_other_config_files_say_nothing(photos, content):
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


def test_a_sheet_is_marked(tmp_path):
    pictures.save(tmp_path / "a.png", np.zeros((8, 8, 1), np.uint8))
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["Software"] == "vaejax"
        assert pictures.is_marked(image)
    with Image.open(tmp_path / "a.png") as image:
        image.save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert not pictures.is_marked(image)
