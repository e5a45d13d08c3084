"""Residual vector quantisation over levels of different rates, with codebooks learnt by moving averages.

The latent is squeezed to a level's rate, replaced by its nearest code, spread again and subtracted; the
next, finer level codes what is left. Codebooks follow the vectors they stand for (no gradient), unused
codes are moved onto vectors of the batch, and the gradient passes straight through. Axes: B batch, D latent
width, N latent frames, n = N / stride codes of a level.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, nn
from torch.nn import functional as F

from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantiserConfig:
    """Sizes of a ``ResidualQuantiser`` and how its codebooks follow the data.

    ``strides`` are latent frames per code, coarsest level first. The first ``warmup_steps`` training steps
    pass the latent unquantised; then k-means sets the codebooks from ``num_seeds`` collected vectors. A
    code used less often than ``restart_below`` times the mean is moved.
    """

    width: int = 96
    code_width: int = 24
    codebook_size: int = 512
    strides: tuple[int, ...] = (4, 2, 1)
    decay: float = 0.99
    restart_below: float = 0.05
    warmup_steps: int = 200
    num_seeds: int = 4096

    def __post_init__(self) -> None:
        if not self.strides or any(a % b for a, b in pairwise(self.strides)):
            raise ConfigError(f"strides must each be a multiple of the next one, got {self.strides}.")
        if self.strides[-1] != 1:
            raise ConfigError(f"the last stride must be 1, got {self.strides}.")
        if not 2 <= self.codebook_size <= self.num_seeds:
            raise ConfigError(
                f"codebook_size must be from 2 to num_seeds ({self.num_seeds}), got {self.codebook_size}."
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Quantised:
    """A quantised latent, the codes of each level, and how far the latents lie from their codes.

    ``stages`` are the latents by the first level, by the first two, and so on; the last is ``latent``.
    """

    latent: Float[Tensor, "B D N"]
    stages: list[Float[Tensor, "B D N"]]
    codes: list[Int[Tensor, "B _"]]
    commitment: Float[Tensor, ""]


class Codebook(nn.Module):
    """One level: squeeze to the level's rate, nearest code, spread again."""

    vectors: Tensor
    usage: Tensor
    sums: Tensor
    seeds: Tensor

    def __init__(self, config: QuantiserConfig, *, stride: int) -> None:
        super().__init__()
        self.config = config
        self.squeeze = nn.Conv1d(config.width, config.code_width, stride, stride)
        self.spread = nn.ConvTranspose1d(config.code_width, config.width, stride, stride)
        self.register_buffer("vectors", torch.randn(config.codebook_size, config.code_width))
        self.register_buffer("usage", torch.ones(config.codebook_size))
        self.register_buffer("sums", self.vectors.clone())
        self.register_buffer("seeds", torch.zeros(config.num_seeds, config.code_width))

    def nearest(self, points: Float[Tensor, "M D"]) -> Int[Tensor, "M"]:
        """The code nearest to each point."""
        return (self.vectors.square().sum(-1) - 2.0 * points @ self.vectors.T).argmin(dim=-1)

    def decode(self, codes: Int[Tensor, "B n"]) -> Float[Tensor, "B D N"]:
        """The latent that the codes stand for."""
        return self.spread(self.vectors[codes].transpose(1, 2))

    @torch.no_grad()
    def collect(self, points: Float[Tensor, "M D"]) -> None:
        """Remember the newest vectors for ``seed``."""
        self.seeds.copy_(torch.cat([points, self.seeds])[: len(self.seeds)])

    @torch.no_grad()
    def seed(self, generator: Generator, *, rounds: int = 10) -> None:
        """Set the codes by k-means over the collected vectors."""
        self.vectors.copy_(self.seeds[self._drawn(len(self.seeds), len(self.vectors), generator)])
        for _ in range(rounds):
            counts, sums = self._assign(self.seeds, self.nearest(self.seeds))
            used = counts > 0
            self.vectors[used] = sums[used] / counts[used, None]
        counts, _ = self._assign(self.seeds, self.nearest(self.seeds))
        self.usage.copy_(counts.clamp(min=1e-3))
        self.sums.copy_(self.vectors * self.usage[:, None])

    @torch.no_grad()
    def rest(self) -> None:
        """Forget how often codes were used: each weighs as one vector, as after loading."""
        self.usage.fill_(1.0)
        self.sums.copy_(self.vectors)

    @torch.no_grad()
    def follow(self, points: Float[Tensor, "M D"], codes: Int[Tensor, "M"], generator: Generator) -> None:
        """Move each code to the running mean of its vectors, and dead codes onto vectors of the batch."""
        counts, sums = self._assign(points, codes)
        self.usage.lerp_(counts, 1.0 - self.config.decay)
        self.sums.lerp_(sums, 1.0 - self.config.decay)
        mean = self.usage.mean()
        dead = (self.usage < self.config.restart_below * mean).nonzero()[:, 0][: len(points)]
        if len(dead):
            self.sums[dead] = points[self._drawn(len(points), len(dead), generator)] * mean
            self.usage[dead] = mean
        self.vectors.copy_(self.sums / self.usage[:, None])

    def _assign(self, points: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        counts = torch.bincount(codes, minlength=len(self.vectors)).to(points.dtype)
        return counts, torch.zeros_like(self.vectors).index_add_(0, codes, points)

    def _drawn(self, num_points: int, count: int, generator: Generator) -> Tensor:
        order = torch.randperm(num_points, generator=generator, device=generator.device)
        return order[:count].to(self.vectors.device)


class ResidualQuantiser(nn.Module):
    """Codebooks of falling stride, each coding what the coarser ones left."""

    step: Tensor

    def __init__(self, config: QuantiserConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = nn.ModuleList(Codebook(config, stride=stride) for stride in config.strides)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def encode(self, latent: Float[Tensor, "B D N"]) -> list[Int[Tensor, "B _"]]:
        """The codes of each level; N is a multiple of the largest stride."""
        codes, residual = [], latent
        for level in self._levels():
            points = level.squeeze(residual)
            codes.append(level.nearest(points.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(latent), -1)))
            residual = residual - level.decode(codes[-1])
        return codes

    def decode(self, codes: list[Int[Tensor, "B _"]]) -> Float[Tensor, "B D N"]:
        """The sum of what the levels stand for."""
        latents = [
            level.decode(level_codes) for level, level_codes in zip(self._levels(), codes, strict=True)
        ]
        return torch.stack(latents).sum(dim=0)

    def forward(self, latent: Float[Tensor, "B D N"], *, generator: Generator) -> Quantised:
        """Quantise with straight-through gradients; in training mode the codebooks learn too.

        A quantiser whose parameters are frozen keeps its codebooks, so that a decoder can train on alone.
        """
        is_warm = int(self.step) >= self.config.warmup_steps
        is_learning = self.training and any(parameter.requires_grad for parameter in self.parameters())
        if is_learning:
            if int(self.step) == self.config.warmup_steps:
                for level in self._levels():
                    level.seed(generator)
            self.step += 1
        total, residual = torch.zeros_like(latent), latent
        commitment, codes, stages = latent.new_zeros(()), [], []
        for level in self._levels():
            points = level.squeeze(residual)
            flat = points.detach().transpose(1, 2).flatten(0, 1)
            chosen = level.nearest(flat)
            target = level.vectors[chosen].unflatten(0, (len(latent), -1)).transpose(1, 2)
            if is_warm:
                commitment = commitment + F.mse_loss(points, target)
                points = points + (target - points).detach()
            part = level.spread(points)
            total, residual = total + part, residual - part
            stages.append(total)
            codes.append(chosen.unflatten(0, (len(latent), -1)))
            if is_learning and is_warm:
                level.follow(flat, chosen, generator)
            elif is_learning:
                level.collect(flat)
        return Quantised(latent=total, stages=stages, codes=codes, commitment=commitment)

    def _levels(self) -> list[Codebook]:
        return [level for level in self.levels if isinstance(level, Codebook)]
