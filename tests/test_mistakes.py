"""A mistake of the user ends a command with one line that names what is wrong."""

import pytest
from commands import assert_one_line, command
from tiny import CONFIG_FILE, tiny

from vaejax.records.workdir import claim

CONFIG = f"--config={CONFIG_FILE}"


def test_a_platform_that_is_not_here_is_one_line(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    for module, flags in (
        ("main", [CONFIG, f"--workdir={tmp_path / 'run'}"]),
        ("sample", [f"--workdir={trained}", f"--out={tmp_path / 'x.png'}"]),
    ):
        assert_one_line(command(module, *flags), "JAX_PLATFORMS=cuda finds no device")


def test_too_few_pictures_for_a_prior_are_told_before_training(tmp_path):
    result = command(
        "main", CONFIG, f"--workdir={tmp_path / 'run'}", "--config.data.synthetic_counts=1,0,0"
    )
    assert_one_line(result, "at least 2 training pictures, and there is 1")
    assert "training from" not in result.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_two_processes_cannot_train_in_one_place(tmp_path):
    with claim(tmp_path, tiny()):
        assert_one_line(
            command("main", CONFIG, f"--workdir={tmp_path}"), "another process is training"
        )


# The command, its flags, and a part of its one-line error. {run} is the work directory of a trained
# run. {tmp} has two directories: `torn`, whose config.json is cut off, and `blocked`, which has a
# file in the place of its directory of checkpoints.
MISTAKES = {
    "nothing to explore": ("explore", ["--workdir={run}"], "one flat z"),
    "no config": ("main", [], "--config is missing"),
    "settings of no config": ("main", ["--config.train.steps=3"], "changes a setting of --config"),
    "no value for the config": ("main", ["--config", "--workdir=x"], "--config has no value"),
    "missing file": ("main", ["--config=configs/nothing.py"], "configs/nothing.py"),
    "missing file of flags": ("main", [CONFIG, "--flagfile=/nowhere"], "/nowhere"),
    "unknown flag": ("main", [CONFIG, "--wrokdir=x"], "wrokdir"),
    "bare word": ("main", [CONFIG, "workdir=x"], "'workdir=x' is not a flag"),
    "unknown key": ("main", [CONFIG, "--config.train.batchsize=4"], "config.train.batch_size?"),
    "unknown section": ("main", [CONFIG, "--config.trian.steps=4"], "mean config.train.steps?"),
    "not a number": ("main", [CONFIG, "--config.train.steps=ten"], "ten"),
    "wrong choice": ("main", [CONFIG, "--config.data.crop=nvae149"], "did you mean nvae148?"),
    "no path": ("main", [CONFIG, "--config.data.source=folder"], "config.data.path"),
    "path is not there": (
        "main",
        [CONFIG, "--config.data.source=folder", "--config.data.path=/nowhere"],
        "/nowhere",
    ),
    "workdir is a file": (
        "main",
        [CONFIG, "--workdir={tmp}/torn/config.json"],
        "config.json cannot be made (a file lies in its place)",
    ),
    "workdir below a file": (
        "main",
        [CONFIG, "--workdir={tmp}/torn/config.json/run"],
        "a directory of this path is a file",
    ),
    "no place for checkpoints": (
        "main",
        [CONFIG, "--workdir={tmp}/blocked"],
        "blocked/checkpoints cannot be written (a file lies in its place)",
    ),
    "empty workdir": ("main", [CONFIG, "--workdir="], "--workdir= is empty"),
    "no workdir": ("main", [CONFIG, "--workdir", "--processes=1"], "--workdir has no value"),
    "for ever": ("main", [CONFIG, "--start_timeout=nan"], "must be a finite number"),
    "a path for procedural faces": ("main", [CONFIG, "--config.data.path=x"], "is not read by"),
    "a directory for TFDS": ("main", [CONFIG, "--config.data.manual_dir=x"], "is read by"),
    "another run's workdir": (
        "main", [CONFIG, "--workdir={run}", "--config.train.seed=9"], "0 -> 9",
    ),
    "batch and devices": ("main", [CONFIG, "--config.train.batch_size=9"], "a multiple of 2"),
    "nothing to prepare": ("prepare", [], "--config is missing"),
    "sample without a run": ("sample", ["--workdir={tmp}"], "holds no run"),
    "sample without a workdir": ("sample", [], "--workdir is missing"),
    "unknown prior": ("sample", ["--workdir={run}", "--prior=gausian"], "is none of model"),
    "empty workdir to sample": ("sample", ["--workdir="], "--workdir= is empty"),
    "a WebP too large": (
        "sample", ["--workdir={run}", "--count=40000", "--out={tmp}/x.webp"], "takes 16383 a side",
    ),
    "more than memory": (
        "sample", ["--workdir={run}", "--prior=gaussian", "--count=1000000000000"], "GB of memory",
    ),
    "prior not fitted": ("sample", ["--workdir={run}", "--prior=flow_matching"], "vaejax.fit"),
    "no such checkpoint": ("sample", ["--workdir={run}", "--checkpoint=7"], "best, latest"),
    "no faces": ("sample", ["--workdir={run}", "--count=0"], "--count=0 must be a positive"),
    "faces in words": ("sample", ["--workdir={run}", "--count=many"], "--count=many must be a"),
    "neither yes nor no": ("sample", ["--workdir={run}", "--separate=x"], "must be true or false"),
    "negative temperature": ("sample", ["--workdir={run}", "--temperature=-1"], "temperature"),
    "no temperature": ("sample", ["--workdir={run}", "--temperature="], "give one"),
    "two temperatures": ("sample", ["--workdir={run}", "--temperature=1,2"], "give one"),
    "no topologies": ("aot", [CONFIG, "--compare="], "--compare= is empty"),
    "found and named": (
        "main", [CONFIG, "--distributed", "--processes=2"], "leave out --coordinator",
    ),
    "a part of a picture held out": (
        "main", [CONFIG, "--config.data.holdout=1.5,0"], "shares below 1 or whole numbers",
    ),
    "a device to write to": ("aot", [CONFIG, "--out=/dev/null"], "it is no regular file"),
    "two ways to name chips": (
        "aot", [CONFIG, "--topology=v5e:2x2", "--compare=v5e:2x2"], "do not go together",
    ),
    "empty data path": ("evaluate", ["--workdir={run}", "--data_path="], "--data_path= is"),
    "data for procedural faces": ("evaluate", ["--workdir={run}", "--data_path=x"], "is not read"),
    "unknown split": ("evaluate", ["--workdir={run}", "--split=val"], "one of train, valid, test"),
    "unknown prior to fit": ("fit", ["--workdir={run}", "--prior=vamp"], "gaussian"),
    "torn config": ("sample", ["--workdir={tmp}/torn"], "config.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_clear_line(name, trained, tmp_path):
    module, flags, said = MISTAKES[name]
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text('{"data": ')
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "checkpoints").write_text("")
    flags = [flag.format(tmp=tmp_path, run=trained) for flag in flags]
    if module == "main" and not any("workdir" in flag for flag in flags):
        flags.append(f"--workdir={tmp_path / 'run'}")
    assert_one_line(command(module, *flags, devices=2), said)
