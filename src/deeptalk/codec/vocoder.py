"""A source-filter synthesiser with one inverse STFT: pulses and noise, shaped by two smooth magnitude curves.

Y = H E + |G| W per window: E are pulses of the given pitch, H a filter of minimum phase, W white noise.
Window i covers the samples from i hops on, so the samples of a hop are complete with that hop's own
controls. Axes: B batch, S samples, N hops, M bands.
"""

from dataclasses import dataclass

import torch
from torch import nn

from deeptalk.codec.excitation import frames_of, noise, overlap_add, pulse_train
from deeptalk.codec.spectrum import band_curves, minimum_phase
from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class VocoderConfig:
    """Rates in Hz, window and hop in samples, mel-spaced bands up to ``max_hz``, key of the noise table."""

    sample_rate: int = 24_000
    n_fft: int = 512
    hop: int = 128
    max_hz: float = 8000.0
    num_bands: int = 80
    noise_seed: int = 24

    def __post_init__(self) -> None:
        if self.hop < 1 or self.n_fft % (4 * self.hop):
            raise ConfigError(f"n_fft must be a multiple of four hops, got {self.n_fft} and hop {self.hop}.")
        if not 0 < self.max_hz <= self.sample_rate / 2:
            raise ConfigError(f"max_hz must be from 0 to {self.sample_rate / 2:g}, got {self.max_hz:g}.")
        if self.num_bands < 2:
            raise ConfigError(f"num_bands must be at least 2, got {self.num_bands}.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Controls:
    """What a hop sounds like: pitch in Hz, how much of the pulses sounds (0 to 1), and the log magnitudes.

    ``harmonic`` shapes the pulses and ``noisy`` the noise, both at mel-spaced bands.
    """

    hz: Float[Tensor, "B N"]
    voicing: Float[Tensor, "B N"]
    harmonic: Float[Tensor, "B N M"]
    noisy: Float[Tensor, "B N M"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VocoderState:
    """The last pitch (0: none yet), phase in periods, last pulses, unfinished samples, place in the noise."""

    last_hz: Float[Tensor, "B"]
    phase: Float[Tensor, "B"]
    pulses: Float[Tensor, "B S"]
    tail: Float[Tensor, "B S"]
    noise_at: int


class Vocoder(nn.Module):
    """Controls -> samples; no parameters, all state passed."""

    curves: Tensor
    phases: Tensor
    audible: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        curves = band_curves(
            num_bands=config.num_bands,
            n_fft=config.n_fft,
            sample_rate=config.sample_rate,
            max_hz=config.max_hz,
        )
        bins = torch.arange(config.n_fft // 2 + 1) * config.sample_rate / config.n_fft
        self.register_buffer("curves", curves, persistent=False)
        self.register_buffer("phases", minimum_phase(curves), persistent=False)
        self.register_buffer("audible", (bins <= config.max_hz).float(), persistent=False)

    def start(self, batch: int, *, noise_at: int = 0) -> VocoderState:
        """Silence before the first hop."""
        rest = self.config.n_fft - self.config.hop
        return VocoderState(
            last_hz=self.curves.new_zeros(batch),
            phase=self.curves.new_zeros(batch, dtype=torch.float64),
            pulses=self.curves.new_zeros(batch, rest),
            tail=self.curves.new_zeros(batch, rest),
            noise_at=noise_at,
        )

    def forward(self, controls: Controls, state: VocoderState) -> tuple[Float[Tensor, "B S"], VocoderState]:
        """One hop of samples per hop of controls, and the state after them."""
        config = self.config
        fresh, phase = pulse_train(
            controls.hz,
            last_hz=torch.where(state.last_hz > 0, state.last_hz, controls.hz[:, 0]),
            phase=state.phase,
            hop=config.hop,
            sample_rate=config.sample_rate,
            max_hz=config.max_hz,
        )
        pulses = torch.cat([state.pulses, fresh], dim=1)
        hiss = noise(seed=config.noise_seed, start=state.noise_at, num_samples=pulses.shape[1], like=pulses)
        source = frames_of(pulses, n_fft=config.n_fft, hop=config.hop)
        hiss_source = frames_of(hiss[None], n_fft=config.n_fft, hop=config.hop)
        gain = controls.voicing[..., None] * (controls.harmonic @ self.curves).exp() * self.audible
        noise_gain = (controls.noisy @ self.curves).exp() * self.audible
        spectra = torch.polar(gain, controls.harmonic @ self.phases) * source + noise_gain * hiss_source
        samples, tail = overlap_add(spectra, tail=state.tail, hop=config.hop)
        return samples, VocoderState(
            last_hz=controls.hz[:, -1],
            phase=phase,
            pulses=pulses[:, fresh.shape[1] :],
            tail=tail,
            noise_at=state.noise_at + fresh.shape[1],
        )
