"""Data sets of TFDS: the same CelebA as in the official layout, and one-line errors."""

import dataclasses
import importlib.util
import shutil
import sys

import numpy as np
import pytest
from picture_trees import ATTRIBUTES, write_celeba

from vaejax.config import DataConfig
from vaejax.data import lazy_tensorflow, open_dataset, prepare
from vaejax.data.cache import store
from vaejax.data.sources.tfds import CELEBA_FILES
from vaejax.errors import UserError

for package in ("tensorflow", "tensorflow_datasets"):
    if not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def records():
    """Returns the records of the mini data set, whose import registers it with TFDS.

    It is imported here, so that collecting the tests does not import TensorFlow.
    """
    return importlib.import_module("mini_faces").RECORDS


@pytest.fixture(scope="module")
def prepared(records, tmp_path_factory):
    """Returns the settings of the mini data set, prepared from files in the home directory."""
    root = tmp_path_factory.mktemp("tfds")
    files = root / "files"
    files.mkdir()
    for name, (content, _, _) in records.items():
        (files / name).write_bytes(content)
    config = DataConfig(
        source="tfds:mini_faces",
        path=str(root / "data"),
        manual_dir="~/files",
        crop="nvae148",
        image_size=(32, 32),
        cache_dir=str(root / "cache"),
    )
    with pytest.raises(UserError, match=r"is not prepared in .*python -m vaejax.prepare"):
        open_dataset(config, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(root))
        prepare(config, progress=False)
    return config


def test_pictures_splits_and_labels_equal_those_of_the_official_layout(
    prepared, records, tmp_path, monkeypatch
):
    root = write_celeba(tmp_path / "data", records)
    official = open_dataset(
        DataConfig(
            source="celeba",
            path=str(root),
            crop="nvae148",
            image_size=(32, 32),
            cache_dir=str(tmp_path / "cache"),
        ),
        progress=False,
    )
    monkeypatch.setattr(store, "build", lambda *_: pytest.fail("prepare has built the cache"))
    dataset = open_dataset(prepared, progress=False)
    assert dataset.fingerprint["attribute_names"] == ATTRIBUTES
    assert dataset.fingerprint["crop"] == official.fingerprint["crop"]
    assert list(dataset.splits) == list(official.splits) == ["train", "valid", "test"]
    for name, split in dataset.splits.items():
        want = official.splits[name]
        assert set(split.labels) == {"attributes", "identity"}
        assert split.labels["attributes"].dtype == np.uint8
        ours, theirs = (
            {
                (image.tobytes(), bits.tobytes())
                for image, bits in zip(each.images, each.labels["attributes"])
            }
            for each in (split, want)
        )
        assert len(ours) == len(split.images)
        assert ours == theirs
        # TFDS has another order; the label `identity` is the number of each picture's file.
        files = [f"{number:06d}.jpg" for number in split.labels["identity"][:, 0]]
        rows = [list(want.names).index(file) for file in files]
        np.testing.assert_array_equal(split.images, want.images[rows])
        assert all(
            f"mini_faces-{'validation' if name == 'valid' else name}" in n for n in split.names
        )


def test_splits_that_are_not_used_are_named(prepared, records, capsys):
    open_dataset(prepared)
    count = sum(part == 2 for _, part, _ in records.values())
    note = f"splits of tfds:mini_faces that are not used: extra ({count} examples)"
    assert note in capsys.readouterr().err.splitlines()


def test_the_order_of_pictures_is_the_same_every_time(prepared, tmp_path):
    again = dataclasses.replace(prepared, cache_dir=str(tmp_path))
    assert (
        open_dataset(again, progress=False).fingerprint
        == open_dataset(prepared, progress=False).fingerprint
    )


@pytest.mark.parametrize("entry", ["builder_from_directory", "as_numpy"])
def test_what_tfds_raises_is_one_line(prepared, tmp_path, monkeypatch, entry):
    def fail(*_, **__):
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr(f"tensorflow_datasets.{entry}", fail)
    again = dataclasses.replace(prepared, cache_dir=str(tmp_path))
    message = r"mini_faces' cannot be read from .* \(ValueError: first line\): remove that"
    with pytest.raises(UserError, match=message) as raised:
        open_dataset(again, progress=False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("pattern", ["*.json", "*tfrecord*"])
def test_a_damaged_prepared_data_set_is_named(prepared, tmp_path, pattern):
    data = shutil.copytree(prepared.path, tmp_path / "data")
    for file in data.rglob(pattern):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    damaged = dataclasses.replace(prepared, path=str(data), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"mini_faces' cannot be read from .*: remove that"):
        open_dataset(damaged, progress=False)


def test_the_official_order_of_celebas_attributes_is_alphabetical():
    builder = importlib.import_module("tensorflow_datasets").builder_cls("celeb_a")
    module = importlib.import_module(builder.__module__)
    assert module.ATTR_HEADINGS == ATTRIBUTES == sorted(ATTRIBUTES)


def test_missing_names_directories_and_files_are_named(tmp_path):
    def config(**settings):
        return DataConfig(crop="center", path=str(tmp_path / "data"), **settings)

    with pytest.raises(UserError, match="'tfds:no_such_faces' is neither known to TFDS nor"):
        open_dataset(config(source="tfds:no_such_faces"), progress=False)
    with pytest.raises(UserError, match=r"'tfds:celeb_a' is not prepared .*vaejax\.prepare"):
        open_dataset(config(source="tfds:celeb_a"), progress=False)
    with pytest.raises(UserError, match="'tfds:no_such_faces' is neither known to TFDS nor"):
        prepare(config(source="tfds:no_such_faces"), progress=False)
    with pytest.raises(UserError, match="is not a directory: name the one with the files"):
        prepare(config(source="tfds:celeb_a", manual_dir=str(tmp_path / "none")), progress=False)
    files = tmp_path / "files"
    files.mkdir()
    (files / "identity_CelebA.txt").write_text("")
    message = r"lacks img_align_celeba.zip, list_eval_partition.txt, list_attr_celeba.txt, list_l"
    with pytest.raises(UserError, match=message):
        prepare(config(source="tfds:celeb_a", manual_dir=str(files)), progress=False)


def test_altered_files_are_refused_in_one_line(tmp_path):
    """TFDS refuses files with another checksum, such as Kaggle's repacked zip."""
    files = tmp_path / "files"
    files.mkdir()
    for name in CELEBA_FILES:
        (files / name).write_bytes(b"altered")
    config = DataConfig(
        source="tfds:celeb_a",
        path=str(tmp_path / "data"),
        manual_dir=str(files),
        crop="nvae148",
        cache_dir=str(tmp_path / "cache"),
    )
    with pytest.raises(UserError, match=r"could not be prepared .*checksum.*unchanged") as raised:
        prepare(config, progress=False)
    assert "\n" not in str(raised.value)


def test_without_tfds_the_remedy_is_named(monkeypatch, tmp_path):
    # The next call imports again, and the error that it raises is not cached.
    lazy_tensorflow.tensorflow_datasets.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'vaejax\[tfds\]'"):
        open_dataset(DataConfig(source="tfds:celeb_a", crop="center"), progress=False)
