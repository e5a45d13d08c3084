"""A reply while it is spoken: words on the screen, samples to the loudspeaker and into a WAV file."""

from collections.abc import Iterable
from pathlib import Path

import torch

from deeptalk.audio import save_waveform
from deeptalk.cli.output import console, print_json
from deeptalk.cli.sound import Speaker
from deeptalk.decoding import Reply, Spoken


def speak(
    pieces: Iterable[Spoken], *, path: Path, sample_rate: int, is_json: bool, speaker: Speaker | None = None
) -> Path | None:
    """Show and play the pieces as they come and save their sound; None where a reply has no sound."""
    screen = console()
    sounds: list[torch.Tensor] = []
    if not is_json:
        screen.print("  answer ", end="")
    for piece in pieces:
        if not is_json:
            screen.print(piece.text, end="")
        if speaker is not None:
            speaker.play(piece.samples, sample_rate=sample_rate)
        sounds.append(piece.samples)
    if not is_json:
        screen.print()
    samples = torch.cat(sounds) if sounds else torch.zeros(0)
    if not len(samples):
        return None
    save_waveform(path, samples, sample_rate=sample_rate)
    return path


def tell(question: str, audio: Path | None, reply: Reply, *, is_json: bool) -> None:
    """The figures of a reply that has ended: one JSON object, or one line for people."""
    if is_json:
        print_json(
            {
                "input": question,
                "text": reply.text,
                "audio": str(audio) if audio else None,
                "num_frames": reply.num_frames,
                "time_to_first_audio_ms": _rounded(reply.time_to_first_audio_ms, 1),
                "real_time_factor": _rounded(reply.real_time_factor, 4),
                "finish_reason": reply.finish_reason,
            }
        )
        return
    if audio is None:
        console().print(f"  no speech ({reply.finish_reason})", style="dim")
        return
    first, factor = reply.time_to_first_audio_ms, reply.real_time_factor
    figures = f"first audio after {first:.0f} ms · real-time factor {factor:.2f} · {audio}"
    console().print(
        f"  {figures}" + ("" if reply.finish_reason == "stop" else f" · {reply.finish_reason}"), style="dim"
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
