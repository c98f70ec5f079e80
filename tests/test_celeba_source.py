"""Tests the CelebA source: directory layouts, annotation tables, and errors about bad files."""

import gzip
import json
import pathlib
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_trees import ATTRIBUTES, celeba_records, jpeg, opened, rgb, write_celeba

from vaejax.config import DataConfig
from vaejax.data import open_dataset
from vaejax.data.sources.celeba import match, read_table
from vaejax.errors import UserError


@pytest.fixture(scope="module")
def records():
    return celeba_records()


@pytest.fixture(scope="module")
def official(records, tmp_path_factory):
    """Returns the data set in the official layout, a zip and text tables."""
    directory = tmp_path_factory.mktemp("official")
    root = write_celeba(directory / "data", records)
    return opened(directory, source="celeba", path=str(root), crop="nvae148")


@pytest.mark.parametrize(
    ("pictures", "tables"), [("zip", "csv"), ("folder", "txt"), ("nested", "csv")]
)
def test_celebas_layouts_give_one_data_set(tmp_path, records, official, pictures, tables):
    root = write_celeba(tmp_path / "data", records, pictures=pictures, tables=tables)
    dataset = opened(tmp_path, source="celeba", path=str(root), crop="nvae148")
    assert dataset.fingerprint == official.fingerprint
    assert json.loads(json.dumps(dataset.fingerprint)) == dataset.fingerprint
    assert str(tmp_path) not in json.dumps(dataset.fingerprint)
    assert dataset.fingerprint["attribute_names"] == ATTRIBUTES
    assert set(dataset.report["set_aside"]) <= {"../__MACOSX/"}
    assert list(dataset.splits) == ["train", "valid", "test"]
    for number, split in enumerate(dataset.splits.values()):
        names = [name for name, (_, part, _) in records.items() if part == number]
        assert list(split.names) == names
        want = np.stack([rgb(records[name][0], (15, 40, 163, 188)) for name in names])
        np.testing.assert_array_equal(split.images, want)
        bits = np.stack([records[name][2] for name in names])
        np.testing.assert_array_equal(split.labels["attributes"], bits)
        assert split.labels["attributes"].dtype == np.uint8
        assert not split.images.flags.writeable
        assert not split.labels["attributes"].flags.writeable


def test_pictures_that_do_not_agree_with_the_tables_are_set_aside(tmp_path, records):
    root = write_celeba(tmp_path / "data", records, pictures="folder")
    (root / "img_align_celeba" / "000003.jpg").unlink()
    (root / "img_align_celeba" / "999999.jpg").write_bytes(jpeg(0))
    (root / "img_align_celeba" / "000004.jpg").write_bytes(jpeg(4, 100, 100))
    dataset = opened(tmp_path, source="celeba", path=str(root), crop="nvae148")
    assert dataset.report["set_aside"] == {
        "000003.jpg": "listed in list_eval_partition.txt but missing",
        "999999.jpg": "not listed in list_eval_partition.txt",
        "000004.jpg": "100x100 pixels (width x height), but crop 'nvae148' is for 178x218 pictures "
        "(config.data.crop=center takes any size)",
    }
    assert (
        json.loads(pathlib.Path(dataset.report["file"]).read_text())
        == (dataset.report["set_aside"])
    )
    assert sum(len(split.images) for split in dataset.splits.values()) == 10


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("list_eval_partition.txt", r"lacks list_eval_partition.txt \(or Kaggle's .*\.csv\)"),
        ("list_attr_celeba.txt", "lacks list_attr_celeba.txt"),
        ("img_align_celeba.zip", "neither img_align_celeba.zip nor the folder"),
    ],
)
def test_a_missing_file_is_named(tmp_path, lost, message):
    root = write_celeba(tmp_path / "data", celeba_records(4))
    (root / lost).unlink()
    with pytest.raises(UserError, match=message):
        opened(tmp_path, source="celeba", path=str(root), crop="nvae148")


def test_the_line_of_a_damaged_table_is_named(tmp_path):
    root = write_celeba(tmp_path / "data", celeba_records(4))
    table = root / "list_attr_celeba.txt"
    table.write_text(table.read_text()[:-10])
    with pytest.raises(UserError, match=r"line 6 is '000004.jpg.*40 whole numbers"):
        opened(tmp_path, source="celeba", path=str(root), crop="nvae148")
    table.write_bytes(gzip.compress(table.read_bytes()))
    with pytest.raises(UserError, match=r"list_attr_celeba.txt is no text .*get the file again"):
        opened(tmp_path, source="celeba", path=str(root), crop="nvae148")


@pytest.mark.parametrize("suffix", ["", ".jpg.png"])
def test_pictures_are_found_by_their_names_without_the_suffix(
    tmp_path, capsys, records, official, suffix
):
    root = write_celeba(tmp_path / "data", records, pictures="folder")
    for path in sorted((root / "img_align_celeba").iterdir())[:-1]:
        path.rename(path.with_name(path.stem + suffix))
    settings = {"source": "celeba", "path": str(root), "crop": "nvae148"}
    config = DataConfig(**settings, image_size=(32, 32), cache_dir=str(tmp_path / "cache"))
    dataset = open_dataset(config)
    message = "11 pictures have another suffix than in list_eval_partition.txt; they were matched"
    assert capsys.readouterr().err.count(message) == 1
    assert dataset.fingerprint == official.fingerprint
    for name, split in official.splits.items():
        np.testing.assert_array_equal(dataset.splits[name].images, split.images)
        np.testing.assert_array_equal(
            dataset.splits[name].labels["attributes"], split.labels["attributes"]
        )
    assert dataset.splits["valid"].names[0] == f"000002{suffix}"


