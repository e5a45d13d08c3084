"""What a stage of a variant can do, measured in a process of its own and kept in one file.

    python -m deeptalk.cli.measured MODEL_FOLDER F.json PART…

The questions are every `EVERY`-th of the built-in evaluation set, in the held-out voices. The judge is the
closed bigram; speech that has not ended after `MOST_FRAMES` frames is cut off there.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

EVERY = 3
"""One question of three: 147 of five kinds."""
MOST_FRAMES = 60
"""Five seconds; no right answer of the set is longer."""


def measure(model: str, parts: Sequence[Any], *, every: int = EVERY) -> dict[str, Any]:
    """Scores and single verdicts of one model; parts are those of `deeptalk.evaluation.pocket.PARTS`."""
    from deeptalk.cli.evaluation import QUESTIONS, about_model
    from deeptalk.cli.opening import open_model
    from deeptalk.data.domain.refusals import REFUSAL
    from deeptalk.decoding.answer import Limits
    from deeptalk.evaluation.pocket import Judges, PocketEvaluation, open_judges
    from deeptalk.evaluation.questions import EvalSet
    from deeptalk.model.weights import model_folder

    started = time.monotonic()
    loaded, questions = open_model(model), EvalSet(QUESTIONS)
    judges = Judges(bigram=open_judges(QUESTIONS).bigram) if "speech" in parts else None
    limits = Limits(max_frames=MOST_FRAMES, max_text_tokens=60)
    run = PocketEvaluation(loaded, questions, voice="rms", every=every, limits=limits)
    report = run.run(judges=judges, refusal=REFUSAL, parts=parts)
    verdicts: dict[str, dict[str, bool]] = {}
    for item in report.items:
        verdicts.setdefault(item.row, {})[item.id] = item.is_right
    return {
        "scores": {score.name: score.to_dict() for score in report.scores},
        "verdicts": verdicts,
        "num_runaway": report.num_runaway,
        "examples": [asdict(item) for item in report.items if item.row.startswith("speech_to")][::10],
        "every": every,
        "seconds": time.monotonic() - started,
        "about": about_model(loaded, model_folder(model)),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    from deeptalk.cli.evaluation import write_json

    model, out, *parts = arguments
    write_json(Path(out), measure(model, parts))


if __name__ == "__main__":
    main(sys.argv[1:])
