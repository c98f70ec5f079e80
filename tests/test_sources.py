"""Opens data sets of several kinds of sources, and checks the messages about mistakes."""

import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_trees import jpeg, opened

from vaejax.data import splits
from vaejax.errors import UserError

# Folders and zips


def write_folder(root, count=40):
    for number in range(count):
        path = root / ("deep/er" if number % 3 else "deep") / f"p{number:03d}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number, 40 + number, 70 - number))
    (root / "deep" / ".hidden.jpg").write_bytes(jpeg(1))
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "x.jpg").write_bytes(jpeg(1))
    (root / "readme.md").write_text("not a picture")
    return root


def contents(dataset):
    return {
        name: {split.images[row].tobytes() for row in range(len(split.images))}
        for name, split in dataset.splits.items()
    }


def test_a_folder_and_its_zip_give_one_data_set(tmp_path):
    root = write_folder(tmp_path / "faces")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in sorted(root.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(tmp_path))
    settings = {"source": "folder", "crop": "center", "holdout": (0.2, 0.1), "image_size": (28, 20)}
    folder = opened(tmp_path, path=str(root), **settings)
    archive = opened(tmp_path, path=str(tmp_path / "faces.zip"), **settings)
    assert folder.fingerprint == archive.fingerprint
    assert folder.fingerprint["crop"] == {
        "preset": "center",
        "box": "center",
        "filter": "bilinear",
    }
    assert sum(len(split.images) for split in folder.splits.values()) == 40
    for name, split in folder.splits.items():
        assert split.images.shape[1:] == (28, 20, 3)
        np.testing.assert_array_equal(split.images, archive.splits[name].images)
        assert list(split.names) == sorted(split.names) == list(archive.splits[name].names)
    picture = folder.splits["train"].names[0]
    assert (root / "deep" / picture).is_file()


def test_new_pictures_do_not_move_others_and_copies_stay_together(tmp_path):
    root = write_folder(tmp_path / "faces")
    settings = {"source": "folder", "path": str(root), "crop": "center", "holdout": (0.3, 0.2)}
    before = contents(opened(tmp_path, **settings))
    for number in range(40, 60):
        (root / f"a{number}.jpg").write_bytes(jpeg(number))
    for path in list(root.glob("deep/p*.JPG")):
        (root / f"copy_of_{path.name}").write_bytes(path.read_bytes())
    after = contents(opened(tmp_path, **settings))
    for name in before:
        assert before[name] <= after[name]
    sets = list(after.values())
    assert len(set.union(*sets)) == sum(map(len, sets)) == 60


def test_a_holdout_in_pictures_is_exact_although_some_are_broken(tmp_path):
    root = write_folder(tmp_path / "faces")
    for number in range(15):
        (root / f"bad{number}.jpg").write_bytes(b"x" * number)
    settings = {"source": "folder", "path": str(root), "crop": "center", "holdout": (7.0, 3.0)}
    dataset = opened(tmp_path, **settings)
    sizes = {name: len(split.images) for name, split in dataset.splits.items()}
    assert sizes == {"train": 30, "valid": 7, "test": 3}
    assert sum(name.startswith("bad") for name in dataset.report["set_aside"]) == 15
    other = opened(tmp_path, split_seed=1, **settings)
    assert contents(other)["valid"] != contents(dataset)["valid"]
    with pytest.raises(UserError, match="leaves nothing to train on"):
        opened(tmp_path, **settings | {"holdout": (37.0, 3.0)})


@given(
    st.lists(st.integers(0, 30), min_size=3, max_size=60),
    st.sampled_from([(0.1, 0.0), (0.3, 0.3), (2.0, 0.0), (1.0, 1.0), (0.2, 2.0)]),
    st.integers(0, 3),
)
def test_copies_share_a_split_and_counts_are_exact_without_copies(values, holdout, seed):
    digests = [bytes([value]) for value in values]
    try:
        names = splits.assign(digests, holdout, seed)
    except UserError:
        return
    assert all(len({n for n, v in zip(names, values) if v == value}) == 1 for value in values)
    if len(set(values)) == len(values):
        for name, amount in zip(("valid", "test"), holdout):
            if amount >= 1:
                assert names.count(name) == amount


# Arrays


