"""Assigns pictures to training, validation and test, for sources without official splits.

The split of a picture depends on its content (SHA-256 of the file's bytes or of the array's row)
and on the split seed. Copies of one picture therefore share a split, names and order do not
matter, and, where holdout is a share, adding pictures moves none of the others.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from vaejax.errors import UserError

SPLITS = ("train", "valid", "test")


def place(digest: bytes, seed: int) -> float:
    """Returns a number in [0, 1), uniform over contents, that depends on digest and seed only."""
    mixed = hashlib.sha256(f"{seed}:".encode() + digest).digest()
    return int.from_bytes(mixed[:6], "big") / 2**48  # 48 bits are exact in a float


def assign(digests: Sequence[bytes], holdout: tuple[float, float], seed: int) -> list[str]:
    """Assigns a split to each picture.

    Args:
      digests: digest of each picture's content.
      holdout: sizes of the validation and the test split, each a share of the pictures (below
        1) or a number of pictures (1 or more).
      seed: `config.data.split_seed`.

    Returns:
      The split of each picture, a name in `SPLITS`. A split given by number may come out smaller
      where copies of one picture would exceed it.

    Raises:
      UserError: holdout by number leaves no training pictures.
    """
    rows_of = defaultdict(list)
    for row, digest in enumerate(digests):
        rows_of[digest].append(row)
    places = {digest: place(digest, seed) for digest in rows_of}
    names = ["train"] * len(digests)

    shares = [amount if amount < 1 else 0.0 for amount in holdout]
    for digest, at in places.items():
        if at < sum(shares):
            for row in rows_of[digest]:
                names[row] = "valid" if at < shares[0] else "test"

    # Counts are filled from the upper end of [0, 1): a share beside a count keeps its pictures.
    counts = {name: int(amount) for name, amount in zip(SPLITS[1:], holdout) if amount >= 1}
    left = names.count("train")
    if sum(counts.values()) >= left and counts:
        raise UserError(
            f"config.data.holdout={tuple(holdout)} leaves nothing to train on: there are"
            f" {len(digests)} usable pictures; ask for fewer"
        )
    for digest in sorted(places, key=places.__getitem__, reverse=True):
        rows = rows_of[digest]
        if names[rows[0]] != "train":
            continue
        # A group of copies larger than the number still missing is skipped, not divided.
        name = next((name for name, missing in counts.items() if missing >= len(rows)), None)
        if name:
            counts[name] -= len(rows)
            for row in rows:
                names[row] = name
    return names
