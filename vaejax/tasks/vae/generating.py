"""Generates the sets of pictures that an evaluation compares, over all devices."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int64, PyTree, UInt8

from vaejax.config import Config
from vaejax.evaluation.picture_sets import PictureSet
from vaejax.metrics.neighbours import nearest
from vaejax.models import EXACT
from vaejax.models.finished import picture_model
from vaejax.models.noise import great_circle, picture_keys
from vaejax.runtime.compiling import jit, precise
from vaejax.runtime.mesh import replicated, round_up, split_batch
from vaejax.tasks.vae import functions

# The codes of a set of midpoints may take this many bytes of the host's memory.
_CODE_BYTES = 2**28

Pictures = UInt8[np.ndarray, "picture height width channel"]
Rows = Int64[np.ndarray, "row"]
Index = Int64[np.ndarray, "batch"]


class Generator:
    """Samples, reconstructs and interpolates with given parameters, in batches on all devices.

    The noise of a picture is a function of the seed and its number, so the pictures do not depend
    on the batches or the devices. Everything is computed in float32.

    Attributes:
      batch_size: pictures in a batch, a multiple of the number of devices.
    """

    def __init__(self, config: Config, params: dict, mesh: Mesh, *, finished: bool = False):
        """Copies the parameters to every device; compiles each function at its first batch.

        Args:
          config: config of the run.
          params: parameters of the model.
          mesh: the devices.
          finished: whether the parameters are those of a `FinishedVAE`.
        """
        self.batch_size = round_up(config.eval.batch_size, mesh)
        everywhere, self._split = replicated(mesh), split_batch(mesh)
        self._params = jax.device_put(params, everywhere)
        model, likelihood = picture_model(config, finished=finished, dtype=EXACT)
        posterior = partial(functions.posterior, model)
        decode = partial(functions.decode, model, likelihood)

        def sample(params: dict, index: Array, key: Array, temperature: Array) -> Array:
            keys = picture_keys(key, index)
            return functions.sample(model, likelihood, params, keys, temperature)

        def reconstruct(params: dict, images: Array) -> Array:
            return decode(params, posterior(params, images)[0])

        def decode_sampled(params: dict, images: Array, index: Array, key: Array) -> Array:
            return decode(params, posterior(params, images, picture_keys(key, index))[0])

        def interpolate(params: dict, first: Array, second: Array) -> Array:
            codes = [posterior(params, images)[0] for images in (first, second)]
            noise = [model.apply({"params": params}, z, method="to_noise") for z in codes]
            half = jnp.full(len(first), 0.5)
            between = jax.tree.map(lambda a, b: great_circle(a, b, half), *noise)
            return decode(params, model.apply({"params": params}, between, method="from_noise"))

        def compiled(function: Callable, out: Any = self._split) -> Callable:
            return jit(precise(function), mesh=mesh, out_shardings=out)

        self._encode = compiled(lambda params, images: posterior(params, images)[0], everywhere)
        self._sample, self._reconstruct = compiled(sample), compiled(reconstruct)
        self._decode, self._decode_sampled = compiled(decode), compiled(decode_sampled)
        self._interpolate = compiled(interpolate)

    def with_params(self, params: dict) -> "Generator":
        """Returns a generator with other parameters and the same compiled functions.

        Args:
          params: parameters of the model, whole on every device.
        """
        other = copy.copy(self)
        other._params = params
        return other

    def samples(
        self,
        count: int,
        *,
        seed: int = 0,
        temperature: float | Float[np.ndarray, ""] | Float[np.ndarray, "group"] = 1.0,
    ) -> PictureSet:
        """Returns samples of the model's own prior, the same ones as `TrainedModel.sample`."""
        key, spread = jax.random.key(seed), jnp.asarray(temperature, jnp.float32)

        def of_batch(index: Array) -> Array:
            return self._sample(self._params, index, key, spread)

        return self._set(count, of_batch, lambda index: (index,))

    def reconstructions(self, pictures: Pictures, rows: Rows) -> PictureSet:
        """Returns the decoded posterior means of some rows of `pictures`."""
        return self._set(
            len(rows),
            partial(self._reconstruct, self._params),
            lambda index: (np.asarray(pictures[rows[index]]),),
        )

    def decoded_codes(self, pictures: Pictures, rows: Rows, *, seed: int = 0) -> PictureSet:
        """Returns one decoded sample of q(z|x) for each of some rows of `pictures`."""
        key = jax.random.key(seed)

        def of_batch(images: Array, index: Array) -> Array:
            return self._decode_sampled(self._params, images, index, key)

        return self._set(
            len(rows), of_batch, lambda index: (np.asarray(pictures[rows[index]]), index)
        )

    def interpolations(self, pictures: Pictures, rows: Rows) -> PictureSet:
        """Returns pictures halfway between each row and the next, on an arc in the prior's noise.

        A line between codes may leave the region in which the prior has mass.
        """
        following = np.roll(rows, -1)

        def load(index: Index) -> tuple[Pictures, Pictures]:
            return np.asarray(pictures[rows[index]]), np.asarray(pictures[following[index]])

        return self._set(len(rows), partial(self._interpolate, self._params), load)

    def neighbour_midpoints(self, pictures: Pictures, rows: Rows) -> PictureSet:
        """Returns decoded midpoints between the code of each row and the nearest other code.

        The codes are posterior means. The Fréchet distance of these pictures predicts how well a
        prior that is fitted to the codes will sample (iFID, arXiv 2603.05630). Only as many rows
        are used as have codes of 256 MB altogether.
        """
        picture = jax.ShapeDtypeStruct((1, *pictures.shape[1:]), np.uint8)
        code = jax.eval_shape(self._encode, self._params, picture)
        size = sum(4 * leaf.size for leaf in jax.tree.leaves(code))
        rows = rows[: max(2, _CODE_BYTES // size)]

        def batches() -> Iterator[Array]:
            codes = self.codes(pictures, rows)
            flat = np.concatenate(
                [c.reshape(len(rows), -1) for c in jax.tree.leaves(codes)], axis=1
            )
            other = nearest(flat, flat, 1, exclude_self=True).indices[:, 0]

            def load(index: Index) -> tuple[PyTree]:
                return (jax.tree.map(lambda c: (c[index] + c[other[index]]) / 2, codes),)

            return self._stream(len(rows), partial(self._decode, self._params), load)

        return PictureSet(len(rows), batches)

    def decoded(self, codes: PyTree) -> PictureSet:
        """Returns the pictures of given codes, such as those of a fitted prior."""
        count = len(jax.tree.leaves(codes)[0])

        def load(index: Index) -> tuple[PyTree]:
            return (jax.tree.map(lambda leaf: leaf[index], codes),)

        return self._set(count, partial(self._decode, self._params), load)

    def codes(self, pictures: Pictures, rows: Rows) -> PyTree[np.ndarray]:
        """Returns the posterior means of some rows of `pictures`, on the host."""
        batches = list(
            self._stream(
                len(rows),
                lambda images: jax.device_get(self._encode(self._params, images)),
                lambda index: (np.asarray(pictures[rows[index]]),),
            )
        )
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(rows)], *batches)

    def _set(self, count: int, function: Callable, load: Callable) -> PictureSet:
        return PictureSet(count, partial(self._stream, count, function, load))

    def _stream(
        self, count: int, function: Callable[..., Any], load: Callable[[Index], tuple]
    ) -> Iterator[Any]:
        """Yields `function(*load(index))` of batches of indices; the last repeats the last index.

        Args:
          count: number of indices.
          function: takes arrays whose first axis is split over all devices.
          load: returns this batch's arrays on the host; every process loads all of them.
        """
        for start in range(0, count, self.batch_size):
            index = np.minimum(np.arange(start, start + self.batch_size), count - 1)
            yield function(*jax.tree.map(self._placed, load(index)))

    def _placed(self, array: np.ndarray) -> Array:
        if array.dtype == np.int64:
            array = array.astype(np.int32)
        return jax.make_array_from_callback(array.shape, self._split, array.__getitem__)