def test_arrays_of_any_layout_and_type_give_the_same_pictures(tmp_path):
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (30, 28, 20), np.uint8)
    path = tmp_path / "a.npz"
    settings = {"source": "array", "crop": "none", "image_size": (28, 20), "holdout": (5.0, 2.0)}
    np.savez(path, faces=grey, identity=np.arange(30), note=np.arange(3))
    dataset = opened(tmp_path, path=str(path), channels=1, **settings)
    sizes = {name: len(split.images) for name, split in dataset.splits.items()}
    assert sizes == {"train": 23, "valid": 5, "test": 2}
    for split in dataset.splits.values():
        rows = split.labels["identity"]
        assert list(split.labels) == ["identity"]
        assert [int(name) for name in split.names] == list(rows)
        np.testing.assert_array_equal(split.images[..., 0], grey[rows])
    # Another shape or dtype of the array gives the same pictures.
    for number, form in enumerate(
        [grey[..., None], grey / 255.0, grey.astype(np.float32), (grey / 255).astype(np.float16)]
    ):
        path = tmp_path / f"{number}.npy"
        np.save(path, form)
        other = opened(tmp_path, path=str(path), channels=1, **settings)
        images = np.concatenate([split.images for split in other.splits.values()])
        rows = np.concatenate([split.names for split in other.splits.values()]).astype(int)
        np.testing.assert_array_equal(images[..., 0], grey[rows])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((9, 784), np.uint8)}, r"no array of shape .*x \[9, 784\].*reshape"),
        ({"a": np.zeros((9, 8, 8)), "b": np.zeros((9, 8, 8))}, "more than one array of shape"),
        ({"x": np.zeros((9, 3, 32, 32), np.uint8)}, "last axis is not 1, 3 or 4.*transpose"),
        ({"x": np.zeros((9, 32, 32), np.int64)}, "is int64: save pictures as uint8"),
        ({"x": np.full((9, 32, 32), np.nextafter(1.0, 2))}, "neither .*clip them to"),
        ({"x": np.full((9, 32, 32), -1.0)}, r"values from -1 to -1: scale them to \[0, 1\]"),
        ({"x": np.full((9, 32, 32), np.nan)}, "values from nan"),
        ({"x": np.zeros((0, 32, 32), np.uint8)}, "it is empty"),
        ({"x": np.array([None, 1], dtype=object)}, "cannot be read.*numpy.savez"),
    ],
)
def test_arrays_that_cannot_be_pictures_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        opened(tmp_path, source="array", path=str(tmp_path / "a.npz"), crop="none")


def test_the_content_of_an_array_file_decides_and_not_its_name(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (9, 28, 20), np.uint8)
    np.savez(tmp_path / "zip.npz", faces=grey)
    with zipfile.ZipFile(tmp_path / "zip.npz", "a") as archive:
        archive.writestr("README.txt", "no array")
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    np.save(tmp_path / "plain.npy", grey)
    (tmp_path / "plain.npy").rename(tmp_path / "plain.npz")
    for name in ("zip.npy", "plain.npz"):
        path, shape = str(tmp_path / name), {"channels": 1, "image_size": (28, 20)}
        dataset = opened(tmp_path, source="array", path=path, crop="none", **shape)
        assert sum(len(split.images) for split in dataset.splits.values()) == 9


@pytest.mark.parametrize(("name", "save"), [("UPPER.NPZ", np.savez), ("nosuffix", np.save)])
def test_array_files_may_have_any_name(tmp_path, name, save):
    grey = np.random.default_rng(0).integers(0, 256, (9, 28, 20), np.uint8)
    with open(tmp_path / name, "wb") as file:
        save(file, grey)
    # `np.savez` calls the array arr_0; it is used as the only one with 3 or 4 axes.
    dataset = opened(
        tmp_path,
        source="array",
        path=str(tmp_path / name),
        crop="none",
        channels=1,
        image_size=(28, 20),
    )
    assert sum(len(split.images) for split in dataset.splits.values()) == 9


def test_labels_are_part_of_the_fingerprint(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (30, 28, 20), np.uint8)
    settings = {"crop": "none", "channels": 1, "image_size": (28, 20), "holdout": (5.0, 2.0)}

    def fingerprint(**labels):
        path = tmp_path / "a.npz"
        np.savez(path, images=grey, **labels)
        return opened(tmp_path, source="array", path=str(path), **settings).fingerprint

    labels = {
        "age": np.linspace(0, 1, 30),
        "who": np.arange(30),
        "name": np.array([f"n{i}" for i in range(30)]),
        "code": np.array([b"\xff%d" % i for i in range(30)]),
        "born": np.arange(30).astype("datetime64[D]"),
    }
    first = fingerprint(**labels)
    hashed = {name: split["labels"] for name, split in first["splits"].items()}
    assert list(hashed) == ["train", "valid", "test"]
    assert all(list(split) == sorted(labels) for split in hashed.values())
    assert len({digest for split in hashed.values() for digest in split.values()}) == 15
    # Neither the order of the labels nor the width of an integer changes the fingerprint.
    narrow = dict(reversed(labels.items())) | {"who": np.arange(30, dtype=np.int16)}
    assert fingerprint(**narrow) == first
    for key in labels:
        other = fingerprint(**labels | {key: labels[key][::-1].copy()})
        for name, split in other["splits"].items():
            changed = {label for label in labels if split["labels"][label] != hashed[name][label]}
            assert changed == {key}
            assert split | {"labels": hashed[name]} == first["splits"][name]
    assert all(split["labels"] == {} for split in fingerprint()["splits"].values())


