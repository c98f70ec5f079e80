"""The settings of the flow prior, `config.flow`."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from vaejax.config.options import option
from vaejax.errors import UserError

# What a 0 means for each kind of latents.
_OF_VECTORS = {"batch_size": 1024, "learning_rate": 1e-3, "width": 512, "blocks": 2}
_OF_MAPS = {"batch_size": 64, "learning_rate": 1e-3, "width": 192, "blocks": 6}
# The settings of the transformer alone.
_OF_TRANSFORMER = ("patch", "head_size", "remat")


@dataclass(frozen=True)
class FlowConfig:
    """The flow prior (`prior.fitted`), which is trained on the codes of the trained model.

    Its network is a residual network for latent vectors, and a transformer for latent maps.
    """

    # Updates; 0: chosen from the number of codes.
    steps: int = option(0, low=0, may_change=True)
    # Codes of one update, if there are so many; 0: 1024 vectors, or 64 maps.
    batch_size: int = option(0, low=0, may_change=True)
    # The peak; 0: 0.001.
    learning_rate: float = option(0.0, low=0, high=1, may_change=True)
    # Features of the network; 0: 512 for vectors, 192 for maps.
    width: int = option(0, low=0, may_change=True)
    # Blocks of the network; 0: 2 for vectors, 6 for maps.
    blocks: int = option(0, low=0, may_change=True)
    # Only of maps: rows and columns of the patch of a map that is one token.
    patch: int = option(1, choices=(1, 2), may_change=True)
    # Only of maps: features of a head of attention.
    head_size: int = option(64, low=4, may_change=True)
    # Only of maps: recompute all but the dense layers of a block for its gradient, to save memory.
    remat: bool = option(False, may_change=True)
    # Names of labels of the data on which samples can be conditioned: attributes, folders, or any
    # with one number for each picture.
    labels: tuple[str, ...] = option((), may_change=True)
    # Only with labels: probability with which training hides all of them at once. In half of the
    # other codes each label is hidden with a random probability.
    label_dropout: float = option(0.1, low=0, high=0.9, may_change=True)
    # Decay of the average of the parameters.
    ema_decay: float = option(0.999, low=0, high=0.999999, may_change=True)
    # Of the activations in training; the finished prior computes in float32.
    dtype: str = option("float32", choices=("float32", "bfloat16"), may_change=True)

    def of(self, latent_shape: tuple[int, ...]) -> "FlowConfig":
        """Returns the settings with what 0 means for these latents; `steps` stays.

        Args:
          latent_shape: (dimensions,), or (rows, columns, channels).
        """
        usual = _OF_VECTORS if len(latent_shape) == 1 else _OF_MAPS
        zeros: dict[str, Any] = {key: usual[key] for key in usual if not getattr(self, key)}
        return dataclasses.replace(self, **zeros)

    def check(self, latent_shape: tuple[int, ...]) -> None:
        """Checks that the settings suit the latents.

        Args:
          latent_shape: (dimensions,), or (rows, columns, channels); () if no flow is of them.

        Raises:
          UserError: a setting has no effect, a label is named twice, the map does not divide into
            patches, or the width into heads.
        """
        default = FlowConfig()
        if latent_shape:
            self._check_labels(default)
        if len(latent_shape) != 3:
            of_none = [entry.name for entry in dataclasses.fields(self)] if not latent_shape else []
            for key in of_none or _OF_TRANSFORMER:
                if getattr(self, key) != getattr(default, key):
                    raise UserError(
                        f"config.flow.{key}={getattr(self, key)!r} is of latent "
                        f"{'vectors or maps' if of_none else 'maps'}, and this model has none; "
                        "leave it out"
                    )
            return
        rows, columns, _ = latent_shape
        if rows % self.patch or columns % self.patch:
            raise UserError(
                f"config.flow.patch={self.patch} does not divide the {rows} x {columns} latents; "
                "set it to 1"
            )
        width = self.of(latent_shape).width
        if self.head_size % 4 or width % self.head_size:
            raise UserError(
                f"config.flow.head_size={self.head_size} must be a multiple of 4 that divides "
                f"config.flow.width={width}"
            )

    def _check_labels(self, default: "FlowConfig") -> None:
        """Raises UserError if a label is named twice, or labels are hidden and none are named."""
        if len(set(self.labels)) < len(self.labels):
            raise UserError(f"config.flow.labels={self.labels} names a label twice; name it once")
        if not self.labels and self.label_dropout != default.label_dropout:
            raise UserError(
                f"config.flow.label_dropout={self.label_dropout} hides config.flow.labels, and "
                "there are none; name some, or leave it out"
            )
