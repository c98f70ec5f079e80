"""A data set of TFDS with the structure of its CelebA. Importing it registers it."""

import numpy as np
import tensorflow_datasets as tfds
from picture_trees import ATTRIBUTES, celeba_records

RECORDS = celeba_records(24)


class MiniFaces(tfds.core.GeneratorBasedBuilder):
    """celeb_a's structure, from files in manual_dir."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "JPEG files in manual_dir."

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(218, 178, 3), encoding_format="jpeg"),
                    # Declared backwards: the order must come from the names.
                    "attributes": {name: np.bool_ for name in reversed(ATTRIBUTES)},
                    "identity": {"Identity_No": np.int64},
                    "note": tfds.features.Text(),
                    # Neither a list of any length nor a second picture makes a label.
                    "spots": tfds.features.Sequence(np.int64),
                    "mask": tfds.features.Image(shape=(None, None, 1)),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        root = dl_manager.manual_dir
        return {
            split: self._generate_examples(root, number)
            for number, split in enumerate(("train", "validation", "test"))
        }

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
                        "spots": list(range(int(name[:6]) % 3)),
                        "mask": np.zeros((int(name[:6]) % 3 + 1, 4, 1), np.uint8),
                    },
                )
