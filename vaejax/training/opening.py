"""Opens what a run needs before its first step: data, devices, programs, checkpoints."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from vaejax import data
from vaejax.config import Config
from vaejax.config.settings import common
from vaejax.data.feed.pipeline import Arrays
from vaejax.data.lazy_tensorflow import import_tensorflow_meanwhile
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.goodput import Clock
from vaejax.records.versions import REMEDY, versions
from vaejax.records.workdir import check_nothing_lost, claim
from vaejax.runtime.mesh import device_memory, make_mesh
from vaejax.runtime.processes import Group
from vaejax.runtime.shards import fitting_fsdp, state_shardings
from vaejax.training import step
from vaejax.training.feeding import Feed
from vaejax.training.preflight import check_room, warn_without_validation
from vaejax.training.reports import Reports
from vaejax.training.resuming import open_checkpoints
from vaejax.training.state import Carry, shapes
from vaejax.training.step import TrainStep
from vaejax.training.task import Evaluator, Gallery, PictureMetrics, Task


class Parts(NamedTuple):
    """What one process of a run works with.

    Attributes:
      config: the run's config.
      workdir: the run's directory.
      group: the processes that train together.
      task: what is trained.
      clock: records what the run's time is spent on, in `goodput.jsonl`.
      dataset: the pictures.
      arrays: the task's examples, by split.
      mesh: the devices.
      shapes: shapes and types of the state and the window.
      shardings: the sharding of each array of `shapes`.
      feed: brings the training batches to the devices.
      train_step: the jitted training step.
      evaluator: evaluates the networks on the validation split.
      picture_metrics: measures generated pictures at validations; None if nothing does.
      gallery: draws what the networks have learned.
      reports: writes metrics, progress and warnings.
      checkpoints: the run's checkpoints.
    """

    config: Config
    workdir: Path
    group: Group
    task: Task
    clock: Clock
    dataset: data.Dataset
    arrays: Mapping[str, Arrays]
    mesh: Mesh
    shapes: Carry
    shardings: Carry
    feed: Feed
    train_step: TrainStep
    evaluator: Evaluator
    picture_metrics: PictureMetrics | None
    gallery: Gallery
    reports: Reports
    checkpoints: Checkpoints


@contextmanager
def opened(
    config: Config, workdir: Path, group: Group, task: Task, dataset: data.Dataset | None
) -> Iterator[Parts]:
    """Opens the parts of a run; on leaving, finishes pending saves and closes them.

    Opening may take minutes. A signal ends it at once, and leaves nothing half done.

    Args:
      config: the run's config.
      workdir: the run's directory; all processes must see it.
      group: the processes that train together.
      task: what is trained.
      dataset: the pictures, if they are open already; else those of `config.data` are opened.

    Raises:
      UserError: the work directory holds another run, or the data is missing or does not suit.
    """
    with (
        claim(workdir, config, group),
        ExitStack() as closing,
        # Innermost: a process that fails ends here. Closing would wait for what the others would
        # have to finish with it.
        group.watching(),
    ):
        parts = _open(config, workdir, group, task, dataset)
        closing.callback(parts.checkpoints.close)
        with group.together():
            if not parts.checkpoints.steps():
                check_nothing_lost(workdir, config.train.save_every)
        yield parts


def _open(
    config: Config, workdir: Path, group: Group, task: Task, dataset: data.Dataset | None
) -> Parts:
    clock = Clock()
    group.check_alike(versions(), remedy=REMEDY)
    group.check_alike(common(config))
    state = shapes(task)
    memory = group.least(device_memory())
    with group.together():
        fsdp = config.train.fsdp or fitting_fsdp(state, memory, jax.local_device_count())
        mesh = make_mesh(config.train.batch_size, fsdp, accumulate=config.train.accumulate)
        dataset = dataset or data.open_dataset(config.data)
        arrays = task.examples(dataset)
        warn_without_validation(dataset)
        picture_metrics = task.picture_metrics(dataset, mesh)
        if group.index == 0:
            check_room(workdir, state)
    group.check_alike(dataset.fingerprint)
    import_tensorflow_meanwhile()
    feed = Feed(config, arrays["train"], mesh, memory)
    return Parts(
        config=config,
        workdir=workdir,
        group=group,
        task=task,
        clock=clock,
        dataset=dataset,
        arrays=arrays,
        mesh=mesh,
        shapes=state,
        shardings=state_shardings(mesh, state),
        feed=feed,
        train_step=step.make_train_step(task, config.train, mesh, on_device=bool(feed.resident)),
        evaluator=task.evaluator(mesh),
        picture_metrics=picture_metrics,
        gallery=task.gallery(dataset, workdir / "pictures"),
        reports=Reports(task, config.train, workdir, clock, speaks=group.index == 0),
        checkpoints=open_checkpoints(workdir, task.best_by, config.train.keep, group),
    )
