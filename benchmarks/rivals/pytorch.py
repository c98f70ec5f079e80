"""vaejax's convolutional VAE in PyTorch: the same architecture, parameters, loss and update.

Written as one would write it for speed there: channels-last convolutions, fused AdamW, foreach
clipping and averaging, and `torch.compile` with --compile. Default float32 precision, or bfloat16
by autocast; on CUDA float32 may use TF32, as JAX's default does.
"""

import math
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rivals import worker
from vaejax.config import Config
from vaejax.data.cache.building import available_cores
from vaejax.likelihoods import LEVEL, MAX_LOG_SCALE, MIN_LOG_SCALE
from vaejax.models.conv import lowest_size
from vaejax.models.heads import FIRST_LOG_SCALE, LOG_SCALE_GAIN

# Settings that are implemented here; other values are refused.
COPIED = {
    "model.name": "conv",
    "prior.name": "coupling_flow",
    "likelihood.name": "logistic",
    "likelihood.scale": "position",
    "likelihood.bits": 8,
    "optimizer.name": "adamw",
    "data.flip": True,
}


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """Moves blocks of `block` x `block` pixels into the channels, with one copy.

    Maps [batch, c, h, w] to [batch, block^2 c, h / block, w / block], channels last in memory.
    """
    b, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(b, h // block, block, w // block, block, c)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(b, h // block, w // block, block * block * c)
    return x.permute(0, 3, 1, 2)


def depth_to_space(x: Tensor, block: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    b, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(b, h, w, block, block, c // block**2)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(b, h * block, w * block, c // block**2)
    return x.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """A residual block of two convolutions, the second of which is initialised to zero."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, channel, height, width] to the same shape."""
        return x + self.second(F.silu(self.first(F.silu(x))))


class Encoder(nn.Module):
    """Maps pictures to mean and log standard deviation of their codes."""

    def __init__(self, config: Config):
        super().__init__()
        model, (height, width) = config.model, config.data.image_size
        self.patch, levels = model.patch, len(model.widths)
        unit = model.patch * 2 ** (levels - 1)
        rows, columns = (lowest_size(side, model.patch, levels) for side in (height, width))
        self.border = (0, columns * unit - width, 0, rows * unit - height)
        features = [config.data.channels * model.patch**2, *(4 * w for w in model.widths[:-1])]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(features, model.widths))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
            for width, count in zip(model.widths, model.blocks)
        )
        self.out = nn.Linear(rows * columns * model.widths[-1], 2 * model.latent_size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [batch, channel, height, width] to mean and log std, each [batch, latent]."""
        x = F.pad(x, self.border, mode="replicate") if any(self.border) else x
        for level, (down, blocks) in enumerate(zip(self.down, self.blocks)):
            x = blocks(down(space_to_depth(x, 2 if level else self.patch)))
        x = F.silu(x).permute(0, 2, 3, 1).flatten(1)
        mean, raw = self.out(x).float().chunk(2, dim=-1)
        return mean, 8.0 * torch.tanh((raw - 1.0) / 8.0)


class Decoder(nn.Module):
    """Maps codes to the location of each pixel's distribution."""

    def __init__(self, config: Config):
        super().__init__()
        model, self.size = config.model, config.data.image_size
        self.patch, levels = model.patch, len(model.widths)
        self.bottom = [lowest_size(side, model.patch, levels) for side in self.size]
        self.start = nn.Linear(model.latent_size, math.prod(self.bottom) * model.widths[-1])
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
            for width, count in zip(model.widths, model.blocks)
        )
        self.up = nn.ModuleList(
            nn.Conv2d(b, 4 * a, 1) for a, b in zip(model.widths, model.widths[1:])
        )
        self.out = nn.Conv2d(model.widths[0], config.data.channels * model.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Maps [batch, latent] to [batch, channel, height, width]."""
        x = self.start(z).unflatten(1, (*self.bottom, -1)).permute(0, 3, 1, 2)
        for level in reversed(range(len(self.blocks))):
            x = self.blocks[level](x)
            if level:
                x = depth_to_space(self.up[level - 1](x), 2)
        x = depth_to_space(self.out(F.silu(x)), self.patch)
        return x[:, :, : self.size[0], : self.size[1]].float()


class CouplingFlow(nn.Module):
    """A prior of affine coupling layers (Dinh et al. 2017), whose halves take turns."""

    def __init__(self, size: int, layers: int, width: int):
        super().__init__()
        halves = (size // 2, size - size // 2)
        self.shift = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))
        self.first_half = halves[0]
        self.conditioners = nn.ModuleList()
        for i in range(layers):
            kept, moved = halves if i % 2 == 0 else halves[::-1]
            layer = nn.Sequential(
                nn.Linear(kept, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                nn.Linear(width, 2 * moved),
            )  # fmt: skip
            nn.init.zeros_(layer[-1].weight)
            self.conditioners.append(layer)
        pairs = torch.stack([torch.randperm(size) for _ in range(0, layers, 2)])
        self.register_buffer("permutations", pairs)

    def forward(self, z: Tensor) -> Tensor:
        """Returns log p(z) in nats, [batch], of codes [batch, latent]."""
        z = (z - self.shift) * torch.exp(-self.log_scale)
        log_det = -self.log_scale.sum()
        for i, conditioner in enumerate(self.conditioners):
            if i % 2 == 0:
                z = z[:, self.permutations[i // 2]]
            first, second = z[:, : self.first_half], z[:, self.first_half :]
            kept, moved = (first, second) if i % 2 == 0 else (second, first)
            shift, raw = conditioner(kept).chunk(2, dim=-1)
            log_scale = 2.0 * torch.tanh(raw / 2.0)
            moved = (moved - shift) * torch.exp(-log_scale)
            z = torch.cat((kept, moved) if i % 2 == 0 else (moved, kept), dim=-1)
            log_det = log_det - log_scale.sum(-1)
        return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


class VAE(nn.Module):
    """A VAE whose output is its loss, the negative ELBO in nats per dimension."""

    def __init__(self, config: Config):
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        prior = config.prior
        self.prior = CouplingFlow(config.model.latent_size, prior.layers, prior.width)
        self.log_scale = nn.Parameter(torch.zeros(config.data.channels, *config.data.image_size))
        self.bfloat16 = config.model.dtype == "bfloat16"

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Returns the mean loss of a batch.

        Args:
          images: uint8, [batch, height, width, channel].
          noise: standard normal, [batch, latent].
        """
        x = images.permute(0, 3, 1, 2).float() * (1 / 127.5) - 1.0
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            mean, log_std = self.encoder(x)
            z = mean + torch.exp(log_std) * noise
            location = self.decoder(z)
        entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
        kl = -entropy - self.prior(z)
        raw = LOG_SCALE_GAIN * self.log_scale + FIRST_LOG_SCALE
        inverse_scale = torch.exp(-raw.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE))
        middle, half = (x - location) * inverse_scale, 0.5 * LEVEL * inverse_scale
        levels = images.permute(0, 3, 1, 2)
        first, last = levels == 0, levels == 255
        below = torch.where(last, 0.0, -F.softplus(-(middle + half)))
        above = torch.where(first, 0.0, -F.softplus(middle - half))
        width = torch.where(first | last, 0.0, torch.log(-torch.expm1(-2.0 * half)))
        log_likelihood = (below + above + width).sum((1, 2, 3))
        return (kl - log_likelihood).mean() / x[0].numel()


class Trainer:
    """Makes training updates: flip, gradient, clipping, AdamW, average of the parameters."""

    def __init__(self, config: Config, compiled: bool):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settings = config.optimizer
        model = VAE(config).to(self.device, memory_format=torch.channels_last)
        self.parameters = list(model.parameters())
        # Only kernels decay, as in vaejax.
        kernels = [
            layer.weight for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
        ]
        chosen = set(map(id, kernels))
        others = [value for value in self.parameters if id(value) not in chosen]
        self.optimizer = torch.optim.AdamW(
            [{"params": kernels}, {"params": others, "weight_decay": 0.0}],
            lr=settings.learning_rate, betas=(settings.b1, settings.b2),
            weight_decay=settings.weight_decay, fused=True,
        )  # fmt: skip
        self.average = [value.detach().clone() for value in self.parameters]
        self.decay, self.clip_norm = settings.ema_decay, settings.clip_norm or math.inf
        self.latent_size = config.model.latent_size
        self.loss_of = torch.compile(model) if compiled else model

    def step(self, images: Tensor) -> Tensor:
        """Makes one update on uint8 pictures, [batch, height, width, channel]; returns the loss."""
        flip = torch.rand(len(images), 1, 1, 1, device=self.device) < 0.5
        images = torch.where(flip, images.flip(2), images)
        noise = torch.randn(len(images), self.latent_size, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(images, noise)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip_norm, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - self.decay)
        return loss


def main() -> None:
    """Takes turns with training steps on noise pictures that lie on the device."""
    config = worker.settings(COPIED)
    torch.manual_seed(0)
    torch.set_num_threads(available_cores())
    trainer = Trainer(config, compiled="--compile" in sys.argv)
    if trainer.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    shape = (config.train.batch_size, *config.data.shape)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=trainer.device)
    parameters = sum(value.numel() for value in trainer.parameters)
    turns = worker.Turns(config.train.batch_size, parameters=parameters)
    worker.serve(lambda: trainer.step(images).item(), turns)


if __name__ == "__main__":
    main()
