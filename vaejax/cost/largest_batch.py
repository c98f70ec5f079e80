"""What fits into a device's memory: the largest batch, and ways out where a step does not."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from vaejax.config import Config, LadderConfig
from vaejax.config.settings import changed
from vaejax.cost.compiled_step import Estimate
from vaejax.errors import DoesNotFit, UserError
from vaejax.records.progress import say
from vaejax.runtime.chips import Chip
from vaejax.training.feeding import RESIDENT_SHARE

# Batches are padded to multiples of eight on a TPU; finer answers would say nothing.
GRAIN = 8


def largest_batch(need: Callable[[int], int], room: int, start: int, grain: int = GRAIN) -> int:
    """The largest multiple of `grain` that fits, to within a sixteenth; 0 if none does.

    Every look costs a compilation. What a step needs grows nearly in proportion to its batch, so
    two looks tell where the third should be.

    Args:
      need: bytes for a batch; more than `room` if it does not fit.
      room: bytes that there are.
      start: where to look first.
      grain: what batches are multiples of.
    """
    needs: dict[int, int] = {}
    low, high = 0, None
    batch = max(grain, start - start % grain)
    while high is None or high - low > max(grain, low // 16):
        needs[batch] = need(batch)
        if needs[batch] > room:
            high = batch
        else:
            low = batch
            if needs[batch] > room * 15 // 16:
                break
        batch = _next_look(needs, room, low, high, grain)
    return low


def largest_step(
    config: Config, chip: Chip, devices: int, trial: Callable[[Config], Estimate]
) -> Estimate | None:
    """The step with the largest batch that fits; None if not even the smallest does.

    Args:
      config: config of the run; its batch is where the search begins.
      chip: whose memory it is to fit, beside training pictures that lie there.
      devices: that share the batch.
      trial: compiles a step, or raises DoesNotFit.
    """
    found: dict[int, Estimate] = {}

    def need(batch: int) -> int:
        try:
            found[batch] = trial(changed(config, {"train.batch_size": batch * devices}))
        except DoesNotFit as error:
            say(str(error))
            return max(error.needed, chip.memory + 1)
        say(f"{batch} pictures a chip need {found[batch].memory / 2**30:.2f} GiB")
        return found[batch].memory

    room = chip.memory
    if config.data.on_device != "never":
        room = int(room * (1 - RESIDENT_SHARE))
        say(
            f"{RESIDENT_SHARE:.0%} of the memory is left to the training pictures, which may lie "
            "there; with --config.data.on_device=never it is not"
        )
    start = max(1, config.train.batch_size // devices)
    grain = math.lcm(GRAIN, config.train.accumulate)
    return found.get(largest_batch(need, room, start, grain))


def _next_look(needs: dict[int, int], room: int, low: int, high: int | None, grain: int) -> int:
    """Where the line through the two needs nearest to the room reaches it, within the bounds."""
    middle = 2 * low if high is None else (low + high) // 2
    nearest = sorted(sorted(needs, key=lambda batch: abs(needs[batch] - room))[:2])
    growth = [needs[batch] for batch in nearest]
    if growth[0] < growth[-1]:
        slope = (growth[1] - growth[0]) / (nearest[1] - nearest[0])
        guess = int(nearest[0] + (room * 31 / 32 - growth[0]) / slope)
        # Never farther than a straight line can be trusted, nor where nothing would be learned.
        middle = min(max(guess, low + grain), 16 * low if high is None else high - grain)
    middle -= middle % grain
    return middle if high is None or middle not in needs else (low + high) // 2 // grain * grain


def remedies(
    config: Config, devices: int, error: DoesNotFit, trial: Callable[[Config], object]
) -> Iterator[dict[str, Any]]:
    """Changes of settings with which a step that does not fit would, each tried.

    Args:
      config: that does not fit.
      devices: that share the batch.
      error: what it needs.
      trial: compiles a step, or raises DoesNotFit.
    """
    for choices in _choices(config, devices):
        for changes, least in choices:
            if least * error.needed > error.had:
                continue
            try:
                trial(changed(config, changes))
            except DoesNotFit:
                continue
            except UserError:
                break  # such settings do not go together
            yield changes
            break


def _choices(config: Config, devices: int) -> Iterator[list[tuple[dict, float]]]:
    """Kinds of remedies, each from the mildest on, and what share of the need must stay."""
    train = config.train
    if isinstance(config.model, LadderConfig) and not config.model.remat:
        yield [({"model.remat": True}, 1 / 4)]
    halves = [2**i for i in range(1, 11) if train.batch_size % (devices * 2**i) == 0]
    yield [({"train.accumulate": n * train.accumulate}, 1 / n) for n in halves]
    if config.model.dtype != "bfloat16":
        yield [({"model.dtype": "bfloat16"}, 1 / 2)]
    yield [
        ({"train.fsdp": n}, 1 / n)
        for n in range(train.fsdp + 1, devices + 1)
        if n > 1 and devices % n == 0
    ]
    yield [({"train.batch_size": train.batch_size // n}, 1 / n) for n in halves]
