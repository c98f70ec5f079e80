"""Defines a small TFDS data set like `celeb_a`; importing this module registers it with TFDS."""

import numpy as np
import tensorflow_datasets as tfds
from picture_trees import ATTRIBUTES, celeba_records

RECORDS = celeba_records(24)


class MiniFaces(tfds.core.GeneratorBasedBuilder):
    """Reads JPEG files from manual_dir; their splits and labels come from `RECORDS`."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "JPEG files in manual_dir."

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(218, 178, 3), encoding_format="jpeg"),
                    # In reverse order: the columns of the label must be sorted by name.
                    "attributes": {name: np.bool_ for name in reversed(ATTRIBUTES)},
                    "identity": {"Identity_No": np.int64},
                    "note": tfds.features.Text(),
                    # Both are left out: ragged lists and further images cannot be labels.
                    "spots": tfds.features.Sequence(np.int64),
                    "mask": tfds.features.Image(shape=(None, None, 1)),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        root = dl_manager.manual_dir
        # vaejax does not use the last split.
        numbers = {"train": 0, "validation": 1, "test": 2, "extra": 2}
        return {split: self._generate_examples(root, part) for split, part in numbers.items()}

    def _generate_examples(self, root, number):
        for name, (_, part, bits) in RECORDS.items():
            if part == number:
                yield (
                    name,
                    {
                        "image": root / name,
                        "attributes": dict(zip(ATTRIBUTES, bits.astype(bool))),
                        "identity": {"Identity_No": int(name[:6])},
                        "note": "a face",
                        # All of one length but in the training split.
                        "spots": list(range(1 if number else int(name[:6]) % 3)),
                        "mask": np.zeros((int(name[:6]) % 3 + 1, 4, 1), np.uint8),
                    },
                )
