"""Results of runs as `deeptalk.cli.varied` writes them, without training anything."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeptalk.cli.varied import START, results_file, stages_of
from deeptalk.evaluation.metrics import share_score
from deeptalk.training.parts import TextPart

QUESTIONS = [f"facts-{number}" for number in range(40)]
ROWS = {
    "text_to_text": "text_to_text/all",
    "speech_to_text": "speech_to_text/all",
    "speech_to_speech/bigram": "speech_to_speech/bigram",
}


def measured(right: Mapping[str, int]) -> dict[str, Any]:
    """Figures of a stage that answers the first so many questions of every row right."""
    scores = {ROWS[row]: share_score("", number, len(QUESTIONS)).to_dict() for row, number in right.items()}
    if "speech_to_speech/bigram" in right:
        scores["read_aloud_wer/bigram"] = {
            "value": 20.0, "unit": "% WER", "count": 40, "total": 200, "low": 15.0, "high": 25.0,
        }  # fmt: skip
    verdicts = {row: {id: n < number for n, id in enumerate(QUESTIONS)} for row, number in right.items()}
    return {"scores": scores, "verdicts": verdicts}


def write_run(
    folder: Path,
    variant: str,
    right: Sequence[int] = (30, 20, 10),
    *,
    seed: int = 1,
    text: Sequence[int] = (),
    num_stages: int | None = None,
    audio_experts: Sequence[Sequence[int]] = (),
) -> Path:
    """Write a run whose last stage answers so many of the questions in every row.

    ``text`` is what the stages before it answer in text, in order.
    """
    recipes = [*stages_of(variant, seed)][:num_stages]
    before = iter(text)
    stages = []
    for recipe in recipes:
        is_last = recipe is recipes[-1] and num_stages is None
        figures = measured(
            dict(zip(ROWS, right, strict=True)) if is_last else {"text_to_text": next(before, 30)}
        )
        stages.append(
            {
                "recipe": recipe.name,
                "recipe_hash": recipe.hash,
                "recipe_values": recipe.to_dict(),
                "num_steps": recipe.num_steps,
                "positions": 1_000 * recipe.num_steps,
                "trainable_parameters": 10,
                "processor_minutes": 1.5,
                "peak_memory_mb": 900,
                "losses": {},
                "partition": {"audio_experts": audio_experts} if audio_experts else None,
                "measured": None if isinstance(recipe.model, TextPart) else figures,
            }
        )
    path = results_file(folder, variant, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"about": "what it is about", "commit": f"c{seed}", "when": "2026-01-01", "hardware": "a core"}
    path.write_text(json.dumps({"variant": variant, "seed": seed, **about, "stages": stages}))
    return path


def write_all(folder: Path, variants: Sequence[str]) -> None:
    """A run of everything, all alike."""
    for variant in (START, *variants):
        write_run(folder, variant)
