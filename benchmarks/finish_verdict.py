"""How a finish ended: it made samples better, changed nothing, was stopped, or made them worse."""

from typing import NamedTuple

from vaejax.errors import UserError
from vaejax.tasks.finish.metrics import RANKING

# What a stage says if the first decoder is the best.
UNCHANGED = "samples no better"
# The distance of thumbnails shows wrong colours and lost variety, and has no part in the choice of
# the decoder. A finish that raises it by over a quarter made samples worse: by the jackknife, its
# standard deviation was 6% with 1,000 faces at 32 px.
CHECKED, MOST_RAISED = "thumbnail_frechet_samples", 1.25
# Figures of the table, each before and after the finish.
FIGURES = (RANKING.metric, RANKING.factor, CHECKED, "missing_detail_samples")


class Finish(NamedTuple):
    """How a finish ended.

    Attributes:
      end: `better`, `unchanged`, `stopped` or `worse`.
      said: the last line of a run that was stopped, else "".
      before, after: the figures of the decoder that it began with, and of the one that was kept.
    """

    end: str
    said: str
    before: dict[str, float]
    after: dict[str, float]


def verdict(validations: list[dict], lines: list[str], said: str) -> Finish:
    """Returns how a finish ended.

    Args:
      validations: the metrics of each validation; the first is of the decoder that it began with.
      lines: what the run printed.
      said: the last line of a run that failed, else "".

    Raises:
      UserError: the validations do not measure what ranks decoders.
    """
    if any(RANKING.metric not in one for one in validations):
        raise UserError(
            "no validation measures samples by ResNet-50-thin; run "
            "`pip install -e '.[perceptual]'`, and use data with validation pictures"
        )
    first, best = validations[0], min(validations, key=RANKING.rank)
    before, after = ({name: one[name] for name in FIGURES} for one in (first, best))
    if said:
        return Finish("stopped", said, before, before)
    if best is not first:
        raised = after[CHECKED] > MOST_RAISED * before[CHECKED]
        return Finish("worse" if raised else "better", "", before, after)
    unchanged = any(UNCHANGED in line for line in lines)
    return Finish("unchanged" if unchanged else "worse", "", before, after)