def test_a_name_that_fits_several_files_is_set_aside(tmp_path, records):
    root = write_celeba(tmp_path / "data", records, pictures="folder")
    pictures = root / "img_align_celeba"
    (pictures / "000001.jpg").rename(pictures / "000001.png")
    (pictures / "000001.webp").write_bytes(jpeg(1))
    (pictures / "000002.png").write_bytes(jpeg(2))  # 000002.jpg matches its row exactly
    dataset = opened(tmp_path, source="celeba", path=str(root), crop="nvae148")
    several = "one of several files or rows of this name without the suffix"
    assert dataset.report["set_aside"] == {
        "000001.jpg": "listed in list_eval_partition.txt but missing",
        "000001.png": several,
        "000001.webp": several,
        "000002.png": "not listed in list_eval_partition.txt",
    }
    assert sum(len(split.images) for split in dataset.splits.values()) == 11


STEMS = st.sampled_from(["1", "2", "3"])
NAMES = st.sets(st.builds(str.__add__, STEMS, st.sampled_from([".jpg", ".png", ".JPG", ""])))


@given(NAMES, NAMES)
def test_rows_are_found_by_name_or_by_the_only_stem(files, rows):
    matched = match(sorted(files), sorted(rows))
    for name in files:
        stem = name.partition(".")[0]
        rivals = {other for other in files - rows if other.partition(".")[0] == stem}
        candidates = {row for row in rows - files if row.partition(".")[0] == stem}
        if name in rows:
            assert matched[name] == name
        elif not candidates:
            assert name not in matched
        else:
            only_one = len(rivals) == len(candidates) == 1
            assert matched[name] == (candidates.pop() if only_one else "")


@pytest.mark.parametrize("odd", ["quoted", "byte order mark", "CRLF", "upper case", "spaces"])
def test_kaggles_tables_are_read_however_they_were_saved(tmp_path, records, official, odd):
    root = write_celeba(tmp_path / "data", records, tables="csv")
    for path in root.glob("*.csv"):
        text = path.read_text()
        if odd == "quoted":
            lines = (line.split(",") for line in text.splitlines())
            text = "".join(",".join(f'"{field}"' for field in line) + "\n" for line in lines)
        elif odd == "spaces":
            text = text.replace(",", " , ")
        start = b"\xef\xbb\xbf" if odd == "byte order mark" else b""
        path.write_bytes(start + text.replace("\n", "\r\n" if odd == "CRLF" else "\n").encode())
        if odd == "upper case":
            path.rename(path.with_name(path.name.upper()))
    dataset = opened(tmp_path, source="celeba", path=str(root), crop="nvae148")
    assert dataset.fingerprint == official.fingerprint


def test_real_celeba_pictures_have_their_splits_and_attributes_from_zip_and_folder(
    tmp_path, real_faces
):
    source = real_faces / "celeba"
    lines = (source / "list_eval_partition.txt").read_text().splitlines()
    names = [line.split() for line in lines]
    names = dict(names[:60] + names[-40:])
    table = (source / "list_attr_celeba.txt").read_text().splitlines()
    rows = [line for line in table[2:] if line.split()[0] in names]
    with zipfile.ZipFile(source / "img_align_celeba.zip") as archive:
        content = {name: archive.read(f"img_align_celeba/{name}") for name in names}
    fingerprints = []
    for kind in ("zip", "folder"):
        root = tmp_path / kind
        root.mkdir()
        lines = [f"{name} {part}" for name, part in names.items()]
        (root / "list_eval_partition.txt").write_text("\n".join(lines))
        (root / "list_attr_celeba.txt").write_text("\n".join([str(len(rows)), table[1], *rows]))
        if kind == "zip":
            with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
                for name in names:
                    archive.writestr(f"img_align_celeba/{name}", content[name])
        else:
            (root / "img_align_celeba").mkdir()
            for name in names:
                (root / "img_align_celeba" / name).write_bytes(content[name])
        dataset = opened(tmp_path, source="celeba", path=str(root), crop="wae140")
        fingerprints.append(dataset.fingerprint)
        assert {name: len(split.images) for name, split in dataset.splits.items()} == {
            "train": 60,
            "valid": 40,
        }
        first = dict(zip(table[1].split(), rows[0].split()[1:]))
        bits = dict(zip(ATTRIBUTES, dataset.splits["train"].labels["attributes"][0]))
        assert {key: int(value) > 0 for key, value in first.items()} == bits
    assert fingerprints[0] == fingerprints[1]


def test_a_line_that_contradicts_an_earlier_one_is_named(tmp_path):
    file = tmp_path / "list_eval_partition.txt"
    file.write_text("a.jpg 0\nb.jpg 1\na.jpg 0\n")
    assert read_table(file).rows == {"a.jpg": [0], "b.jpg": [1]}
    file.write_text("a.jpg 0\nb.jpg 1\na.jpg 2\n")
    with pytest.raises(UserError, match=r"line 3 contradicts an earlier line about 'a\.jpg'"):
        read_table(file)
