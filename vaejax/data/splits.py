"""Training, validation and test pictures for sources that name no splits of their own.

A picture's place is decided by its content (SHA-256 of the file's bytes or of the array's row)
and the split seed. Copies of one picture therefore never cross the splits, names and order do
not matter, and, where holdout is a share, adding pictures moves none of the others.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from vaejax.errors import UserError

SPLITS = ("train", "valid", "test")


def place(digest: bytes, seed: int) -> float:
    """A number in [0, 1), uniform over contents, fixed by the content's digest and the seed."""
    mixed = hashlib.sha256(f"{seed}:".encode() + digest).digest()
    return int.from_bytes(mixed[:6], "big") / 2**48  # 48 bits are exact in a float


def assign(digests: Sequence[bytes], holdout: tuple[float, float], seed: int) -> list[str]:
    """Names the split of each picture.

    Args:
      digests: content digests, one a picture.
      holdout: valid and test, each a share (below 1) or a number of pictures (from 1 on).
      seed: `split_seed`.

    Raises:
      UserError: more pictures are asked for than there are.
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

    # Counts are filled from the other end, so that a share beside a count stays where it was.
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
        # A group of copies too large for what is missing is passed over, not torn apart.
        name = next((name for name, missing in counts.items() if missing >= len(rows)), None)
        if name:
            counts[name] -= len(rows)
            for row in rows:
                names[row] = name
    return names
