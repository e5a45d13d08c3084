"""The pocket codec: seven codes per 85.3 ms in three levels of rates 1:2:4, and a source-filter decoder.

The encoder reads log-mel bands and pitch of whole clips. The decoder predicts from the codes, hop by hop,
what the vocoder needs; of later frames it sees ``look_ahead_frames``. Phases and noise are made, not coded,
so that the codes carry only what a language model can know.

Axes: B batch, S samples, Q codebooks, T frames, N latent frames or hops, D width.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Generator, nn
from torch.nn import functional as F

from deeptalk.codec.excitation import NUM_NOISE_SAMPLES
from deeptalk.codec.flat import flatten, unflatten
from deeptalk.codec.losses import SpectralLoss, SpectralLossConfig
from deeptalk.codec.pitch import PitchRange, PitchTrack, track_pitch
from deeptalk.codec.quantiser import QuantiserConfig, ResidualQuantiser
from deeptalk.codec.spectrum import magnitude, mel_filters
from deeptalk.codec.vocoder import Controls, Vocoder, VocoderConfig, VocoderState
from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PocketCodecConfig:
    """Sizes and loss weights.

    ``hops_per_latent`` hops of the vocoder make a latent frame, ``quantiser.strides[0]`` of these a frame.
    A language model faster than real time waits for a frame of ``look_ahead_frames`` no longer than it takes
    to decode it.
    """

    hops_per_latent: int = 4

    encoder_width: int = 160
    encoder_layers: int = 3
    decoder_width: int = 192
    decoder_layers: int = 3
    fine_width: int = 128
    fine_layers: int = 2
    kernel: int = 7
    look_ahead_frames: int = 0
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    pitch: PitchRange = field(default_factory=PitchRange)
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    spectral: SpectralLossConfig = field(default_factory=SpectralLossConfig)
    pitch_weight: float = 2.0
    voicing_weight: float = 0.1
    commitment_weight: float = 0.25

    def __post_init__(self) -> None:
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ConfigError(f"kernel must be an odd number from 3 up, got {self.kernel}.")
        sizes = ("hops_per_latent", "encoder_width", "encoder_layers", "decoder_width", "decoder_layers")
        for name in (*sizes, "fine_width", "fine_layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.look_ahead_frames < 0:
            raise ConfigError(f"look_ahead_frames must be at least 0, got {self.look_ahead_frames}.")

    @classmethod
    def tiny(cls) -> "PocketCodecConfig":
        """The same clock and shape with a few thousand parameters."""
        return cls(
            encoder_width=24,
            encoder_layers=1,
            decoder_width=24,
            decoder_layers=1,
            fine_width=16,
            fine_layers=1,
            vocoder=VocoderConfig(num_bands=20),
            quantiser=QuantiserConfig(
                width=16, code_width=8, codebook_size=32, warmup_steps=3, num_seeds=256
            ),
            spectral=SpectralLossConfig(windows=(1024, 256), num_mels=(40, 10)),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PocketDecoderState:
    """What the decoder keeps between frames: the convolutions' left contexts, and the vocoder's state.

    ``num_early`` counts the frames to come whose hops tell of the time before the first frame.
    """

    contexts: tuple[Float[Tensor, "B _ _"], ...]
    vocoder: VocoderState
    num_early: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """What the decoder says of each hop; ``voicing`` is a logit."""

    hz: Float[Tensor, "B N"]
    voicing: Float[Tensor, "B N"]
    harmonic: Float[Tensor, "B N M"]
    noisy: Float[Tensor, "B N M"]

    def controls(self) -> Controls:
        """The same for the vocoder: unvoiced from a logit of -1 down, fully voiced from 1 up."""
        voicing = (0.5 + 0.5 * self.voicing).clamp(0.0, 1.0)
        return Controls(hz=self.hz, voicing=voicing, harmonic=self.harmonic, noisy=self.noisy)

    def after(self, num_hops: int) -> "Prediction":
        """Without the first hops."""
        return Prediction(
            hz=self.hz[:, num_hops:],
            voicing=self.voicing[:, num_hops:],
            harmonic=self.harmonic[:, num_hops:],
            noisy=self.noisy[:, num_hops:],
        )


class ConvNeXt(nn.Module):
    """Depthwise convolution over time and a two-layer network over width, added to the input."""

    def __init__(self, width: int, *, kernel: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 3 * width)
        self.shrink = nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Float[Tensor, "B N D"], padded: Float[Tensor, "B N2 D"]) -> Float[Tensor, "B N D"]:
        """``padded`` is x with kernel - 1 frames of context in all."""
        hidden = self.depthwise(padded.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.shrink(F.gelu(self.grow(self.norm(hidden))))


class PocketEncoder(nn.Module):
    """Log-mel bands and pitch -> latent; sees the future, so it runs on whole clips."""

    bands: Tensor

    def __init__(self, config: PocketCodecConfig) -> None:
        super().__init__()
        self.config = config
        vocoder, width, reach = config.vocoder, config.encoder_width, config.kernel // 2
        bands = mel_filters(
            num_mels=vocoder.num_bands,
            n_fft=vocoder.n_fft,
            sample_rate=vocoder.sample_rate,
            max_hz=vocoder.max_hz,
        )
        self.register_buffer("bands", bands, persistent=False)
        self.padding = (0, 0, reach, reach)
        self.enter = nn.Linear(config.hops_per_latent * (vocoder.num_bands + 2), width)
        self.blocks = nn.ModuleList(
            ConvNeXt(width, kernel=config.kernel, scale=1.0 / config.encoder_layers)
            for _ in range(config.encoder_layers)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.quantiser.width))

    def forward(self, waveform: Float[Tensor, "B S"], pitch: PitchTrack) -> Float[Tensor, "B D N"]:
        """The latent of all windows that ``waveform`` holds, whose pitch is given."""
        config = self.config
        spectrum = magnitude(waveform, n_fft=config.vocoder.n_fft, hop=config.vocoder.hop)
        mel = (spectrum @ self.bands).clamp(min=config.spectral.floor).log()
        height = (pitch.hz / config.pitch.min_hz).log2() * pitch.is_voiced
        features = torch.cat([mel / 2.0, height[..., None], pitch.strength[..., None]], dim=-1)
        x = self.enter(features.unflatten(1, (-1, config.hops_per_latent)).flatten(2))
        for block in self.blocks:
            x = block(x, F.pad(x, self.padding))
        return self.leave(x).transpose(1, 2)


class PocketDecoder(nn.Module):
    """Latent -> vocoder controls, causal: a look-ahead is a delay of what it gives."""

    def __init__(self, config: PocketCodecConfig) -> None:
        super().__init__()
        self.config = config
        width, fine, kernel = config.decoder_width, config.fine_width, config.kernel
        scale = 1.0 / (config.decoder_layers + config.fine_layers)
        self.enter = nn.Linear(config.quantiser.width, width)
        self.coarse = nn.ModuleList(
            ConvNeXt(width, kernel=kernel, scale=scale) for _ in range(config.decoder_layers)
        )
        self.refine = nn.Linear(width, config.hops_per_latent * fine)
        self.fine = nn.ModuleList(
            ConvNeXt(fine, kernel=kernel, scale=scale) for _ in range(config.fine_layers)
        )
        self.norm = nn.LayerNorm(fine)
        self.leave = nn.Linear(fine, 2 * config.vocoder.num_bands + 2)

    def start(self, batch: int) -> tuple[Float[Tensor, "B _ _"], ...]:
        """Empty left contexts of all blocks."""
        config = self.config
        widths = [config.decoder_width] * config.decoder_layers + [config.fine_width] * config.fine_layers
        return tuple(self.enter.weight.new_zeros(batch, config.kernel - 1, width) for width in widths)

    def forward(
        self, latent: Float[Tensor, "B D N"], contexts: tuple[Float[Tensor, "B _ _"], ...]
    ) -> tuple[Prediction, tuple[Float[Tensor, "B _ _"], ...]]:
        """The controls of each hop, and the contexts for the next call."""
        x = self.enter(latent.transpose(1, 2))
        kept = []
        for index, block in enumerate([*self.coarse, *self.fine]):
            if index == len(self.coarse):
                x = self.refine(x).unflatten(-1, (self.config.hops_per_latent, -1)).flatten(1, 2)
            padded = torch.cat([contexts[index], x], dim=1)
            kept.append(padded[:, 1 - self.config.kernel :])
            x = block(x, padded)
        out = self.leave(self.norm(x))
        limits = self.config.pitch
        octaves = torch.sigmoid(out[..., 0]) * math.log2(limits.max_hz / limits.min_hz)
        harmonic, noisy = (out[..., 2:] - 2.0).clamp(-14.0, 5.0).chunk(2, dim=-1)
        hz = limits.min_hz * octaves.exp2()
        return Prediction(hz=hz, voicing=out[..., 1], harmonic=harmonic, noisy=noisy), tuple(kept)


class PocketCodec(nn.Module):
    """A small speech codec of SNAC's clock."""

    def __init__(self, config: PocketCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PocketEncoder(config)
        self.quantiser = ResidualQuantiser(config.quantiser)
        self.decoder = PocketDecoder(config)
        self.vocoder = Vocoder(config.vocoder)
        self.spectral = SpectralLoss(config.spectral, sample_rate=config.vocoder.sample_rate)
        strides = config.quantiser.strides
        self.rates = tuple(strides[0] // stride for stride in strides)
        self.sample_rate = config.vocoder.sample_rate
        self.samples_per_frame = config.vocoder.hop * config.hops_per_latent * strides[0]
        self.num_codebooks = sum(self.rates)
        self.codebook_size = config.quantiser.codebook_size
        self.look_ahead_frames = config.look_ahead_frames
        self.phone_heads: nn.ModuleList | None = None

    def learn_phones(self, num_phones: int) -> None:
        """Add a network for all levels but the finest that tells the phones from its codes and coarser ones.

        So what a language model predicts first says what is spoken, as in codecs with a semantic codebook
        (Mimi, arXiv 2410.00037, section 3.3.2). The networks are only for training and never saved.
        """
        width = self.config.quantiser.width
        self.phone_heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_phones))
            for _ in self.config.quantiser.strides[:-1]
        )

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.samples_per_frame

    @torch.no_grad()
    def encode(self, waveform: Float[Tensor, "B S"]) -> Int[Tensor, "B Q T"]:
        """The codes of whole clips; the last frame is filled with silence."""
        latent, _ = self._analyse(F.pad(waveform, (0, -waveform.shape[-1] % self.samples_per_frame)))
        return flatten(self.quantiser.encode(latent))

    def decode(self, codes: Int[Tensor, "B Q T"]) -> Float[Tensor, "B S"]:
        """The samples of whole clips."""
        return self.decode_step(codes, self.decode_start(len(codes)), is_last=True)[0]

    def decode_start(self, batch: int = 1) -> PocketDecoderState:
        """The state before the first frame."""
        return PocketDecoderState(
            contexts=self.decoder.start(batch),
            vocoder=self.vocoder.start(batch),
            num_early=self.look_ahead_frames,
        )

    @torch.no_grad()
    def decode_step(
        self, codes: Int[Tensor, "B Q T"], state: PocketDecoderState, *, is_last: bool = False
    ) -> tuple[Float[Tensor, "B S"], PocketDecoderState]:
        """The samples that no later frame can change, with ``is_last`` all; and the state after them."""
        num_new = codes.shape[-1] + (self.look_ahead_frames if is_last else 0)
        if num_new == 0:
            return state.vocoder.tail.new_zeros(len(codes), 0), state
        latent = self._latent(codes.to(self.decoder.enter.weight.device), is_last=is_last)
        prediction, contexts = self.decoder(latent, state.contexts)
        num_early = min(state.num_early, num_new)
        samples, vocoder = state.vocoder.tail.new_zeros(len(codes), 0), state.vocoder
        if num_new > num_early:
            ready = prediction.after(num_early * self._hops_per_frame)
            samples, vocoder = self.vocoder(ready.controls(), vocoder)
        return samples, PocketDecoderState(
            contexts=contexts, vocoder=vocoder, num_early=state.num_early - num_early
        )

    def training_losses(
        self,
        waveform: Float[Tensor, "B S"],
        *,
        phones: Int[Tensor, "B N"] | None = None,
        generator: Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """``loss`` and its parts for crops of whole frames; in training mode the codebooks learn too.

        The vocoder gets the measured pitch and voicing, so that harmonics fall on harmonics and only noise
        makes hiss; the predicted pitch is compared with it in octaves. The first frame, which has no past,
        doesn't count. ``phones`` of the latent frames, negative where unknown, are for `learn_phones`; their
        cross-entropy is no part of ``loss``.
        """
        first = self.samples_per_frame
        if waveform.shape[-1] % first or waveform.shape[-1] < 2 * first:
            raise ConfigError(
                f"a crop must be two or more frames of {first} samples, got {waveform.shape[-1]} samples."
            )
        latent, pitch = self._analyse(waveform)
        quantised = self.quantiser(latent, generator=generator)
        said, _ = self.decoder(self._with_end(quantised.latent), self.decoder.start(len(waveform)))
        said = said.after(self.look_ahead_frames * self._hops_per_frame)
        voiced = pitch.is_voiced.to(waveform.dtype)
        pitch_loss = ((said.hz / pitch.hz).log2().abs() * voiced).sum() / voiced.sum().clamp(min=1)
        voicing_loss = F.binary_cross_entropy_with_logits(said.voicing, voiced)
        noise_at = int(torch.randint(NUM_NOISE_SAMPLES, (1,), generator=generator, device=generator.device))
        made, _ = self.vocoder(
            Controls(hz=pitch.hz, voicing=voiced, harmonic=said.harmonic, noisy=said.noisy),
            self.vocoder.start(len(waveform), noise_at=noise_at),
        )
        losses = self.spectral(made[:, first:], waveform[:, first:])
        losses |= {"pitch": pitch_loss, "voicing": voicing_loss, "commitment": quantised.commitment}
        losses["phones"] = self._phone_loss(quantised.stages, phones)
        weights = {
            "spectral": 1.0,
            "pitch": self.config.pitch_weight,
            "voicing": self.config.voicing_weight,
            "commitment": self.config.commitment_weight,
        }
        return {"loss": torch.stack([w * losses[name] for name, w in weights.items()]).sum(), **losses}

    def _phone_loss(
        self, stages: list[Float[Tensor, "B D N"]], phones: Int[Tensor, "B N"] | None
    ) -> Float[Tensor, ""]:
        if self.phone_heads is None or phones is None:
            return stages[0].new_zeros(())
        known = phones >= 0
        losses = [
            F.cross_entropy(head(stage.transpose(1, 2)[known]), phones[known], reduction="sum")
            for head, stage in zip(self.phone_heads, stages, strict=False)
        ]
        return torch.stack(losses).mean() / known.sum().clamp(min=1)

    @property
    def _hops_per_frame(self) -> int:
        return self.samples_per_frame // self.config.vocoder.hop

    def _latent(self, codes: Int[Tensor, "B Q T"], *, is_last: bool) -> Float[Tensor, "B D N"]:
        """What the codes stand for, and with ``is_last`` the nothing that follows."""
        if codes.shape[-1]:
            latent = self.quantiser.decode(unflatten(codes, rates=self.rates))
        else:
            latent = self.decoder.enter.weight.new_zeros(len(codes), self.config.quantiser.width, 0)
        return self._with_end(latent) if is_last else latent

    def _with_end(self, latent: Float[Tensor, "B D N"]) -> Float[Tensor, "B D N2"]:
        """The nothing behind the last frame that the look-ahead sees."""
        return F.pad(latent, (0, self.look_ahead_frames * self.config.quantiser.strides[0]))

    def _analyse(self, waveform: Float[Tensor, "B S"]) -> tuple[Float[Tensor, "B D N"], PitchTrack]:
        """The latent of a clip of whole frames, and the pitch where each window ends."""
        vocoder, limits = self.config.vocoder, self.config.pitch
        windows = F.pad(waveform, (0, vocoder.n_fft - vocoder.hop))
        early = limits.window // 2 - vocoder.n_fft
        with torch.no_grad():
            pitch = track_pitch(
                F.pad(waveform, (early, limits.window - vocoder.hop - early)),
                sample_rate=vocoder.sample_rate,
                hop=vocoder.hop,
                limits=limits,
            )
        return self.encoder(windows, pitch), pitch
