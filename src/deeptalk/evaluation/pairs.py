"""Which of a model's spoken answers make a pair, and what is told of them (method.md, section 11.2)."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.metrics import word_errors
from deeptalk.evaluation.normalize import plain_words
from deeptalk.shapes import Int, Tensor
from deeptalk.streams.prompt import READ_ALOUD

Instruction = Literal["repeat", "paraphrase"]
RewardReference = Literal["own", "target"]

INSTRUCTIONS: Mapping[Instruction, str] = {
    "repeat": READ_ALOUD,
    "paraphrase": "Say this in other words: {text}",
}
"""What the user asks for; the paper says paraphrase, the authors' code repeats."""

MOST_DRIFT = 0.1
"""A change of the mean length beyond this share is flagged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSettings:
    """How answers are sampled, judged and paired.

    Attributes:
        instruction: what the user asks for, `repeat` or `paraphrase`.
        reference: what a transcript is compared with, the model's `own` text or the `target` of the prompt.
        num_samples: spoken answers to each prompt, all of one text, the likeliest.
        temperature, top_k: how codes are drawn.
        max_frames: no answer is longer, and one that had to be ended there never wins.
        max_text_tokens: a text that hasn't ended by then is discarded.
        max_text_wer: how far the own text of a repetition may be from its target.
        max_win_wer: the worst winner.
        min_gap: by how much the loser's word error rate is higher.
        max_length_difference: of the longer of the two; more is discarded.
        max_ratio: a loser that was ended at `max_frames` is cut at so many times the winner's frames.
        precision: of the reference log-probabilities; that of the training to come.
    """

    instruction: Instruction = "repeat"
    reference: RewardReference = "own"
    num_samples: int = 3
    temperature: float = 1.0
    top_k: int = 10
    max_frames: int = 142
    max_text_tokens: int = 160
    max_text_wer: float = 0.0
    max_win_wer: float = 0.2
    min_gap: float = 0.1
    max_length_difference: float = 0.3
    max_ratio: float = 2.0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("instruction", get_args(Instruction)),
            ("reference", get_args(RewardReference)),
            ("precision", ("fp32", "bf16")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        if self.num_samples < 2:
            raise ConfigError(f"num_samples must be at least 2, got {self.num_samples}.")
        if self.max_ratio < 1:
            raise ConfigError(f"max_ratio must be at least 1, got {self.max_ratio}.")
        if self.instruction == "paraphrase" and self.reference == "target":
            raise ConfigError("a paraphrase has other words than its target; take reference=own.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """One spoken answer and what was understood; one that hasn't ended met the limit of frames."""

    codes: Int[Tensor, "L Q"]
    has_ended: bool
    transcript: str
    wer: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PairReport:
    """What became of the prompts. Lengths are means in frames, word error rates are shares.

    `margin_length_correlation` is that of the gap between the word error rates with the frames by which the
    loser is longer; None where there are too few pairs to tell. `mean_frames` is over all samples.
    """

    num_prompts: int
    num_pairs: int
    discarded: Mapping[str, int]
    num_cut: int
    mean_frames: float | None
    mean_frames_win: float | None
    mean_frames_lose: float | None
    mean_wer_win: float | None
    mean_wer_lose: float | None
    margin_length_correlation: float | None


def word_error_rate(said: str, reference: str) -> float:
    """Word errors over the words of the reference; `DataError` where that has none."""
    words = plain_words(reference)
    if not words:
        raise DataError("no words to say")
    return word_errors(plain_words(said), words) / len(words)


def check_text(text: str, target: str, settings: PairSettings) -> None:
    """`DataError` with a countable reason where the model's own text is of no use."""
    deviation = word_error_rate(text, target) if settings.instruction == "repeat" else 0.0
    if deviation > settings.max_text_wer:
        raise DataError("own text deviates from the target")
    if not plain_words(text):
        raise DataError("no words to say")


def choose_pair(samples: Sequence[Sample], settings: PairSettings) -> tuple[Sample, Sample]:
    """The winner and the loser, cut where it ran on; `DataError` with a countable reason where there is none.

    The winner has the lowest word error rate of those that ended by themselves, the loser the highest of all.
    """
    able = [sample for sample in samples if sample.has_ended and 0 < len(sample.codes) <= settings.max_frames]
    if not able:
        raise DataError("no sample has ended")
    win = min(able, key=lambda sample: sample.wer)
    lose = max(samples, key=lambda sample: sample.wer)
    if win.wer > settings.max_win_wer:
        raise DataError("the best is not understood")
    if lose.wer <= win.wer:
        raise DataError("a tie")
    if lose.wer - win.wer < settings.min_gap:
        raise DataError("gap too small")
    if not lose.has_ended:
        return win, replace(lose, codes=lose.codes[: int(settings.max_ratio * len(win.codes))])
    lengths = len(win.codes), len(lose.codes)
    if abs(lengths[0] - lengths[1]) / max(lengths) > settings.max_length_difference:
        raise DataError("lengths differ")
    return win, lose


def summarise(entries: Sequence[Mapping[str, Any]]) -> PairReport:
    """The report on a builder's entries: one for each prompt, with the frames of its samples, and with a
    `pair` or the `reason` why there is none."""
    pairs = [entry["pair"] for entry in entries if entry["pair"] is not None]
    wins, losses = ([pair[side] for pair in pairs] for side in ("win", "lose"))
    gaps = [lose["wer"] - win["wer"] for win, lose in zip(wins, losses, strict=True)]
    longer = [len(lose["codes"]) - len(win["codes"]) for win, lose in zip(wins, losses, strict=True)]
    return PairReport(
        num_prompts=len(entries),
        num_pairs=len(pairs),
        discarded=dict(Counter(entry["reason"] for entry in entries if entry["pair"] is None)),
        num_cut=sum(lose["is_cut"] for lose in losses),
        mean_frames=_mean([frames for entry in entries for frames in entry["frames"]]),
        mean_frames_win=_mean([len(win["codes"]) for win in wins]),
        mean_frames_lose=_mean([len(lose["codes"]) for lose in losses]),
        mean_wer_win=_mean([win["wer"] for win in wins]),
        mean_wer_lose=_mean([lose["wer"] for lose in losses]),
        margin_length_correlation=_correlation(gaps, longer),
    )


def length_drift(report: PairReport, before: PairReport) -> float | None:
    """By which share answers are longer than those of a model before it, to the same prompts."""
    if not report.mean_frames or not before.mean_frames:
        return None
    return report.mean_frames / before.mean_frames - 1


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return statistics.correlation(one, other)
