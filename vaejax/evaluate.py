"""Measures a trained model on held-out faces: `python -m vaejax.evaluate --workdir=DIR`."""

from absl import flags

from vaejax import cli
from vaejax.files.paths import local_path

WORKDIR = cli.define_workdir()
SPLIT = flags.DEFINE_enum("split", "valid", ["train", "valid", "test"], "Which pictures.")
PICTURES = flags.DEFINE_integer(
    "pictures", 0, "Number of pictures of the split, chosen at random; 0: all.", lower_bound=0
)
IMPORTANCE_SAMPLES = flags.DEFINE_integer(
    "importance_samples", None, "K of the importance-weighted bound; default from the config.",
    lower_bound=0,
)  # fmt: skip
PRIOR = flags.DEFINE_string(
    "prior", None, "model, or a fitted one: gaussian, … (default: that of the finish, if any)."
)
TEMPERATURE = cli.define_temperature()
SAMPLES = flags.DEFINE_integer(
    "samples", None, "Number of samples that are compared with real faces; 0: none (default: "
    "2500; 0 for pictures of more than 256 pixels a side).", lower_bound=0,
)  # fmt: skip
METRICS = flags.DEFINE_list(
    "metrics", None, "Names of metrics (default: all for which this machine has what they need)."
)
FEATURES = flags.DEFINE_enum(
    "features",
    "resnet",
    ["resnet", "vgg", "inception", "attributes"],
    "Network whose features are compared.",
)
INCEPTION = flags.DEFINE_string(
    "inception", None, "File of FID's Inception, such as pt_inception-2015-12-05-6726825d.pth."
)
FID_PROTOCOL = flags.DEFINE_enum(
    "fid_protocol", "clean", ["tf", "pytorch", "clean"], "How FID resizes and scales pictures."
)
ATTRIBUTES = flags.DEFINE_string(
    "attributes", None, "The work directory of a network of attributes, for the metric and the "
    "feature space of this name.",
)  # fmt: skip
VGG = flags.DEFINE_string("vgg", None, "File of torchvision's VGG16, for LPIPS and --features=vgg.")
REPORT = flags.DEFINE_string("report", None, "An HTML file to write as well.")
DATA_PATH = cli.define_data_path()
CACHE_DIR = cli.define_cache_dir()
CHECKPOINT = cli.define_checkpoint()
DECODER = cli.define_decoder()


def main() -> None:
    """Evaluates the model, prints the figures, and writes JSON to `WORKDIR/evaluations/`."""
    workdir = cli.existing_run(cli.given(WORKDIR))
    report = local_path("--report", REPORT.value) if REPORT.value else None
    network = ATTRIBUTES.value and cli.existing_run(ATTRIBUTES.value, "--attributes=")
    from vaejax.evaluation.choosing import Choice
    from vaejax.trained.attribute_network import load_attribute_network
    from vaejax.trained.loading import load
    from vaejax.trained.measuring import measure

    measure(
        load(workdir, CHECKPOINT.value, decoder=DECODER.value),
        split=SPLIT.value,
        pictures=PICTURES.value,
        importance_samples=IMPORTANCE_SAMPLES.value,
        prior=PRIOR.value,
        temperature=cli.given_temperature(TEMPERATURE),
        samples=SAMPLES.value,
        choice=Choice(
            metrics=None if METRICS.value is None else tuple(METRICS.value),
            features=FEATURES.value,
            inception=INCEPTION.value,
            fid_protocol=FID_PROTOCOL.value,
            vgg=VGG.value,
            attributes=load_attribute_network(network) if network else None,
        ),
        report=report,
        data_path=DATA_PATH.value,
        cache_dir=CACHE_DIR.value,
    )


if __name__ == "__main__":
    cli.run(main, required=["workdir"])
