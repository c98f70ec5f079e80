"""The labels of a data set on which a flow prior can be conditioned."""

import re

import numpy as np
import pytest
from picture_trees import ATTRIBUTES

from vaejax.data import Dataset, Split
from vaejax.data.sources.celeba import read_table
from vaejax.data.synthetic.faces import faces, render
from vaejax.data.synthetic_labels import SIDED
from vaejax.errors import UserError
from vaejax.tasks.flow_prior.labels import label_columns, label_values


def dataset(labels=None, names=None, fingerprint=None):
    """Returns a data set of four training pictures, whose labels or names are given by split."""
    named = {split: np.array(of, np.str_) for split, of in (names or {}).items()}
    columns = labels or {split: {} for split in named}
    splits = {
        split: Split(
            np.zeros((4, 1, 1, 3), np.uint8), of, named.get(split, np.array(["a.png"] * 4, np.str_))
        )
        for split, of in columns.items()
    }
    return Dataset(splits, fingerprint or {}, {})


def test_a_label_is_a_named_attribute_or_a_numeric_label():
    attributes = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], np.uint8)
    labels = {"attributes": attributes, "age": np.array([20, 30, 40, 50]),
              "person": np.array(["a", "b", "c", "d"]), "landmarks": np.zeros((4, 2))}  # fmt: skip
    data = dataset({"train": labels, "valid": labels}, None, {"attribute_names": ["Hat", "Male"]})
    assert label_columns(data).keys() == {"Hat", "Male", "age"}
    values = label_values(data, ("age", "Male"))
    assert values.keys() == {"train", "valid", "mirrored"}
    for of in values.values():
        np.testing.assert_array_equal(of, [[20, 0], [30, 0], [40, 1], [50, 1]])
        assert of.dtype == np.float32
    unnamed = dataset({"train": {"attributes": attributes}})
    np.testing.assert_array_equal(
        label_values(unnamed, ("attribute 2",))["train"], attributes[:, 1:]
    )


def test_a_label_that_a_split_lacks_is_no_label():
    age = {"age": np.array([20, 30, 40, 50])}
    for labels in ({"train": age, "valid": {}}, {"train": {}, "valid": age}):
        with pytest.raises(UserError, match="no such label; it has: none"):
            label_values(dataset(labels), ("age",))


@pytest.mark.parametrize("top", [("", ""), ("train/", "val/")])
def test_folders_are_classes_below_the_folders_of_the_splits(top):
    names = [["cats/1.png", "dogs/1.png", "dogs/2.png", "cats/3.png"],
             ["dogs/8.png", "dogs/9.png", "cats/8.png", "birds/8.png"]]  # fmt: skip
    data = dataset(names={split: [above + name for name in of]
                          for split, above, of in zip(("train", "valid"), top, names)})  # fmt: skip
    values = label_values(data, ("cats", "dogs"))
    np.testing.assert_array_equal(values["train"], [[1, 0], [0, 1], [0, 1], [1, 0]])
    np.testing.assert_array_equal(values["valid"], [[0, 1], [0, 1], [1, 0], [0, 0]])
    with pytest.raises(UserError, match=r"names 'birds', .* no such label; it has: cats, dogs"):
        label_values(data, ("birds",))


@pytest.mark.parametrize(
    ("label", "name", "message"),
    [([1.0, 2, 3, 4], "ages", "the data has no such label; it has: age; did you mean age?"),
     ([1.0, np.nan, 3, 4], "age", "names 'age', some of whose values are not finite"),
     ([7.0] * 4, "age", "names 'age', which is the same for all training pictures; leave it out"),
     (["a", "b", "c", "d"], "age", "the data has no such label; it has: none")],
)  # fmt: skip
def test_a_label_that_cannot_be_learned_is_one_line(label, name, message):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        label_values(dataset({"train": {"age": np.array(label)}}), (name,))
    assert "\n" not in str(raised.value) and "config.flow.labels" in str(raised.value)


def test_of_many_labels_a_message_lists_some():
    attributes = np.eye(4, 40, dtype=np.uint8)
    data = dataset({"train": {"attributes": attributes}}, None, {"attribute_names": ATTRIBUTES})
    with pytest.raises(UserError, match=r"Big_Nose and 32 more; did you mean Smiling\?$"):
        label_values(data, ("smiling",))


def test_no_labels_are_read_if_none_are_named():
    assert label_values(dataset({"train": {}}), ()) == {}


def test_factors_with_a_side_change_sign_in_the_mirror_image():
    """A mirror image is, but for details, the face whose factors with a side have the other sign.

    No other choice of factors comes as close.
    """
    pictures, factors = faces(np.arange(8), 64, 64)

    def gap(sided):
        opposite = {name: -of if name in sided else of for name, of in factors.items()}
        return np.abs(render(opposite, 64, 64)[:, :, ::-1].astype(int) - pictures).mean()

    least = gap(SIDED)
    assert least < 3
    signed = [name for name, of in factors.items() if of.min() < 0 < of.max()]
    assert set(SIDED) < set(signed)
    for name in signed:
        assert gap(set(SIDED) ^ {name}) > least
    labels = {"yaw": factors["yaw"][:4], "smile": factors["smile"][:4]}
    names = tuple(labels)
    values = label_values(dataset({"train": labels}, None, {"source": "synthetic"}), names)
    np.testing.assert_array_equal(values["mirrored"], values["train"] * [-1, 1])
    # Of other data it is not known what a yaw is.
    other = label_values(dataset({"train": labels}, None, {"source": "array"}), names)
    np.testing.assert_array_equal(other["mirrored"], other["train"])


def test_labels_of_real_faces(real_faces):
    """Reads only the table: smiles are on about half of CelebA's faces, glasses on one in 15."""
    table = read_table(real_faces / "celeba" / "list_attr_celeba.txt")
    rows = (np.array(list(table.rows.values())) > 0).astype(np.uint8)
    images = np.zeros((len(rows), 1, 1, 3), np.uint8)
    split = Split(images, {"attributes": rows}, np.array(list(table.rows), np.str_))
    data = Dataset({"train": split}, {"attribute_names": table.columns}, {})
    assert list(label_columns(data)) == ATTRIBUTES
    smiling, glasses = label_values(data, ("Smiling", "Eyeglasses"))["train"].T
    assert 0.4 < smiling.mean() < 0.55 and 0.04 < glasses.mean() < 0.1
    text = (real_faces / "celeba" / "list_attr_celeba.txt").read_text().split("\n")
    place = text[1].split().index("Smiling")
    expected = [line.split()[1 + place] == "1" for line in text[2:] if line]
    np.testing.assert_array_equal(smiling, expected)
