"""A mistake of the user ends a command with one line that names what is wrong."""

import pytest
from commands import assert_one_line, command
from tiny import CONFIG_FILE, tiny

from vaejax.records.workdir import claim

CONFIG = f"--config={CONFIG_FILE}"


def test_a_platform_that_is_absent_is_one_line(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    for module, flags in (
        ("main", [CONFIG, f"--workdir={tmp_path / 'run'}"]),
        ("sample", [f"--workdir={trained}", f"--out={tmp_path / 'x.png'}"]),
    ):
        assert_one_line(command(module, *flags), "JAX_PLATFORMS=cuda finds no device")


def test_too_few_pictures_for_a_prior_are_refused_before_training(tmp_path):
    result = command(
        "main", CONFIG, f"--workdir={tmp_path / 'run'}", "--config.data.synthetic_counts=1,0,0"
    )
    assert_one_line(result, "at least 2 training pictures, and there is 1")
    assert "training from" not in result.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_two_processes_cannot_train_in_one_work_directory(tmp_path):
    with claim(tmp_path, tiny()):
        assert_one_line(
            command("main", CONFIG, f"--workdir={tmp_path}"), "another process is training"
        )


# The command, its flags, and a part of its one-line error. {run} is the work directory of a trained
# run, and {tmp} has two directories: `damaged`, whose config.json is cut off, and `blocked`, which
# has a file in place of its directory of checkpoints.
MISTAKES = {
    "flat latents to explore": ("explore", ["--workdir={run}"], "latents are one array"),
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
    "no data path": ("main", [CONFIG, "--config.data.source=folder"], "config.data.path"),
    "missing data path": (
        "main",
        [CONFIG, "--config.data.source=folder", "--config.data.path=/nowhere"],
        "/nowhere",
    ),
    "workdir is a file": (
        "main",
        [CONFIG, "--workdir={tmp}/damaged/config.json"],
        "config.json cannot be made (a file lies in its place)",
    ),
    "workdir below a file": (
        "main",
        [CONFIG, "--workdir={tmp}/damaged/config.json/run"],
        "a directory of this path is a file",
    ),
    "file in place of the checkpoints": (
        "main",
        [CONFIG, "--workdir={tmp}/blocked"],
        "blocked/checkpoints cannot be written (a file lies in its place)",
    ),
    "empty workdir": ("main", [CONFIG, "--workdir="], "--workdir= is empty"),
    "no workdir": ("main", [CONFIG, "--workdir", "--processes=1"], "--workdir has no value"),
    "endless timeout": ("main", [CONFIG, "--start_timeout=nan"], "must be a finite number"),
    "path of procedural faces": ("main", [CONFIG, "--config.data.path=x"], "is not read by"),
    "directory for TFDS": ("main", [CONFIG, "--config.data.manual_dir=x"], "is read by"),
    "another run's workdir": (
        "main", [CONFIG, "--workdir={run}", "--config.train.seed=9"], "0 -> 9",
    ),
    "batch and devices": ("main", [CONFIG, "--config.train.batch_size=9"], "a multiple of 2"),
    "prepare without a config": ("prepare", [], "--config is missing"),
    "sample without a run": ("sample", ["--workdir={tmp}"], "holds no run"),
    "sample without a workdir": ("sample", [], "--workdir is missing"),
    "unknown prior": ("sample", ["--workdir={run}", "--prior=gausian"], "is none of model"),
    "empty workdir to sample": ("sample", ["--workdir="], "--workdir= is empty"),
    "too large a WebP": (
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
    "temperature in words": (
        "sample", ["--workdir={run}", "--temperature=warm"], "--temperature=warm must be numbers",
    ),
    "no temperature": ("sample", ["--workdir={run}", "--temperature="], "give one"),
    "two temperatures": ("sample", ["--workdir={run}", "--temperature=1,2"], "give one"),
    "labels without a prior": (
        "sample", ["--workdir={run}", "--labels=a=1"],
        "run its training again with --config.prior.fitted=flow_matching --config.flow.labels=a",
    ),
    "labels of a Gaussian": (
        "sample", ["--workdir={run}", "--labels=a=1", "--prior=gaussian"], "learned no labels",
    ),
    "label without a value": ("sample", ["--workdir={run}", "--labels=a"], "--labels=a must be"),
    "label in words": ("sample", ["--workdir={run}", "--labels=a=b"], "--labels=a=b must be"),
    "label given twice": ("sample", ["--workdir={run}", "--labels=a=1,a=0"], "each once"),
    "no labels": ("sample", ["--workdir={run}", "--labels="], "--labels= must be labels"),
    "guidance without labels": ("sample", ["--workdir={run}", "--guidance=2"], "towards labels"),
    "label that the data lacks": (
        "main", [CONFIG, "--config.flow.labels=smlie"], "did you mean smile?",
    ),
    "no topologies": ("aot", [CONFIG, "--compare="], "--compare= is empty"),
    "two ways to find processes": (
        "main", [CONFIG, "--distributed", "--processes=2"], "leave out --coordinator",
    ),
    "fraction of a picture": (
        "main", [CONFIG, "--config.data.holdout=1.5,0"], "shares below 1 or whole numbers",
    ),
    "output to a device": ("aot", [CONFIG, "--out=/dev/null"], "it is no regular file"),
    "two ways to name chips": (
        "aot", [CONFIG, "--topology=v5e:2x2", "--compare=v5e:2x2"], "do not go together",
    ),
    "empty data path": ("evaluate", ["--workdir={run}", "--data_path="], "--data_path= is"),
    "path of synthetic data": ("evaluate", ["--workdir={run}", "--data_path=x"], "is not read"),
    "unknown split": ("evaluate", ["--workdir={run}", "--split=val"], "one of train, valid, test"),
    "unknown prior to fit": ("fit", ["--workdir={run}", "--prior=vamp"], "gaussian"),
    "damaged config": ("sample", ["--workdir={tmp}/damaged"], "config.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(name, trained, tmp_path):
    module, flags, message = MISTAKES[name]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"data": ')
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "checkpoints").write_text("")
    flags = [flag.format(tmp=tmp_path, run=trained) for flag in flags]
    if module == "main" and not any("workdir" in flag for flag in flags):
        flags.append(f"--workdir={tmp_path / 'run'}")
    assert_one_line(command(module, *flags, devices=2), message)
