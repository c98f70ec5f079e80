"""Prepares the data before training: `python -m vaejax.prepare --config=configs/celeba.py`.

Decodes the pictures into the cache, and has TFDS prepare a data set that is not prepared yet.
`--list` shows the cached pictures and compiled programs, and `--prune=30d` removes those that were
not used for thirty days. Both work without `--config`; with it, the pictures are those in its
`data.cache_dir`.
"""

from absl import flags

from vaejax import cli
from vaejax.config.settings import resolve
from vaejax.files.atomic import check_writable
from vaejax.files.paths import local_path

CONFIG = cli.define_config()
PREVIEW = flags.DEFINE_string("preview", None, "Also write a sheet of training pictures, a PNG.")
LIST = flags.DEFINE_bool("list", False, "Show what is cached, and prepare nothing.")
PRUNE = flags.DEFINE_string(
    "prune",
    None,
    "Remove what is cached and was unused for so many days, such as 30d, or all; prepare nothing.",
)


def main() -> None:
    """Prepares the data and prints the size of each split; with `--list` or `--prune` neither."""
    if LIST.value or PRUNE.value is not None:
        show_caches()
        return
    cli.require("config")
    config = resolve(CONFIG.value)
    preview = PREVIEW.value and local_path("--preview", PREVIEW.value)
    import numpy as np

    from vaejax import data
    from vaejax.data.feed.subsets import random_rows
    from vaejax.records import pictures
    from vaejax.records.progress import say

    if preview:
        pictures.check_format(preview, "--preview")
        check_writable(preview, "--preview")
    dataset = data.prepare(config.data)
    for name, split in dataset.splits.items():
        say(f"{name}: {len(split.images)} pictures {split.images.shape[1:]}")
    if preview:
        columns = config.eval.grid
        images = dataset.splits["train"].images
        images = np.asarray(images[random_rows(len(images), columns**2)])
        pictures.save(preview, pictures.grid(images, columns))
        say(f"preview: {preview}")


def show_caches() -> None:
    """Removes the cache entries that `--prune` selects, and lists the rest if `--list` is given."""
    from vaejax.config import DataConfig
    from vaejax.data.cache import inventory
    from vaejax.data.cache.store import cache_root
    from vaejax.records.progress import say
    from vaejax.records.tables import markdown
    from vaejax.runtime.program_cache import programs_folder

    data = resolve(CONFIG.value).data if CONFIG.value is not None else DataConfig()
    places = cache_root(data), programs_folder()
    if PRUNE.value is not None:
        freed, count = 0, 0
        for stored, reason in inventory.prune(*places, inventory.days_of(PRUNE.value)):
            if reason:
                say(f"{stored.path} stays ({reason})")
            else:
                freed, count = freed + stored.size, count + 1
        say(f"removed {count:,} from the caches, which frees {freed / 1e6:,.1f} MB")
    if LIST.value:
        rows = inventory.table(*places)
        print(markdown(rows) if rows else f"nothing is cached in {places[0]}")


if __name__ == "__main__":
    cli.run(main)
