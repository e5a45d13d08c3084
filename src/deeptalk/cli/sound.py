"""Loudspeaker and microphone, where the machine has them (``pip install 'deeptalk[mic]'``)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from deeptalk.audio import resample
from deeptalk.errors import AudioError
from deeptalk.shapes import Float, Tensor

HEARD_RATE = 16_000


class Speaker:
    """The default loudspeaker; it opens with the first samples and plays while more are made."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._stream: Any = None

    def play(self, samples: Float[Tensor, "S"], *, sample_rate: int) -> None:
        """Hand samples over; waits only while the device's buffer is full."""
        if self._stream is None:
            self._stream = self._device.OutputStream(samplerate=sample_rate, channels=1, dtype="float32")
            self._stream.start()
        self._stream.write(samples.detach().cpu().float().clamp(-1.0, 1.0).numpy()[:, None])

    def close(self) -> None:
        """Play what is left and let the device go."""
        if self._stream is not None:
            self._stream.stop()
            self._stream.close()


@contextmanager
def open_speaker() -> Iterator[Speaker]:
    """The default loudspeaker; AudioError where there is none."""
    device = _sound_device("output")
    speaker = Speaker(device)
    try:
        yield speaker
    except device.PortAudioError as error:
        raise AudioError(f"loudspeaker: {error}") from error
    finally:
        speaker.close()


def record_turns() -> Iterator[Float[Tensor, "S"]]:
    """What is said between two presses of Enter at 16 kHz, turn after turn, until the input ends (Ctrl-D)."""
    device = _sound_device("input")
    rate = int(device.query_devices(kind="input")["default_samplerate"])
    while True:
        try:
            _wait_for_enter("Press Enter, speak, and press Enter again (Ctrl-D leaves). ")
            blocks: list[Tensor] = []

            def keep(block: Any, *_: Any, blocks: list[Tensor] = blocks) -> None:
                blocks.append(torch.from_numpy(block[:, 0].copy()))

            with device.InputStream(samplerate=rate, channels=1, dtype="float32", callback=keep):
                _wait_for_enter("Listening … ")
        except EOFError:
            return
        except device.PortAudioError as error:
            raise AudioError(f"microphone: {error}") from error
        samples = torch.cat(blocks) if blocks else torch.zeros(0)
        yield resample(samples, source_rate=rate, target_rate=HEARD_RATE)


def _wait_for_enter(prompt: str) -> None:
    print(prompt, end="", file=sys.stderr, flush=True)
    input()


def _sound_device(kind: str) -> Any:
    name = "microphone" if kind == "input" else "loudspeaker"
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise AudioError(
            f"{name}: sound is not available here ({reason}); pip install 'deeptalk[mic]' and, on Debian, "
            "apt-get install libportaudio2."
        ) from error
    try:
        sounddevice.query_devices(kind=kind)
    except (ValueError, sounddevice.PortAudioError) as error:
        raise AudioError(f"{name}: this machine has none ({error}).") from error
    return sounddevice
