"""Whether a killed run ends as an undisturbed one does: `python -m benchmarks.kills --config=…`.

Trains once undisturbed. Then the same command trains elsewhere, is killed (SIGKILL to all its
processes) at a random moment of a random phase, started again, killed again, and so on until it
finishes all the same. What both runs left is then compared bit for bit (`benchmarks.same_run`), and
another run begins. All of these runs share one cache of pictures and one of compiled programs,
which kills interrupt as well. Finally, runs on small disks, which fill up at a random moment, must
end with one line that says so, and finish with the same result once there is room.

These settings make the config short: --config.train.steps=60 --config.train.log_every=5
--config.train.eval_every=20 --config.train.save_every=10
--config.data.synthetic_counts="(1000, 100, 100)"; the same flags override that. train.log_every
must divide train.eval_every. Small disks need Linux and the right to mount.
"""

import errno
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from benchmarks import report
from benchmarks.attempts import Broken, attempt, small_disk, why_no_mount
from benchmarks.phases import LATER, PHASES, Phase, forget
from benchmarks.runs import own_overrides
from benchmarks.same_run import Place, differences
from vaejax import cli
from vaejax.config import Config
from vaejax.config.settings import resolve
from vaejax.errors import NO_SPACE, TRY_AGAIN, UserError
from vaejax.records.progress import say
from vaejax.runtime.processes import ALONE
from vaejax.stages.plan import planned_stages

CONFIG = cli.define_config()
KILLS = flags.DEFINE_integer("kills", 200, "Number of kills.", lower_bound=0)
FULL_DISKS = flags.DEFINE_integer("full_disks", 10, "Number of small disks.", lower_bound=0)
PHASES_TO_KILL = flags.DEFINE_list(
    "phases",
    None,
    f"Names of the phases to kill in, of {', '.join([*PHASES, *LATER])}; default: all.",
)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the phases, moments and disk sizes.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")

SHORT = {
    "train.steps": 60,
    "train.log_every": 5,
    "train.eval_every": 20,
    "train.save_every": 10,
    "data.synthetic_counts": (1_000, 100, 100),
}
# Words of a full disk, for messages that do not name its path.
NO_ROOM = (NO_SPACE, os.strerror(errno.ENOSPC))
# What a run prints when it begins to train.
BEGAN = "training from step"
# Bytes, more than any run takes.
ROOM = 4 << 30
WORK_ALONE = "full disk"
DISKS = (WORK_ALONE, "full disk with the caches")
# Columns of the table, beside the phase.
KILLED, WENT_ON, DIFFERENCES = "kills", "attempts that went on", "differences"
# Attempts in a row that end before they can be killed, after which the benchmark gives up.
MOST_MISSED = 20
# The longest time from SIGTERM to SIGKILL, as a share of the undisturbed run's time.
STOPPING = 0.05


