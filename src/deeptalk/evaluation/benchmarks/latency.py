"""How long a model takes to answer, part by part, in this process: the paper's first chunk and its steps.

A question lies in memory as a whole; the clock runs from there to the first samples of the answer. The parts
of that time are measured one after the other, so that they add up to it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from deeptalk.audio import log_mel
from deeptalk.decoding import DecodingOptions, LoadedModel
from deeptalk.decoding.speech import Voicing
from deeptalk.evaluation.benchmarks.intervals import median_interval, nearest_rank
from deeptalk.shapes import Float, Tensor
from deeptalk.streams import Turn, encode_prompt

PARTS = ("mel", "encoder", "prefill", "steps", "codec", "other")
"""Of the time to the first chunk: spectrogram; encoder, adapter; the prompt; decoding; samples; the rest."""

PHASES = ("both", "speech", "text")
"""Which rows a step decodes: text and speech, speech alone, text alone."""

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

PAPER = {"first_chunk": 341.7, "step": 20.5, "network": 106.2, "end_to_end": 436.2, "real_time_factor": 0.24}
"""Milliseconds of the paper (half duplex, turns ended by hand, one 80 GB GPU, mean of more than ten), and by
arithmetic its real-time factor. Its parts don't add up: 436.2 − 341.7 is 94.5."""

EXCLUDED = (
    "loading the model, the end of the user's turn being found, the network, and the loudspeaker; "
    "the question is in memory as a whole"
)
"""What is not in the figures of this module."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedAnswer:
    """One answer, in seconds; ``first_chunk`` is infinite for one without sound.

    ``parts`` add up to ``first_chunk``; ``steps`` are of the whole answer by phase; ``real_time_factor`` is
    all its time over that of its sound.
    """

    first_chunk: float
    parts: Mapping[str, float] = field(default_factory=dict)
    num_steps: int = 0
    steps: Mapping[str, Sequence[float]] = field(default_factory=dict)
    real_time_factor: float = math.inf
    question_seconds: float = 0.0


def time_answer(
    loaded: LoadedModel,
    samples: Float[Tensor, "S"],
    *,
    now: Callable[[], float],
    voice: str | None = None,
    options: DecodingOptions | None = None,
    frames_per_chunk: int = 2,
) -> TimedAnswer:
    """Answer a question at 16 kHz and note the time of every part; ``now`` gives seconds."""
    model, codec = loaded.model, loaded.codec
    assert model.tokenizer is not None
    begun = now()
    mel = log_mel(samples[None], spec=model.mel).to(model.device)
    heard = now()
    with torch.inference_mode():
        frames = model.encode_speech(mel, torch.tensor([mel.shape[-1]], device=model.device))[0]
    encoded = now()
    turn = Turn(role="user", num_speech_frames=len(frames))
    mode = f"speaker:{voice or loaded.voices[0]}"
    prompt = encode_prompt([turn], tokenizer=model.tokenizer, layout=loaded.engine.layout, mode=mode)
    asked = now()
    state = loaded.engine.prefill([prompt], speech=[frames], options=options or DecodingOptions())
    filled = now()
    voicing = Voicing(codec, model.tokenizer, frames_per_chunk=frames_per_chunk)
    steps: dict[str, list[float]] = {phase: [] for phase in PHASES}
    stepping = speaking = 0.0
    first: float | None = None
    parts: dict[str, float] = {}
    num_steps = 0
    while not state.is_finished:
        phase = "both" if state.text_rows and state.speech_rows else "speech" if state.speech_rows else "text"
        before = now()
        [frame] = loaded.engine.step(state)
        stepped = now()
        assert frame is not None
        piece = voicing.take(frame, state.answers[0])
        said = now()
        steps[phase].append(stepped - before)
        stepping, speaking = stepping + stepped - before, speaking + said - stepped
        if first is None:
            num_steps += 1
            if len(piece.samples):
                first = said - begun
                parts = {"mel": heard - begun, "encoder": encoded - heard, "prefill": filled - asked}
                parts |= {"steps": stepping, "codec": speaking}
                parts["other"] = first - sum(parts.values())
    if first is None:
        return TimedAnswer(first_chunk=math.inf, steps=steps, question_seconds=len(samples) / 16_000)
    sound = voicing.num_samples / codec.sample_rate
    return TimedAnswer(
        first_chunk=first,
        parts=parts,
        num_steps=num_steps,
        steps=steps,
        real_time_factor=(now() - begun) / sound,
        question_seconds=len(samples) / 16_000,
    )


def summary(values: Sequence[float], *, seed: int = 0, scale: float = 1000.0) -> dict[str, Any]:
    """Percentiles and mean of some times, ``n`` of them, and the 95 % interval of the median (bootstrap).

    A percentile is one of the values (nearest rank): where failed runs are infinite it is null, as is the
    mean. Seconds become milliseconds unless ``scale`` is another.
    """
    names = (*PERCENTILES, "mean", "low", "high")
    if not values:
        return {"n": 0, **dict.fromkeys(names)}
    found = {name: nearest_rank(values, share) for name, share in PERCENTILES.items()}
    low, high = median_interval(values, seed=seed)
    found |= {"mean": sum(values) / len(values), "low": low, "high": high}
    return {"n": len(values), **{k: scale * v if math.isfinite(v) else None for k, v in found.items()}}


def engine_figures(answers: Sequence[TimedAnswer], *, seed: int = 0) -> dict[str, Any]:
    """The figures of answers that were given one after the other; the first one is cold and stands apart."""
    cold, warm = answers[0], answers[1:]
    spoken = [one for one in warm if math.isfinite(one.first_chunk)]
    lengths = [one.question_seconds for one in answers]
    return {
        "first_chunk_ms": summary([one.first_chunk for one in warm], seed=seed),
        "cold_first_chunk_ms": 1000 * cold.first_chunk if math.isfinite(cold.first_chunk) else None,
        "split_ms": {part: summary([one.parts[part] for one in spoken], seed=seed) for part in PARTS},
        "steps_to_first_chunk": nearest_rank([one.num_steps for one in spoken], 0.5) if spoken else None,
        "step_ms": {
            phase: summary([each for one in warm for each in one.steps[phase]], seed=seed) for phase in PHASES
        },
        "real_time_factor": summary([one.real_time_factor for one in warm], seed=seed, scale=1.0),
        "question_seconds": {"shortest": min(lengths), "longest": max(lengths)},
        "num_failed": sum(not math.isfinite(one.first_chunk) for one in answers),
    }
