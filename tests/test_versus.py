"""The rival programs of `benchmarks.versus` do the same work as vaejax, in alternating turns.

These tests assert nothing about speed.
"""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest
from benchmark_commands import benchmark
from commands import REPOSITORY, assert_one_line
from parameters import away_from_start
from tiny import CONFIG_FILE, least, tiny

from benchmarks.programs import step_flops
from benchmarks.rivals import worker
from benchmarks.rivals.strided import equal_width, textbook
from vaejax.config.saved import to_json
from vaejax.errors import UserError
from vaejax.likelihoods import build_likelihood
from vaejax.models import build_model
from vaejax.models.noise import normal
from vaejax.tasks.vae import VAETask
from vaejax.tasks.vae.evidence import evidence

pytestmark = pytest.mark.slow

CONFIG = f"--config={CONFIG_FILE}"
INSTALLED = all(map(importlib.util.find_spec, ("torch", "pythae")))


def versus(out: pathlib.Path, *flags: str) -> list[dict]:
    """Runs `benchmarks.versus` for one short turn with each rival; returns the rows it kept."""
    result = benchmark(
        "versus", CONFIG, "--config.model.widths=(8,)", "--config.model.blocks=(0,)",
        "--config.data.image_size=(64, 64)", "--repeats=1", "--seconds=0.01", "--pythae_batch=8",
        f"--out={out}", *flags,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(out.read_text())["rows"]


def test_the_textbook_network_costs_as_many_operations():
    config = least(model={"widths": (8,), "blocks": (0,)})
    ours = step_flops(VAETask(config), config)
    width = equal_width(config)
    theirs = [step_flops(textbook(config, w), config) for w in (width, width + 1)]
    assert theirs[0] <= ours < theirs[1]


def test_an_unknown_rival_is_named():
    result = benchmark("versus", CONFIG, "--rivals=everyone")
    assert_one_line(result, "--rivals=everyone is none of strided, pytorch, compiled, pythae")


def test_a_rival_that_fails_is_an_error_with_its_last_line(tmp_path, monkeypatch):
    file = tmp_path / "settings.json"
    file.write_text(to_json(tiny()))
    monkeypatch.chdir(REPOSITORY)
    reason = "pythae takes 64 x 64 RGB" if INSTALLED else "No module named '(torch|pythae)"
    message = rf"^benchmarks\.rivals\.pythae_celeba ended: .*{reason}"
    with pytest.raises(UserError, match=message):
        worker.Worker("benchmarks.rivals.pythae_celeba", str(file), "--batch=8")


def test_a_rival_builds_no_other_model_than_the_runs(tmp_path, monkeypatch):
    file = tmp_path / "settings.json"
    file.write_text(to_json(tiny()))
    monkeypatch.setattr("sys.argv", ["rival", str(file)])
    assert worker.settings({"model.name": "conv"}) == tiny()
    with pytest.raises(UserError, match=r"config\.model\.name=conv: .* built for ladder alone"):
        worker.settings({"model.name": "ladder"})


def test_the_pytorch_model_computes_the_same_loss():
    """Given vaejax's parameters and noise, on pictures whose height and width both need padding."""
    torch = pytest.importorskip("torch", reason="needs pip install -e '.[versus]'")
    from benchmarks.rivals import pytorch

    size = (28, 20)
    config = tiny(data={"image_size": size}, model={"widths": (8, 16, 24), "blocks": (1, 2, 1)})
    model = build_model(config)
    # Parameters that are initialised to zero would hide differences between the models.
    params = away_from_start(model, config, by=0.05)
    images = jax.random.randint(jax.random.key(2), (4, *size, 3), 0, 256).astype(np.uint8)
    keys = jax.random.split(jax.random.key(3), 4)
    noise = normal(keys, (config.model.latent_size,))

    @jax.jit
    def elbo(params):
        return evidence(model, params, build_likelihood(config), images, keys).elbo()

    loss = -np.mean(elbo(params)) / images[0].size

    rival = pytorch.VAE(config)
    size_of_ours = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(p.numel() for p in rival.parameters()) == size_of_ours
    give_parameters(rival, params, model.prior)
    with torch.no_grad():
        theirs = rival(torch.tensor(np.asarray(images)), torch.tensor(np.asarray(noise)))
    np.testing.assert_allclose(theirs.item(), loss, rtol=1e-5)


def give_parameters(rival, params: dict, prior) -> None:
    """Copies vaejax's parameters into the PyTorch model."""
    import torch

    def give(layer, values):
        """Copies one layer. Flax stores convolution kernels as [height, width, in, out].

        PyTorch stores them as [out, in, height, width].
        """
        (values,) = [values] if "kernel" in values else values.values()
        kernel = np.asarray(values["kernel"])
        kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        layer.weight.data.copy_(torch.tensor(kernel.reshape(layer.weight.shape)))
        layer.bias.data.copy_(torch.tensor(np.asarray(values["bias"])))

    def give_blocks(levels, values):
        for i, block in enumerate(block for level in levels for block in level):
            give(block.first, values[f"ResidualBlock_{i}"]["Conv3x3_0"])
            give(block.second, values[f"ResidualBlock_{i}"]["Conv3x3_1"])

    encoder, decoder, flow = params["encoder"], params["decoder"], params["prior"]
    give_blocks(rival.encoder.blocks, encoder)
    give_blocks(reversed(rival.decoder.blocks), decoder)
    for i, layer in enumerate(rival.encoder.down):
        give(layer, encoder[f"Conv1x1_{i}"])
    for i, layer in enumerate(reversed(rival.decoder.up)):
        give(layer, decoder[f"Conv1x1_{i}"])
    give(rival.encoder.out, encoder["Dense_0"])
    give(rival.decoder.start, decoder["Dense_0"])
    give(rival.decoder.out, decoder["Conv3x3_0"])
    for i, layers in enumerate(rival.prior.conditioners):
        for j in range(3):
            give(layers[2 * j], flow[f"conditioners_{i}"][f"Dense_{j}"])
    for name in ("shift", "log_scale"):
        getattr(rival.prior, name).data.copy_(torch.tensor(np.asarray(flow[name])))
    size, pairs = len(flow["shift"]), len(rival.prior.permutations)
    rng = np.random.default_rng(0)
    permutations = np.stack([rng.permutation(size) for _ in range(pairs)])
    rival.prior.permutations.copy_(torch.tensor(permutations))
    scale = np.asarray(params["head"]["log_scale"])[0]
    rival.log_scale.data.copy_(torch.tensor(scale.transpose(2, 0, 1)))


def test_vaejax_takes_turns_with_its_rivals(tmp_path):
    rivals = ["strided", *["pytorch"] * INSTALLED]
    rows = versus(tmp_path / "out.json", f"--rivals={','.join(rivals)}")
    assert [row["rival"] for row in rows] == rivals
    for row in rows:
        assert row["rival images/s"] > 0
        assert row["ratio"] == pytest.approx(row["vaejax images/s"] / row["rival images/s"])


def test_vaejax_reaches_the_quality_of_pythae(tmp_path):
    pytest.importorskip("pythae", reason="needs pip install -e '.[versus]'")
    theirs, ours = versus(
        tmp_path / "out.json", "--config.prior.name=standard_normal", "--rivals=",
        "--minutes=0.001", "--eval_every=20", "--config.train.steps=1000",
    )  # fmt: skip
    assert (theirs["who"], ours["who"]) == ("pythae", "vaejax")
    assert ours["PSNR"] >= theirs["PSNR"] and ours["bits/dim"] <= theirs["bits/dim"]
