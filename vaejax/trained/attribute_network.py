"""Loads a trained network of attributes, with which pictures are measured."""

import functools
from pathlib import Path

from vaejax.config.saved import load_json
from vaejax.errors import UserError
from vaejax.features.attributes import TrainedAttributeNetwork
from vaejax.files.paths import local_path
from vaejax.models import EXACT
from vaejax.models.attributes import build_attribute_network, features_of, logits_of
from vaejax.records.digests import digest, json_digest
from vaejax.runtime.mesh import check_devices
from vaejax.runtime.quiet import quiet_libraries
from vaejax.tasks.attributes import NET, attribute_task
from vaejax.tasks.attributes.labels import attribute_names
from vaejax.trained.loading import restored


def load_attribute_network(
    workdir: str | Path, checkpoint: str | int = "best"
) -> TrainedAttributeNetwork:
    """Loads the network of attributes that was trained in `workdir`, averaged, in float32.

    Args:
      workdir: work directory of a run with `config.model.name=attributes`.
      checkpoint: as for `vaejax.load`.

    Raises:
      UserError: there is no run, it trained a VAE, there is no checkpoint or not this one, or no
        device can be used.
      DamagedCheckpoint: the checkpoint cannot be read; a `UserError`.
    """
    workdir = local_path("workdir", workdir)
    config = load_json(workdir / "config.json")
    if config.is_vae:
        raise UserError(
            f"{workdir} holds a VAE and no network of attributes; train one with the config file "
            "configs/celeba_attributes.py, and name its work directory"
        )
    check_devices()
    with quiet_libraries():
        found = restored(workdir, attribute_task(config), checkpoint)
    params, network = found.params[NET], build_attribute_network(config, EXACT)
    own = f"{digest(params):08x}"
    height, width, channels = config.data.shape
    protocol = {
        "weights": f"step {found.step}, averaged",
        "digest": own,
        "data": f"{json_digest(found.data_fingerprint):08x}",
        "input": f"resized (linear, antialiased) to {height}x{width}x{channels}, 0..255 to -1..1",
        "crop": config.data.crop,
    }
    return TrainedAttributeNetwork(
        name=f"attribute network (digest {own})",
        protocol=protocol,
        attributes=tuple(attribute_names(found.data_fingerprint, network.attributes)),
        shape=config.data.shape,
        params=params,
        features=functools.partial(features_of, network),
        logits=functools.partial(logits_of, network),
    )
