"""The encoder's streaming twin: mel in, encoder frames out, block by block, equal to the offline form."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from deeptalk.errors import AudioError, ConfigError
from deeptalk.model.encoder import MEL_FRAMES_PER_FRAME, SpeechEncoder, block_mask
from deeptalk.shapes import Float, Tensor

# Frame u of the second convolution sees 2u - 1 … 2u + 1 of the first, that sees one mel frame more on each.
LEFT_CONTEXT, RIGHT_CONTEXT = 2, 1


@dataclass(slots=True, eq=False)
class KeyValueWindow:
    """Keys and values of the last ``num_kept`` frames of each layer; of all for None."""

    num_kept: int | None
    keys: list[Tensor]
    values: list[Tensor]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, **stock: Any) -> tuple[Tensor, Tensor]:
        """Add the new frames of one layer; the kept past and the new ones. ``stock`` is for other caches."""
        if layer_idx < len(self.keys):
            keys = torch.cat([self.keys[layer_idx], keys], dim=2)
            values = torch.cat([self.values[layer_idx], values], dim=2)
            self.keys[layer_idx], self.values[layer_idx] = keys, values
        else:
            self.keys.append(keys)
            self.values.append(values)
        return keys, values

    def trim(self) -> None:
        """Forget what no later frame may see."""
        if self.num_kept is None:
            return
        for kept in (self.keys, self.values):
            for layer, past in enumerate(kept):
                kept[layer] = past[:, :, max(0, past.shape[2] - self.num_kept) :]

    @property
    def num_frames(self) -> int:
        """Frames remembered now."""
        return self.keys[0].shape[2] if self.keys else 0


class EncoderStream:
    """Encode one clip while it is spoken; a block leaves when one mel frame behind it has arrived.

    ``push`` and ``finish`` together give the frames of ``SpeechEncoder.forward`` for any chunking.
    """

    def __init__(self, encoder: SpeechEncoder) -> None:
        settings = encoder.settings
        if settings.mode != "chunked":
            raise ConfigError(
                f"Only an encoder of mode chunked can stream, this one has mode {settings.mode!r}."
            )
        self.encoder = encoder
        weight = encoder.conv1.weight
        self.pending = weight.new_zeros(1, settings.num_mels, LEFT_CONTEXT)
        self.num_mel_frames, self.num_frames = 0, 0
        kept = None if settings.left_chunks is None else settings.left_chunks * settings.chunk_frames
        self.store = KeyValueWindow(num_kept=kept, keys=[], values=[])
        self.is_finished = False

    @torch.no_grad()
    def push(self, mel: Float[Tensor, "M F"]) -> Float[Tensor, "U2 D2"]:
        """Take further mel frames; the encoder frames of every block that they complete."""
        self._take(mel)
        chunk = self.encoder.settings.chunk_frames
        ready = (self.num_mel_frames - RIGHT_CONTEXT) // MEL_FRAMES_PER_FRAME - self.num_frames
        return self._encode(max(0, ready // chunk * chunk), is_last=False)

    @torch.no_grad()
    def finish(self) -> Float[Tensor, "U2 D2"]:
        """The frames that are left, the last block cut to the clip's end; then nothing may be pushed."""
        self._take(self.pending.new_zeros(self.pending.shape[1], 0))
        self.is_finished = True
        total = -(-self.num_mel_frames // MEL_FRAMES_PER_FRAME)
        return self._encode(total - self.num_frames, is_last=True)

    def _take(self, mel: Tensor) -> None:
        settings = self.encoder.settings
        if self.is_finished:
            raise AudioError("This encoder stream has finished; make a new one for the next clip.")
        if mel.ndim != 2 or mel.shape[0] != settings.num_mels:
            raise ConfigError(f"push takes mel [{settings.num_mels}, F], got {list(mel.shape)}.")
        most = MEL_FRAMES_PER_FRAME * settings.max_positions
        if self.num_mel_frames + mel.shape[1] > most:
            raise AudioError(
                f"A clip may have {most} mel frames ({most / 100:g} s) at most; begin a new stream."
            )
        self.num_mel_frames += mel.shape[1]
        self.pending = torch.cat([self.pending, mel[None].to(self.pending)], dim=2)

    def _encode(self, count: int, *, is_last: bool) -> Tensor:
        encoder, start = self.encoder, self.num_frames
        if count == 0:
            return self.pending.new_zeros(0, encoder.settings.d_model)
        hidden = encoder.place(self._convolve(count, is_last=is_last), start=start)
        hidden, _ = encoder.attend(hidden, mask=self._mask(start, count), store=self.store)
        self.store.trim()
        self.num_frames += count
        self.pending = self.pending[:, :, MEL_FRAMES_PER_FRAME * count :]
        return encoder.layer_norm(hidden)[0]

    def _convolve(self, count: int, *, is_last: bool) -> Tensor:
        """Both convolutions over ``count`` frames, zero before the clip's start and behind its end."""
        encoder = self.encoder
        wanted = MEL_FRAMES_PER_FRAME * count + LEFT_CONTEXT + RIGHT_CONTEXT
        mel = self.pending[:, :, :wanted]
        mel = F.pad(mel, (0, wanted - mel.shape[2]))
        hidden = F.gelu(F.conv1d(mel, encoder.conv1.weight, encoder.conv1.bias))
        if self.num_frames == 0:
            hidden[:, :, 0] = 0.0
        if is_last:
            first = MEL_FRAMES_PER_FRAME * self.num_frames - 1
            hidden[:, :, max(0, self.num_mel_frames - first) :] = 0.0
        conv2 = encoder.conv2
        return F.gelu(F.conv1d(hidden, conv2.weight, conv2.bias, stride=MEL_FRAMES_PER_FRAME)).transpose(1, 2)

    def _mask(self, start: int, count: int) -> Tensor | None:
        settings = self.encoder.settings
        if count <= settings.chunk_frames:  # one block sees all that is kept
            return None
        device = self.pending.device
        queries = torch.arange(start, start + count, device=device)
        keys = torch.arange(start - self.store.num_frames, start + count, device=device)
        seen = block_mask(queries, keys, chunk_frames=settings.chunk_frames, left_chunks=settings.left_chunks)
        return seen[None, None]
