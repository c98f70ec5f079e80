"""Whether there are pictures enough for what is to follow training, known before it begins."""

from vaejax.config import Config
from vaejax.data import Dataset
from vaejax.errors import UserError
from vaejax.priors.gaussian import MIN_CODES


def check_enough(config: Config, dataset: Dataset) -> None:
    """Raises UserError if the priors that are to be fitted need more training pictures."""
    count = len(dataset.splits["train"].images)
    if config.prior.fitted and count < MIN_CODES:
        raise UserError(
            f"config.prior.fitted={config.prior.fitted} needs the codes of at least {MIN_CODES} "
            f"training pictures, and there is {count}; add pictures, or set --config.prior.fitted="
            " to nothing"
        )
