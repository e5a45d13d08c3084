"""Reports count every item; two of them are compared only where they may be."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_texts import pairs
from scipy.stats import binomtest

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.comparison import compare_reports
from deeptalk.evaluation.benchmarks.intervals import paired_bootstrap
from deeptalk.evaluation.benchmarks.llm_judge import JudgeSettings, LlmJudge
from deeptalk.evaluation.benchmarks.normalizers import normalizer
from deeptalk.evaluation.benchmarks.question_sets import QaItem
from deeptalk.evaluation.benchmarks.records import split_of
from deeptalk.evaluation.benchmarks.scoring import (
    BenchmarkReport,
    about_answers,
    read_report,
    score_questions,
    score_speech,
    without_missing,
)

QUESTIONS = [QaItem(id=f"q{i}", question=f"{i}?", answers=(f"word{i}",), audio=None) for i in range(300)]
ANSWERS = {f"q{i}": f"I say word{i if i % 3 else i + 1}." for i in range(300)}
RULES = ("contain-words", "has-answer")


def scored(answers: dict[str, str], **given) -> BenchmarkReport:
    return score_questions(QUESTIONS, answers, rules=given.pop("rules", RULES), data="d1", **given)


def written(report: BenchmarkReport, path: Path) -> Path:
    path.write_text(json.dumps(report.to_dict(has_items=True), ensure_ascii=False))
    return path


def test_of_300_questions_the_shares_are_exact_and_their_intervals_wilsons() -> None:
    report = scored(ANSWERS)
    contain, has = report.scores
    # By substring "word3" is right for "word30" to "word39": i = 0 says "word1", and so on.
    inside = sum(f"word{i}" in ANSWERS[f"q{i}"] for i in range(300))
    assert (contain.name, contain.count, contain.total) == ("contain-words", inside, 300)
    assert (has.name, has.count, has.total) == ("has-answer", 200, 300)
    wilson = binomtest(200, 300).proportion_ci(method="wilson")
    assert (has.low, has.high) == pytest.approx((100 * wilson.low, 100 * wilson.high), abs=1e-4)
    assert (report.num_items, report.num_missing, report.num_unjudged) == (300, 0, 0)


def test_a_missing_and_an_empty_answer_are_wrong_and_the_total_stays() -> None:
    answers = {name: text for name, text in ANSWERS.items() if name != "q1"} | {"q2": ""}
    report = scored(answers)
    assert [(score.count, score.total) for score in report.scores] == [
        (score.count - 2, 300) for score in scored(ANSWERS).scores
    ]
    assert report.num_missing == 1
    assert (report.items[1].given, report.items[1].reason) == (None, "missing")
    assert (report.items[2].given, report.items[2].reason) == ("", "")
    nothing = scored({})
    assert nothing.num_missing == 300
    assert all((score.count, score.total) == (0, 300) for score in nothing.scores)


def test_a_question_without_a_usable_answer_is_named_even_if_nobody_answered_it() -> None:
    for answers in ((), ("...",)):
        bad = [QUESTIONS[0], replace(QUESTIONS[1], answers=answers)]
        with pytest.raises(DataError, match=r"^question 'q1': .*right answer"):
            score_questions(bad, {}, rules=("contain-words",), data="d")


def test_the_judge_has_a_row_of_its_own() -> None:
    def transport(url: str, body: bytes, **_: object) -> bytes:
        question = json.loads(body)["messages"][0]["content"].split("Question: ")[1].split("?")[0]
        if question == "7":
            raise TimeoutError
        reply = "who knows" if question == "8" else "yes" if int(question) % 2 else "no"
        return json.dumps({"choices": [{"message": {"content": reply}}]}).encode()

    judge = LlmJudge(JudgeSettings(url="http://x/v1", model="m"), transport=transport)
    report = scored({name: text for name, text in ANSWERS.items() if name != "q9"}, judge=judge)
    assert [score.name for score in report.scores] == [*RULES, "llm-judge"]
    assert (report.scores[-1].count, report.scores[-1].total) == (148, 300)
    assert (report.num_missing, report.num_unjudged) == (1, 2)
    assert [report.items[i].reason for i in (6, 7, 8, 9)] == ["", "no reply", "unreadable", "missing"]
    assert report.rules["llm-judge"] == f"m, prompt {judge.settings.prompt_hash}"


def test_a_report_of_speech_and_its_items_agree() -> None:
    texts = [(r, h) for r, h in pairs(300, seed=2) if "<" not in r and normalizer("seedtts-zh").units(r)]
    references = {f"u{i}": r for i, (r, _) in enumerate(texts)}
    heard = {f"u{i}": h for i, (_, h) in enumerate(texts) if i != 5}
    names = ("wenet", "seedtts-zh")
    report = score_speech(references, heard, normalizers=[normalizer(n) for n in names], data="d")
    assert [s.name for s in report.scores] == [f"{n}/{k}" for n in names for k in ("corpus", "utterances")]
    versions = {name: normalizer(name).version for name in names}
    assert report.rules == {score.name: versions[score.name.split("/")[0]] for score in report.scores}
    assert report.errors is not None
    for score in report.scores:
        parts = [item.parts[score.name] for item in report.items]
        assert score.value == pytest.approx(100 * sum(a for a, _ in parts) / sum(b for _, b in parts))
    corpus = report.scores[0]
    assert corpus.count == sum(report.errors[kind] for kind in ("substitutions", "deletions", "insertions"))
    assert corpus.total == report.errors["units"]
    assert (report.num_items, report.num_missing, report.items[5].reason) == (len(texts), 1, "missing")
    assert report.items[5].parts["wenet/utterances"] == (1.0, 1.0)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = scored({name: text for name, text in ANSWERS.items() if name != "q1"})
    assert read_report(written(report, tmp_path / "a.json")) == report
    short = report.to_dict(has_items=False)
    assert list(short) == [
        *("kind", "data", "rules", "scores", "num_items", "num_missing", "num_unjudged", "errors"),
        "about",
    ]
    for text in ("{", "[]", "{}", json.dumps(short)):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(DataError, match="no report with items"):
            read_report(tmp_path / "b.json")
    whole = report.to_dict(has_items=True)
    del whole["items"][4]["parts"]["has-answer"]
    (tmp_path / "b.json").write_text(json.dumps(whole))
    with pytest.raises(DataError, match="lacks its part"):
        read_report(tmp_path / "b.json")


def test_two_models_are_compared_item_by_item() -> None:
    better = ANSWERS | {f"q{i}": f"word{i}" for i in range(0, 60, 3)}
    left, right = scored(ANSWERS), scored(better)
    contain, has = compare_reports(left, right, seed=4)
    assert (has.name, has.left, has.right) == ("has-answer", pytest.approx(200 / 3), pytest.approx(220 / 3))
    assert has.difference.value == pytest.approx(20 / 3)
    parts = [[item.parts["has-answer"] for item in report.items] for report in (left, right)]
    expected = paired_bootstrap(*parts, seed=4)
    assert (has.difference.low, has.difference.high) == (100 * expected.low, 100 * expected.high)
    assert has.difference.is_clear
    assert 0 < has.difference.low < has.difference.value < has.difference.high
    assert not any(score.difference.is_clear for score in compare_reports(left, left))
    (reverse, _) = compare_reports(right, left)
    assert reverse.difference.is_clear
    assert reverse.difference.value == -contain.difference.value


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"data": "d2"}, "of other data, qa d1 and qa d2"),
        ({"kind": "asr"}, "of other data, qa d1 and asr d1"),
        ({"rules": {"whole-words": "1"}}, "share no score: contain-words, has-answer and whole-words"),
        ({"rules": {"has-answer": "2"}}, "has-answer is of other versions, '1' and '2'"),
        ({"items": ()}, "other items"),
    ],
)
def test_what_must_not_stand_side_by_side_is_refused(change: dict, complaint: str) -> None:
    report = scored(ANSWERS)
    with pytest.raises(DataError, match=complaint):
        compare_reports(report, replace(report, **change))


def test_reports_that_do_not_compare_stand_side_by_side_when_that_is_wanted() -> None:
    left, right = scored(ANSWERS), scored(ANSWERS | {"q1": "word1"}, rules=("has-answer", "whole-words"))
    contain, has, whole = compare_reports(left, right, is_mixed=True)
    assert (contain.apart, contain.right, contain.difference) == ("only one report has it", None, None)
    assert (whole.apart, whole.left) == ("only one report has it", None)
    assert has.apart == ""
    assert has.difference is not None
    other = replace(right, data="d2", rules=right.rules | {"has-answer": "2"})
    (_, has, _) = compare_reports(left, other, is_mixed=True)
    assert has.apart == "other data, qa d1 and qa d2; versions 1 and 2"
    assert (has.left, has.difference) == (pytest.approx(200 / 3), None)


def test_what_is_missing_is_left_out_only_with_a_label(tmp_path: Path) -> None:
    given = {name: text for name, text in ANSWERS.items() if name not in ("q1", "q2", "q3")}
    kept = without_missing(QUESTIONS, lambda item: item.id, given)
    assert [item.id for item in kept[:3]] == ["q0", "q4", "q5"]
    with pytest.raises(DataError, match="nothing is left"):
        without_missing(QUESTIONS, lambda item: item.id, {})


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("test-clean", "test-clean"),
        ("aishell1.dev", "dev"),
        ("wenetspeech_TEST_NET", "TEST_NET"),
        ("evaluation", "evaluation"),
        ("librispeech_clean", None),
        ("contest", None),
        ("test_questions", None),
        ("", None),
    ],
)
def test_a_split_is_what_the_name_of_the_set_ends_with(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_report_tells_what_its_answers_are_of(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    lines = [{"id": str(n), "text": "x", "finish_reason": "length" if n < 2 else "stop"} for n in range(5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    about = about_answers(path, set_name="set", field="text")
    assert (about["run"], about["recogniser"], about["num_runaway"]) == (None, None, 2)
    assert (about["set"], about["split"]) == ("set", None)
    assert (about["field"], about["row"]) == ("text", None)
    (tmp_path / "run.json").write_text('{"model": "m1"}')
    (tmp_path / "recogniser.json").write_text("[broken")
    about = about_answers(path, set_name="set", field="transcript", shrunk_from=7)
    assert (about["row"], about_answers(path, set_name="set", field="text")["row"]) == ("S", "T")
    assert (about["run"], about["recogniser"], about["shrunk_from"]) == ({"model": "m1"}, None, 7)
    path.write_text('{"id": "a", "text": "x"}\n')
    assert about_answers(path, set_name="set", field="text")["num_runaway"] is None
    report = scored(ANSWERS, about=about)
    assert read_report(written(report, tmp_path / "a.json")).about == about
