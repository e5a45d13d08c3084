"""Results of the pocket evaluation and of text benchmarks are compared item by item, too."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.comparable import read_comparable
from deeptalk.evaluation.benchmarks.comparison import compare_reports


def written(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(json.dumps(values))
    return path


def pocket(path: Path, *given: str, questions: str = "q") -> Path:
    """Two questions that were asked in writing and aloud, and two recordings that were written down."""
    rows = [("text_to_text", "yes"), ("speech_to_text", "yes"), ("transcription", "one two three")]
    places = [(row, right, n) for row, right in rows for n in range(2)]
    items = [
        {"id": f"q{n}", "row": row, "question": "", "answer": right, "given": said, "is_right": said == right}
        for (row, right, n), said in zip(places, given, strict=True)
    ]
    about = {"questions": questions, "voice": "rms"}
    values = {"scores": {}, "num_runaway": 0, "not_run": [], "median_bounds": "bootstrap"}
    return written(path, values | {"about": about, "items": items})


def test_rows_of_the_pocket_evaluation(tmp_path: Path) -> None:
    right = ("yes", "yes", "yes", "yes", "one two three", "one two three")
    left = pocket(tmp_path / "a.json", "yes", "no", "no", "no", "one two", "one two three")
    found = compare_reports(read_comparable(left), read_comparable(pocket(tmp_path / "b.json", *right)))
    told = {one.name: (one.left, one.right, one.difference and one.difference.value) for one in found}
    assert told == {
        "text_to_text": (50.0, 100.0, 50.0),
        "speech_to_text": (0.0, 100.0, 100.0),
        "transcription": (pytest.approx(100 / 6), 0.0, pytest.approx(-100 / 6)),
    }
    other = read_comparable(pocket(tmp_path / "c.json", *right, questions="other"))
    with pytest.raises(DataError, match="other data"):
        compare_reports(read_comparable(left), other)


def test_tasks_of_text_benchmarks(tmp_path: Path) -> None:
    def text(path: Path, scores: Sequence[float], template: str = "raw") -> Path:
        engine = {"scorer": "lm-eval", "version": "0.4", "template": template, "data": None}
        task = {"task": "mmlu/acc", "items": {"model": list(scores), "backbone": [0.0] * len(scores)}}
        return written(path, {"kind": "text", "engine": engine, "tasks": [task], "about": {}})

    left, right = (read_comparable(text(tmp_path / "a.json", s)) for s in ([0, 1, 1, 0], [1, 1, 1, 0]))
    (found,) = compare_reports(left, right)
    assert (found.left, found.right) == (50.0, 75.0)
    assert found.difference is not None
    assert (found.difference.value, found.difference.is_clear) == (25.0, False)
    with pytest.raises(DataError, match="other versions"):
        compare_reports(left, read_comparable(text(tmp_path / "c.json", [1, 1, 1, 0], "chat")))


def test_what_is_no_report_is_named(tmp_path: Path) -> None:
    for values in ({"kind": "text"}, {"median_bounds": "range", "scores": {}}, {"x": 1}, [1]):
        path = written(tmp_path / "x.json", values)  # pyright: ignore[reportArgumentType]
        with pytest.raises(DataError, match=r"x\.json: no re"):
            read_comparable(path)
