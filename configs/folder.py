"""Your own photographs, a folder or a zip: --config.data.path=DIR.

Every picture that Pillow can read is used, whatever its file name; HEIC needs `pip install
'vaejax[heic]'`. Folders called train, val and test are the splits if they hold all pictures.
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "folder"
    # Enough for two thousand photographs, which a longer run would overfit. With ten times as many
    # photographs, use ten times the steps.
    config.train.steps = 1_200
    config.train.eval_every = 200
    config.train.save_every = 200
    return config