@pytest.mark.parametrize(
    ("file", "size"), [("frey/freyfaces.npz", (28, 20)), ("olivetti/olivetti.npz", (64, 64))]
)
def test_real_arrays_are_read_without_change(tmp_path, real_faces, file, size):
    settings = {"image_size": size, "channels": 1, "crop": "none", "holdout": (100.0, 50.0)}
    dataset = opened(tmp_path, source="array", path=str(real_faces / file), **settings)
    faces = np.load(real_faces / file)["faces"]
    assert len(dataset.splits["valid"].images) == 100
    for split in dataset.splits.values():
        np.testing.assert_array_equal(split.images[..., 0], faces[split.names.astype(int)])


# Synthetic


def test_synthetic_splits_are_disjoint_ranges_of_faces(tmp_path):
    from vaejax.data.synthetic.faces import faces

    dataset = opened(tmp_path, source="synthetic", crop="none", synthetic_counts=(70, 5, 3))
    numbers = [list(split.names.astype(int)) for split in dataset.splits.values()]
    assert numbers == [list(range(70)), list(range(70, 75)), list(range(75, 78))]
    pictures, labels = faces(np.arange(70, 75), 32, 32, seed=0)
    np.testing.assert_array_equal(dataset.splits["valid"].images, pictures)
    for name, column in labels.items():
        np.testing.assert_array_equal(dataset.splits["valid"].labels[name], column)
    few = opened(tmp_path, source="synthetic", crop="none", synthetic_counts=(9, 0, 0), channels=1)
    assert list(few.splits) == ["train"]
    assert few.splits["train"].images.shape == (9, 32, 32, 1)


# Mistakes: the message names the problem and the remedy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "folder"}, "data.path is empty.*set it to a folder or zip"),
        ({"source": "celeba"}, "data.path is empty.*img_align_celeba.zip"),
        ({"source": "folder", "path": "/nowhere/at/all"}, "'/nowhere/at/all' does not exist"),
        (
            {"source": "folder", "path": "{empty}"},
            "holds no pictures: put JPEG, PNG or other",
        ),
        ({"source": "folder", "path": "{file}"}, "neither a directory nor a readable zip"),
        ({"source": "celeba", "path": "{file}"}, "is not a directory"),
        ({"source": "array", "path": "{file}"}, "is not an .npz or .npy file"),
        ({"source": "array", "path": "{bad}"}, "is not an .npz or .npy file"),
        ({"source": "array", "path": "{truncated}"}, "cannot be read"),
        ({"source": "array", "path": "{empty}"}, "is not a file"),
        ({"source": "folder", "path": "{pipe}"}, "neither a directory nor a file"),
        ({"source": "array", "path": "{pipe}"}, "is not a file"),
        ({"source": "folder", "path": "{loop}"}, "cannot be read .*symbolic links"),
        ({"source": "folder", "path": "x" * 300}, r"cannot be read \(File name too long\)"),
        ({"source": "folder", "path": "a\0b"}, "cannot be read .*null"),
        ({"source": "folder", "path": "~nosuchuser/x"}, "cannot be read .*home"),
        ({"source": "lsun"}, "'lsun' is unknown: use synthetic, celeba, folder, array or tfds"),
        ({"source": "celeba", "crop": "nvae148", "image_size": (64, 48)}, "gives square pictures"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_remedy(tmp_path, settings, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    (tmp_path / "bad.npz").write_text("hello")
    (tmp_path / "truncated.npz").write_bytes(b"PK\3\4 and no more")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    places = {name: tmp_path / name for name in ("empty", "pipe", "loop")}
    places["file"] = tmp_path / "file.txt"
    places |= {name: tmp_path / f"{name}.npz" for name in ("bad", "truncated")}
    settings = {"crop": "center"} | settings
    settings["path"] = settings.get("path", "").format(**places)
    with pytest.raises(UserError, match=message) as raised:
        opened(tmp_path, **settings)
    assert "\n" not in str(raised.value)
