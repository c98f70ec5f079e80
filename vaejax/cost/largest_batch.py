"""Finds the largest batch that fits a device's memory, and settings with which a step fits."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from vaejax.config import Config, LadderConfig
from vaejax.config.settings import changed
from vaejax.cost.compiled_step import Estimate
from vaejax.cost.steps import BATCH_SIZE, DTYPE, FLOW, MODEL, batch_size, setting
from vaejax.errors import DoesNotFit, UserError
from vaejax.records.progress import say
from vaejax.runtime.chips import Chip
from vaejax.training.feeding import RESIDENT_SHARE

# Batches are padded to multiples of eight on a TPU; a finer search would gain nothing.
GRAIN = 8


def largest_batch(need: Callable[[int], int], room: int, start: int, grain: int = GRAIN) -> int:
    """Searches for the largest multiple of `grain` that fits; returns 0 if none does.

    It stops within a sixteenth or one `grain` of the optimum, or where 15/16 of `room` is used:
    every trial costs a compilation. The memory of a step grows nearly linearly with its batch, so
    two trials predict where the third should be.

    Args:
      need: returns the bytes that a batch needs; more than `room` if it does not fit.
      room: available bytes.
      start: the batch to try first.
      grain: batches are multiples of this.
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
    config: Config,
    chip: Chip,
    devices: int,
    trial: Callable[[Config], Estimate],
    stage: str = MODEL,
) -> Estimate | None:
    """Searches for the step with the largest batch that fits; None if not even the smallest does.

    Args:
      config: config of the run; the search begins at its batch size.
      chip: the chip whose memory the step must fit, beside training pictures that lie there.
      devices: number of devices that share the batch.
      trial: compiles a step and returns its cost, or raises DoesNotFit.
      stage: `model`, `flow` or `finish`.
    """
    found: dict[int, Estimate] = {}

    def need(batch: int) -> int:
        try:
            found[batch] = trial(changed(config, {BATCH_SIZE[stage]: batch * devices}))
        except DoesNotFit as error:
            say(str(error))
            return max(error.needed, chip.memory + 1)
        say(f"{batch} pictures a chip need {found[batch].memory / 2**30:.2f} GiB")
        return found[batch].memory

    room = chip.memory
    # What the flow prior is trained on is counted with its step.
    if config.data.on_device != "never" and stage != FLOW:
        room = int(room * (1 - RESIDENT_SHARE))
        say(
            f"{RESIDENT_SHARE:.0%} of the memory is left to the training pictures, which may lie "
            "there; with --config.data.on_device=never it is not"
        )
    start = max(1, batch_size(config, stage) // devices)
    grain = math.lcm(GRAIN, config.train.accumulate if stage == MODEL else 1)
    return found.get(largest_batch(need, room, start, grain))


def _next_look(needs: dict[int, int], room: int, low: int, high: int | None, grain: int) -> int:
    """Returns the batch at which the line through the two trials nearest to `room` reaches it."""
    middle = 2 * low if high is None else (low + high) // 2
    nearest = sorted(sorted(needs, key=lambda batch: abs(needs[batch] - room))[:2])
    growth = [needs[batch] for batch in nearest]
    if growth[0] < growth[-1]:
        slope = (growth[1] - growth[0]) / (nearest[1] - nearest[0])
        guess = int(nearest[0] + (room * 31 / 32 - growth[0]) / slope)
        # Within the range where a line can be trusted, and off the batches whose answer is known.
        middle = min(max(guess, low + grain), 16 * low if high is None else high - grain)
    middle -= middle % grain
    return middle if high is None or middle not in needs else (low + high) // 2 // grain * grain


def remedies(
    config: Config,
    devices: int,
    error: DoesNotFit,
    trial: Callable[[Config], object],
    stage: str = MODEL,
) -> Iterator[dict[str, Any]]:
    """Yields changes of settings with which a step that does not fit would fit.

    Each is compiled to make sure.

    Args:
      config: the config that does not fit.
      devices: number of devices that share the batch.
      error: holds the bytes that the step needs and those that a device has.
      trial: compiles a step, or raises DoesNotFit.
      stage: `model`, `flow` or `finish`.

    Yields:
      New values by setting, such as `{"train.accumulate": 2}`.
    """
    for choices in _choices(config, devices, stage):
        for changes, least in choices:
            if least * error.needed > error.had:
                continue
            try:
                trial(changed(config, changes))
            except DoesNotFit:
                continue
            except UserError:
                break  # these settings cannot be combined
            yield changes
            break


def _choices(config: Config, devices: int, stage: str) -> Iterator[list[tuple[dict, float]]]:
    """Yields the changes of each kind, mildest first.

    Beside each change stands the least share of the present need that it leaves.
    """
    train, batch = config.train, batch_size(config, stage)
    if isinstance(config.model, LadderConfig) and not config.model.remat:
        yield [({"model.remat": True}, 1 / 4)]
    if stage == FLOW and len(config.latent_shape) > 1 and not config.flow.remat:
        yield [({"flow.remat": True}, 1 / 4)]
    halves = [2**i for i in range(1, 11) if batch % (devices * 2**i) == 0]
    if stage == MODEL:  # the other stages do not accumulate gradients
        yield [({"train.accumulate": n * train.accumulate}, 1 / n) for n in halves]
    if setting(config, DTYPE[stage]) != "bfloat16":
        yield [({DTYPE[stage]: "bfloat16"}, 1 / 2)]
    yield [
        ({"train.fsdp": n}, 1 / n)
        for n in range(train.fsdp + 1, devices + 1)
        if n > 1 and devices % n == 0
    ]
    yield [({BATCH_SIZE[stage]: batch // n}, 1 / n) for n in halves]
