"""The full report against hand-counted results of eight questions, and its form against its schema."""

import json
import math
import re
from copy import deepcopy
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from deeptalk.decoding import LoadedModel
from deeptalk.errors import DataError
from deeptalk.evaluation.answers import Respondent
from deeptalk.evaluation.benchmarks.charts import Bar, bar_chart, curve_chart
from deeptalk.evaluation.benchmarks.clips import Clip
from deeptalk.evaluation.benchmarks.full_report import build_report
from deeptalk.evaluation.benchmarks.normalizers import normalizer
from deeptalk.evaluation.benchmarks.pocket_results import read_results
from deeptalk.evaluation.benchmarks.report_page import Sample, page
from deeptalk.evaluation.benchmarks.report_schema import SCHEMA, check_report
from deeptalk.evaluation.benchmarks.report_text import markdown
from deeptalk.evaluation.questions import EvalSet
from deeptalk.files import digest_of

QUESTIONS = [
    ("f1", "facts", "ann", "capital of France", "It is Paris."),
    ("f2", "facts", "bob", "capital of Spain", "It is Madrid."),
    ("f3", "facts", "ann", "capital of Italy", "It is Rome."),
    ("a1", "arithmetic", "bob", "two & two <now>", "Four."),
    ("r1", "refusal", "ann", "who won", "I don't know."),
]
GIVEN = {
    "f1": "it is Paris",
    "f2": "Madrid.",  # words that are no answer
    "f3": "It is Paris.",  # the answer of another question of its kind
    "a1": "It is Rome.",  # the answer of another kind
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    score: str
    title: str
    must: float
    goal: float
    at_most: bool = False

    def is_met(self, value: float) -> bool:
        return value <= self.must if self.at_most else value >= self.must


TARGETS = [
    Asked(score="transcription_wer", title="  transcription", must=10, goal=4, at_most=True),
    Asked(score="speech_to_text/all", title="speech to text", must=20, goal=95),
    Asked(score="follow_up", title="follow-ups", must=75, goal=90),
]


def verdict(row: str, name: str, right: str, given: str) -> dict[str, Any]:
    question = next((q[3] for q in QUESTIONS if q[0] == name), right)
    is_right = right.lower().strip(".") == given.lower().strip(".")
    return dict(id=name, row=row, question=question, answer=right, given=given, is_right=is_right)


def score(
    value: float | None, count: int, total: int, *bounds: float | None, unit: str = "%"
) -> dict[str, Any]:
    return dict(value=value, unit=unit, count=count, total=total, low=bounds[0], high=bounds[1])


def results() -> dict[str, Any]:
    answers = {q[0]: q[4] for q in QUESTIONS}
    return {
        "scores": {
            "speech_to_text/facts": score(100 / 3, 1, 3, 6.1, 79.2),
            "speech_to_text/all": score(25.0, 1, 4, 4.6, 69.9),
            "speech_to_text/mean": score(100 / 6, 1, 4, 4.6, 69.9),
            "transcription_wer": score(12.5, 1, 8, 0.0, 30.0, unit="% WER"),
            "first_audio_p50": score(50.0, 3, 3, 40.0, 70.0, unit="ms"),
            "text_to_text/drop": score(-1.0, 1, 4, None, None, unit="points"),
            "refused_outside": score(None, 0, 0, None, None),
        },
        "num_runaway": 2,
        "not_run": ["real_digits (no --fsdd DIR)"],
        "items": [
            *(verdict("speech_to_text", name, answers[name], given) for name, given in GIVEN.items()),
            verdict("transcription", "f1", "capital of france", "capital of France"),
            verdict("transcription", "a1", "two two now", "two two"),
            verdict("refusal", "r1", "i don't know", ""),
            verdict("real_digits", "7_theo_0", "seven", "seven"),
            verdict("real_digits", "7_van_lucas_1", "seven", "eleven"),
            verdict("real_digits", "2_theo_3", "two", "three"),
            verdict("real_digits", "0_theo_3", "zero", ""),
        ],
    }


@pytest.fixture
def questions(tmp_path: Path) -> EvalSet:
    lines = []
    for name, category, voice, asked, answer in QUESTIONS:
        user = {"role": "user", "text": asked, "voice": voice, "offset": 0.0, "duration": 0.5}
        messages = [user, {"role": "assistant", "text": answer}]
        lines.append(json.dumps({"id": name, "category": category, "messages": messages}) + "\n")
    (tmp_path / "questions.jsonl").write_text("".join(lines))
    return EvalSet(tmp_path)


def write(path: Path, values: object) -> Path:
    path.write_text(json.dumps(values))
    return path


def built(questions: EvalSet, values: dict[str, Any], **given: Any) -> dict[str, Any]:
    path = write(questions.folder / "results.json", values)
    return build_report(read_results(path), questions, targets=TARGETS, digest="d1", **given)


@pytest.fixture
def report(questions: EvalSet) -> dict[str, Any]:
    return built(questions, results())


def test_figures_stand_in_the_order_of_what_is_asked_with_the_kind_of_their_bounds(report) -> None:
    kinds = {figure["name"]: (figure["interval"], figure["is_met"]) for figure in report["figures"]}
    assert list(kinds.items()) == [
        ("transcription_wer", ("utterances", False)),
        ("speech_to_text/all", ("wilson", True)),
        ("speech_to_text/facts", ("wilson", None)),
        ("speech_to_text/mean", ("bootstrap", None)),
        ("first_audio_p50", ("range", None)),
        ("text_to_text/drop", (None, None)),
        ("refused_outside", (None, None)),
    ]
    by_name = {figure["name"]: figure for figure in report["figures"]}
    assert by_name["transcription_wer"]["title"] == "transcription"
    assert (by_name["speech_to_text/all"]["low"], by_name["speech_to_text/all"]["high"]) == (4.6, 69.9)
    assert by_name["text_to_text/drop"]["low"] is by_name["refused_outside"]["value"] is None
    assert report["not_run"] == ["real_digits (no --fsdd DIR)", "follow_up"]
    assert (report["num_runaway"], report["results"]) == (2, "d1")


def test_medians_have_an_interval_where_the_results_say_so(questions) -> None:
    values = results() | {"median_bounds": "bootstrap"}
    kinds = {figure["name"]: figure["interval"] for figure in built(questions, values)["figures"]}
    assert kinds["first_audio_p50"] == "bootstrap"


def test_a_drop_of_nothing_has_its_interval(questions) -> None:
    values = results()
    values["scores"] = {"text_to_text/drop": score(0.0, 1, 4, 0.0, 0.0, unit="points")}
    (drop,) = built(questions, values)["figures"]
    assert (drop["low"], drop["high"], drop["interval"]) == (0.0, 0.0, "bootstrap")


def test_the_mean_is_bounded_as_one_in_which_every_category_weighs_the_same(questions) -> None:
    values = results()
    values["items"] = [
        verdict("speech_to_text", name, "It is Paris.", given)
        for name, given in (("f1", "It is Paris."), ("f2", "It is Paris."), ("f3", "no"), ("a1", "no"))
    ]
    found = built(questions, values)["figures"]
    mean = next(figure for figure in found if figure["name"] == "speech_to_text/mean")
    # One draw in sixteen has right answers only, one wrong ones only: more than 2.5 % at both ends.
    assert (mean["low"], mean["interval"]) == (0.0, "bootstrap")
    assert mean["high"] == pytest.approx(100.0)
    values["items"] = [dict(item, is_right=False) for item in values["items"]]
    found = built(questions, values)["figures"]
    assert next(f["high"] for f in found if f["name"] == "speech_to_text/mean") == 0.0


def test_every_row_is_broken_down_by_category_and_voice(report) -> None:
    cells = {
        part["row"]: {(c["category"], c["voice"]): (c["count"], c["total"]) for c in part["cells"]}
        for part in report["breakdowns"]
    }
    assert cells["speech_to_text"] == {
        ("facts", "ann"): (1, 2),
        ("facts", "bob"): (0, 1),
        ("facts", None): (1, 3),
        ("arithmetic", "bob"): (0, 1),
        ("arithmetic", None): (0, 1),
        (None, "ann"): (1, 2),
        (None, "bob"): (0, 2),
        (None, None): (1, 4),
    }
    assert cells["transcription"][None, None] == (1, 6)  # errors of words
    assert cells["transcription"]["arithmetic", "bob"] == (1, 3)
    assert cells["real_digits"]["digits", "theo"] == (1, 3)
    (rate,) = (
        cell
        for part in report["breakdowns"]
        for cell in part["cells"]
        if part["row"] == "transcription" and (cell["category"], cell["voice"]) == ("arithmetic", None)
    )
    assert (rate["unit"], rate["value"]) == ("% WER", pytest.approx(100 / 3))


def test_what_was_given_instead_is_counted(report) -> None:
    tables = {(part["row"], part["by"]): part for part in report["confusions"]}
    by_category = tables["speech_to_text", "category"]
    assert by_category["columns"] == ["right", "facts", "other words", "nothing"]
    assert by_category["lines"] == [
        {"label": "facts", "counts": [1, 1, 1, 0]},
        {"label": "arithmetic", "counts": [0, 1, 0, 0]},
    ]
    assert tables["speech_to_text", "voice"]["lines"] == [
        {"label": "ann", "counts": [1, 1, 0, 0]},
        {"label": "bob", "counts": [0, 1, 1, 0]},
    ]
    assert tables["refusal", "category"]["lines"] == [{"label": "refusal", "counts": [0, 0, 1]}]
    digits = tables["real_digits", "digit"]
    assert len(digits["lines"]) == 10
    said = {
        line["label"]: dict(zip(digits["columns"], line["counts"], strict=True)) for line in digits["lines"]
    }
    assert (said["seven"]["seven"], said["seven"]["other words"]) == (1, 1)
    assert (said["two"]["three"], said["zero"]["nothing"]) == (1, 1)
    assert sum(sum(line["counts"]) for line in digits["lines"]) == 4
    assert not any(row == "transcription" for row, _ in tables)


def test_every_error_is_listed(report) -> None:
    assert [(e["row"], e["id"], e["voice"], e["taken_for"]) for e in report["errors"]] == [
        ("speech_to_text", "f2", "bob", "other words"),
        ("speech_to_text", "f3", "ann", "facts"),
        ("speech_to_text", "a1", "bob", "facts"),
        ("transcription", "a1", "bob", None),
        ("refusal", "r1", "ann", "nothing"),
        ("real_digits", "7_van_lucas_1", "van_lucas", None),
        ("real_digits", "2_theo_3", "theo", None),
        ("real_digits", "0_theo_3", "theo", None),
    ]


def test_a_written_question_has_no_voice(questions) -> None:
    values = results() | {"items": [verdict("text_to_text", "f1", "It is Paris.", "no")]}
    (part,) = built(questions, values)["breakdowns"]
    assert {cell["voice"] for cell in part["cells"]} == {"written", None}


def test_the_protocol_is_told_as_it_is(report, loaded: LoadedModel) -> None:
    limits = Respondent(loaded.engine).options.limits
    told = f"at most {limits.max_text_tokens} text tokens and {limits.max_frames} frames"
    assert report["protocol"]["decoding"] == f"greedy, {told}"
    assert report["protocol"]["normalizer"] == f"plain-en {normalizer('plain-en').version}"


def test_stages_make_a_curve(questions) -> None:
    def stage(value: float, given: str) -> dict[str, Any]:
        values = results()
        values["scores"]["text_to_text/mean"] = score(value, 1, 1, 1.0, 2.0)
        return values | {"items": [verdict("text_to_text", "f1", "It is Paris.", given)]}

    earlier = read_results(write(questions.folder / "earlier.json", stage(100.0, "It is Paris.")))
    report = built(questions, stage(0.0, "no"), stages={"text": earlier})
    assert [(s["name"], s["value"], s["low"], s["high"]) for s in report["stages"]] == [
        ("text", 100.0, 100.0, 100.0),
        ("this model", 0.0, 0.0, 0.0),
    ]
    assert built(questions, results())["stages"] == []


def test_a_file_without_verdicts_has_figures_alone(questions) -> None:
    values = results()
    del values["items"]
    report = built(questions, values)
    assert (report["errors"], report["breakdowns"], report["confusions"]) == ([], [], [])
    mean = next(f for f in report["figures"] if f["name"] == "speech_to_text/mean")
    assert (mean["value"], mean["interval"]) == (pytest.approx(100 / 6), None)


def test_results_of_other_questions_are_refused(questions) -> None:
    values = results()
    values["about"] = {
        "questions": digest_of(questions.folder / "questions.jsonl"),
        "model": "m1",
        "limit": 3,
    }
    about = built(questions, values)["about"]
    assert (about["model"], about["limit"], about["codec"]) == ("m1", 3, None)
    values["about"]["questions"] = "another"
    with pytest.raises(DataError, match="of other questions than those of"):
        built(questions, values)
    values = results()
    values["items"][0]["id"] = "f9"
    with pytest.raises(DataError, match="'f9' is not among these"):
        built(questions, values)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"scores": {"a": {}}, "num_runaway": 0, "not_run": []}'),
        json.dumps(results() | {"items": [verdict("transcription", "f1", "a", "b") | {"given": None}]}),
    ],
)
def test_a_file_of_something_else(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json: no results, as `deeptalk eval pocket --out` writes"):
        read_results(tmp_path / "x.json")


def places(value: Any, schema: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a report that its schema speaks of; of a list the first entry."""
    found = [path]
    if isinstance(value, dict) and "properties" in schema:
        for name, inner in schema["properties"].items():
            found += places(value[name], inner, (*path, name))
    if isinstance(value, list) and value:
        found += places(value[0], schema["items"], (*path, 0))
    return found


def test_whatever_is_not_in_the_schema_is_refused_with_its_place(report) -> None:
    check_report(json.loads(json.dumps(report)))
    every = places(report, SCHEMA)
    assert len(every) > 60
    for path in every[1:]:
        broken = deepcopy(report)
        *way, last = path
        holder = broken
        for name in way:
            holder = holder[name]
        holder[last] = {1, 2}  # no value of JSON
        with pytest.raises(DataError, match=rf"{last}\W* must be "):
            check_report(broken)
        if isinstance(last, str):
            del holder[last]
            with pytest.raises(DataError, match=f"lacks, or should not have: {last}"):
                check_report(broken)
    with pytest.raises(DataError, match="should not have: path"):
        check_report(report | {"path": "x"})
    with pytest.raises(DataError, match="format must be integer, got True"):
        check_report(report | {"format": True})


class Tags(HTMLParser):
    """Checks that tags close in order; keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def test_the_page_is_whole_and_needs_no_other_file(questions) -> None:
    clip = Clip(seconds=1.5, sound="data:audio/mpeg;base64,AA==", picture="data:image/jpeg;base64,AA==")
    sample = Sample(
        **dict(id="a1", category="arithmetic", voice="bob", question="two & two <now>", answer="Four."),
        **dict(given="It is Rome.", heard="", is_right=False, asked_clip=clip, given_clip=clip),
    )
    values = results()
    values["scores"]["text_to_text/mean"] = score(97.0, 1, 1, 1.0, 2.0)
    values["about"] = {"judges": {"bigram": "b1"}}
    earlier = read_results(write(questions.folder / "earlier.json", values))
    report = built(questions, values, stages={"text <1>": earlier}, samples=["a1"])
    parser = Tags()
    parser.feed(page(report, title="A <model>", samples=[sample]))
    assert not parser.open
    assert all(link.startswith("data:") for link in parser.links)
    assert len(parser.links) == 4
    for text in ("A <model>", "two & two <now>", "text <1>", "(nothing)", "right would be", "not told", "b1"):
        assert text in parser.text
    assert "Not run: follow_up." in parser.text
    assert "word error rate, %" in parser.text


def test_the_text_has_every_figure_with_count_and_bounds(questions, report) -> None:
    text = markdown(report, title="A model")
    assert "| transcription | ≤ 10 | ≤ 4 | 12.5 % | 1 of 8 | 0.0 to 30.0 | ✗ |" in text
    assert "| first_audio_p50 | 50.0 ms | 3 of 3 | [40.0 to 70.0] |" in text
    assert "| refused_outside | not run | 0 of 0 | – |" in text
    assert "| facts | 50.0 (1/2) | 0.0 (0/1) | 33.3 (1/3) |" in text
    assert "## speech_to_text: 3 errors, the first 3" in text
    assert "| who won | i don't know | (nothing) |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert not any(math.isnan(f["value"]) for f in report["figures"] if f["value"] is not None)


def test_drawings_have_their_marks_where_they_belong() -> None:
    drawn = bar_chart(
        [Bar(label="a & b", value=50.0, low=25.0, high=75.0, must=100.0), Bar(label="c", value=0.0)]
    )
    assert re.findall(r'class="(\w+)"', drawn) == ["bar", "whisker", "must", "bar"]
    widths = [float(w) for w in re.findall(r'width="([\d.]+)"', drawn)]
    assert widths == [250.0, 0.0]
    assert 'class="whisker" x1="425.0" y1="11.0" x2="675.0"' in drawn
    assert 'class="must" x1="800.0"' in drawn
    assert "a &amp; b" in drawn
    curve = curve_chart([Bar(label="x", value=90.0, low=85.0, high=95.0), Bar(label="y", value=100.0)])
    (points,) = re.findall(r'points="([^"]+)"', curve)
    (_, first), (_, last) = (map(float, point.split(",")) for point in points.split())
    assert first > last == 15.0  # the better stage is higher
    assert curve_chart([Bar(label="one", value=100.0)]).count("circle") == 1