class Trial:
    """The runs of one call of this benchmark, and what they showed.

    Attributes:
      counts: by phase or kind of disk, the numbers of kills (or full disks), of attempts that went
        on afterwards, and of differences.
      ends: number of disturbed runs that finished.
      gave_up: whether it ended before all kills.
    """

    def __init__(self, phases: dict[str, Phase], root: Path):
        """Trains the undisturbed run.

        Args:
          phases: the phases to kill in, by name.
          root: a directory for all files of the runs; a run that differs stays there.

        Raises:
          UserError: the undisturbed run failed.
        """
        self._root, self._rng = root, random.Random(SEED.value)
        added = SHORT.keys() - own_overrides().keys()
        self._overrides = [f"{name}={SHORT[name]}" for name in sorted(added)]
        self._runs = self._attempts = self.ends = 0
        self.gave_up = False
        self._phases = phases
        self.counts: dict[str, Counter] = {name: Counter() for name in (*self._phases, *DISKS)}
        self._whole = Place(root / "whole", root / "whole-cache", root / "whole-programs")
        try:
            started = time.monotonic()
            self._attempt(self._whole)
            self._seconds = time.monotonic() - started
        except Broken as broken:
            said = f"what it said: {self._words()}"
            raise UserError(f"the undisturbed run failed: {broken} ({said})") from broken
        say(f"trained undisturbed in {self._seconds:.0f} s")

    def tear(self, kills: int) -> None:
        """Kills runs `kills` times in all, and lets the last one finish.

        It gives up, and says so, after many attempts in a row that end before they can be killed.
        """
        place, torn_in, killed, missed = self._new_run(self._root), [], 0, 0
        names: list[str] = []
        while killed < kills or torn_in:
            # All phases in turn, in a new order each round: each gets as many kills.
            names = names or self._rng.sample([*self._phases], len(self._phases))
            name = names.pop() if killed < kills else None
            try:
                status = self._attempt(place, name)
                missed = missed + 1 if name and status == 0 else 0
                if status == -signal.SIGKILL:
                    killed += 1
                    torn_in.append(name)
                    self.counts[name][KILLED] += 1
                    say(f"kill {killed} of {kills}: {name}, after: {self._last_line()}")
                if status == 0:
                    for each in torn_in:
                        self.counts[each][WENT_ON] += 1
                    self._compare(place)
            except Broken as broken:
                self._tell(torn_in[-1] if torn_in else name, broken)
                status = 0
            if status == 0:
                place, torn_in = self._new_run(self._root), []
            if missed == MOST_MISSED:
                self.gave_up = True
                say(
                    f"{missed} attempts in a row ended before they could be killed in any of "
                    f"{', '.join(self._phases)}; train for more steps, or name other phases"
                )
                return

    def fill(self, disks: int) -> None:
        """Has `disks` runs end because their disk fills up, and finish once there is room."""
        for number in range(disks):
            while not self._fill(DISKS[number % len(DISKS)]):
                say("it did not fill up after the run had begun; trying another size")

    def _fill(self, name: str) -> bool:
        """Trains on one small disk, which holds what `name` says, and again once it has room.

        Returns whether the disk filled up after training had begun. One that is too small for that,
        or large enough for the whole run, does not count, but its run must end in the same way.
        """
        disk = self._root / f"disk{self._runs}"
        place = self._new_run(disk, self._root if name == WORK_ALONE else disk)
        # What the undisturbed run takes at its end; now and then it took more.
        held = sum(map(_bytes, self._whole[:1] if name == WORK_ALONE else self._whole))
        # A run begins only with room for a checkpoint, nearly half of what it takes at its end.
        size = int(held * self._rng.uniform(0.4, 1.0))
        with small_disk(disk, size) as resize:
            try:
                if self._attempt(place, full=disk) == 0:
                    return False
                began = BEGAN in self._words().read_text()
                say(f"{name}, of {size:,} bytes: {self._last_line()}")
                resize(ROOM)
                self._attempt(place)
                self._compare(place)
            except Broken as broken:
                self._tell(name, broken)
                shutil.copytree(disk, f"{disk}-kept")
                return True
        self.counts[name][KILLED] += began
        self.counts[name][WENT_ON] += began
        return began

    def _new_run(self, top: Path, caches: Path | None = None) -> Place:
        self._runs += 1
        caches = caches or top
        return Place(top / f"run{self._runs}", caches / "cache", caches / "programs")

    def _attempt(self, place: Place, name: str | None = None, full: Path | None = None) -> int:
        """Runs the command until it ends or is killed.

        Args:
          place: the directories of the run.
          name: name of the phase to kill it in; None for no kill.
          full: the small disk that may fill up, if there is one.

        Returns:
          Its exit status.

        Raises:
          Broken: it hung, or ended in a way that it must not.
        """
        self._attempts += 1
        phase, expected = self._phases.get(name), [0]
        if phase:
            forget(name, place)
            expected += [-signal.SIGKILL, *[TRY_AGAIN] * phase.stops]
        if full:
            expected += [UserError.status]
        with attempt(place, self._overrides, self._words()) as started:
            if phase and started.goes_on_until(phase.reached):
                started.wait(self._seconds * self._rng.uniform(0, phase.share))
                if phase.stops:
                    started.ask_to_stop()
                    started.wait(self._seconds * self._rng.uniform(0, STOPPING))
                started.kill()
            status, words = started.status(), started.words()
        told = [line for line in words.splitlines() if line.startswith("error: ")]
        if "Traceback" in words or status not in expected:
            raise Broken(f"it ended with {status}: {self._last_line()}")
        if status == UserError.status:
            named = str(full) in self._last_line() or any(word in words for word in NO_ROOM)
            if len(told) != 1 or told[0] != self._last_line() or not named:
                raise Broken(f"it did not say in one line that {full} is full")
        return status

    def _compare(self, place: Place) -> None:
        """Raises Broken if a finished run differs from the undisturbed one; else deletes it."""
        self.ends += 1
        if found := differences(self._whole, place):
            raise Broken("; ".join(found))
        say("a run has come to the same end")
        shutil.rmtree(place.workdir)

    def _tell(self, name: str, broken: Broken) -> None:
        self.counts[name][DIFFERENCES] += 1
        say(f"DIFFERENCE, after {name}: {broken} (what it said: {self._words()})")

    def _words(self) -> Path:
        """The file for the output of the current attempt."""
        return self._root / f"attempt{self._attempts}.txt"

    def _last_line(self) -> str:
        return (self._words().read_text().splitlines() or [""])[-1]


def _chosen(config: Config, names: Sequence[str] | None) -> dict[str, Phase]:
    """Returns the phases of a run that have these names; None for all.

    Raises:
      UserError: there is no such phase.
    """
    stages = len(planned_stages(config, Path(), ALONE))
    phases = PHASES | (LATER if stages > 1 else {})
    if names is None:
        return phases
    for name in names or [""]:
        if name not in phases:
            raise UserError(f"--phases={name} is none of {', '.join(phases)}")
    return {name: phases[name] for name in names}


def _bytes(top: Path) -> int:
    return sum(path.stat().st_size for path in top.rglob("*") if path.is_file())


def main() -> int:
    """Kills and compares runs and prints the table; returns 1 if a run differed, or it gave up."""
    # The devices are for the runs; here arrays are only read.
    jax.config.update("jax_platforms", "cpu")
    config = resolve(CONFIG.value)
    phases = _chosen(config, PHASES_TO_KILL.value)
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    trial = Trial(phases, root)
    trial.tear(KILLS.value)
    if FULL_DISKS.value and (reason := why_no_mount(root / "disk")):
        say(f"no full disks: {reason}")
    else:
        trial.fill(FULL_DISKS.value)
    rows = [
        {"phase": name, **{what: counts[what] for what in (KILLED, WENT_ON, DIFFERENCES)}}
        for name, counts in trial.counts.items()
    ]
    report.show(rows)
    say(f"{trial.ends} ends compared with the undisturbed one")
    report.keep(rows, OUT.value)
    if any(counts[DIFFERENCES] for counts in trial.counts.values()):
        say(f"kept: {root}")
        return 1
    shutil.rmtree(root)
    return int(trial.gave_up)


if __name__ == "__main__":
    cli.run(main, required=["config"])
