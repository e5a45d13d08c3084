"""The evaluation set that travels with the package is the one that the code makes."""

from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import soundfile

from deeptalk.data.domain import eval_questions
from deeptalk.data.evaluation_set import MAX_BYTES
from deeptalk.data.synthesis import HELD_OUT_VOICES
from deeptalk.evaluation.questions import EvalSet

FOLDER = Path(str(files("deeptalk"))) / "assets" / "evaluation"


def test_its_questions_are_those_of_the_domain():
    expected = [
        (item.id, item.category, tuple((message.role, message.text) for message in item.messages))
        for item in eval_questions(seed=0)
    ]
    found = []
    for item in EvalSet(FOLDER).items:
        pairs = zip((turn.text for turn in item.turns), item.answers, strict=True)
        said = tuple(pair for q, a in pairs for pair in (("user", q), ("assistant", a)))
        found.append((item.id, item.category, said))
    assert found == expected


def test_its_recording_is_small_and_holds_every_turn_by_a_held_out_voice():
    path = FOLDER / "questions.opus"
    assert path.stat().st_size <= MAX_BYTES
    turns = [turn for item in EvalSet(FOLDER).items for turn in item.turns]
    assert max(turn.offset + turn.duration for turn in turns) <= soundfile.info(path).duration
    starts = sorted((turn.offset, turn.duration) for turn in turns)
    assert all(a + length < b for (a, length), (b, _) in pairwise(starts))
    assert {turn.voice for turn in turns} == {voice.name for voice in HELD_OUT_VOICES}
