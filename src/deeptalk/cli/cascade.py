"""The modular reference of figure 1: transcribe, answer in text, say the text; three passes, one model.

    python -m deeptalk.cli.cascade MODEL F.json

Scores have the names of `deeptalk eval pocket`, on the questions that variants are asked.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deeptalk.cli.evaluation import QUESTIONS, about_model, write_json
from deeptalk.cli.measured import EVERY
from deeptalk.cli.opening import open_model
from deeptalk.cli.varied import about_machine
from deeptalk.evaluation.answers import Respondent
from deeptalk.evaluation.metrics import exact_score, wer_score
from deeptalk.evaluation.normalize import plain
from deeptalk.evaluation.pocket import open_judges, sound_of
from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalSet
from deeptalk.model.weights import model_folder
from deeptalk.streams.prompt import READ_ALOUD

VOICE = "rms"


def run_cascade(model: str, *, every: int = EVERY) -> dict[str, Any]:
    """Scores and verdicts of spoken questions that are written down, answered in text and read aloud."""
    loaded, questions = open_model(model), EvalSet(QUESTIONS)
    judge, respondent = open_judges(QUESTIONS).bigram, Respondent(loaded.engine)
    items = questions.of(*FIVE_CATEGORIES)[::every]
    asked = [respondent.spoken(questions.speech(item.turns[0])) for item in items]
    heard = [one.text or "." for one in respondent.answer(asked, mode="asr")]
    texts = [one.text for one in respondent.answer([respondent.written(q) for q in heard], mode="text")]
    aloud = [respondent.written(READ_ALOUD.format(text=text or ".")) for text in texts]
    read = respondent.answer(aloud, mode=f"speaker:{VOICE}")
    sounds = [sound_of(one, loaded.codec) for one in read]
    said = [judge.transcribe(sound, sample_rate=loaded.codec.sample_rate) for sound in sounds]
    answers = [item.answers[-1] for item in items]
    rows = {"speech_to_text": texts, "speech_to_speech/bigram": said}
    scores = [
        exact_score("speech_to_text/all", texts, answers),
        exact_score("speech_to_speech/bigram", said, answers),
        wer_score("read_aloud_wer/bigram", said, [one.text for one in read]),
    ]
    verdicts = {
        row: {
            item.id: plain(given) == plain(answer)
            for item, given, answer in zip(items, found, answers, strict=True)
        }
        for row, found in rows.items()
    }
    return {
        "scores": {score.name: score.to_dict() for score in scores},
        "verdicts": verdicts,
        "every": every,
        "about": about_model(loaded, model_folder(model)) | about_machine(),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure and write; the arguments are the model and the file."""
    model, path = arguments
    write_json(Path(path), run_cascade(model))


if __name__ == "__main__":
    main(sys.argv[1:])
