"""Your own photographs, a folder or a zip: --config.data.path=DIR.

Any picture that Pillow reads is used, whatever it is called; HEIC with `pip install
'vaejax[heic]'`. Folders train, val and test are used as the splits where they hold all pictures.
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "folder"
    # Enough for two thousand photographs; a longer run learns them by heart. With ten times as
    # many, ask for ten times the steps.
    config.train.steps = 1_200
    config.train.eval_every = 200
    config.train.save_every = 200
    return config
