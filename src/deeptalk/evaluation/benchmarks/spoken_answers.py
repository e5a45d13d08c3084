"""What the sound of answers has cost beside their text: diagnostics of spoken question answering."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeptalk.evaluation.benchmarks.error_rates import score_transcripts
from deeptalk.evaluation.benchmarks.intervals import paired_bootstrap
from deeptalk.evaluation.benchmarks.normalizers import Normalizer
from deeptalk.evaluation.benchmarks.qa_rules import rule
from deeptalk.evaluation.benchmarks.question_sets import QaItem
from deeptalk.evaluation.benchmarks.records import read_json
from deeptalk.evaluation.metrics import Score, share_score


@dataclass(frozen=True, kw_only=True, slots=True)
class SpokenLine:
    """A line of ``answers.jsonl``, as far as it matters here; None for what is missing."""

    text: str | None
    transcript: str | None
    seconds: float | None


def read_spoken(path: Path) -> dict[str, SpokenLine]:
    """The answers of a run by id."""
    lines = {}
    for row in read_json(path):
        values = row.values
        lines[row.text("id")] = SpokenLine(
            text=values.get("text"), transcript=values.get("transcript"), seconds=values.get("seconds")
        )
    return lines


def own_text_errors(
    lines: Mapping[str, SpokenLine], normalizer: Normalizer, *, seed: int = 0
) -> Score | None:
    """What was heard against what the model wrote, over the corpus; None where nothing was written.

    Answers in whose text nothing is left to say don't count; one without sound has lost all its words.
    """
    texts = {name: line.text for name, line in lines.items() if line.text and normalizer.units(line.text)}
    if not texts:
        return None
    heard = {name: lines[name].transcript or "" for name in texts}
    return score_transcripts(texts, heard, normalizer).corpus_score(seed=seed)


def speech_costs(
    items: Sequence[QaItem],
    lines: Mapping[str, SpokenLine],
    *,
    rule_name: str,
    normalizer: Normalizer,
    seed: int = 0,
) -> dict[str, Any]:
    """Speech minus text on the same questions, in points, by a rule; and what the answers sound like.

    ``gap`` draws the questions in pairs; ``own_text`` is the error rate of `own_text_errors`; ``with_sound``
    the share of all questions whose answer has sound; ``seconds_per_answer`` the mean over these.
    """
    is_right, nothing = rule(rule_name), SpokenLine(text=None, transcript=None, seconds=None)
    kept = [lines.get(item.id, nothing) for item in items]
    text, speech = (
        [(float(is_right(given or "", item.answers)), 1.0) for item, given in zip(items, side, strict=True)]
        for side in ([line.text for line in kept], [line.transcript for line in kept])
    )
    gap = paired_bootstrap(text, speech, seed=seed).in_points()
    lengths = [line.seconds for line in kept if line.seconds]
    own = own_text_errors({item.id: line for item, line in zip(items, kept, strict=True)}, normalizer)
    return {
        "rule": rule_name,
        "gap": {"value": gap.value, "low": gap.low, "high": gap.high},
        "own_text": own and {"name": own.name, **own.to_dict()},
        "with_sound": share_score("with_sound", len(lengths), len(items)).to_dict(),
        "seconds_per_answer": sum(lengths) / len(lengths) if lengths else None,
    }
