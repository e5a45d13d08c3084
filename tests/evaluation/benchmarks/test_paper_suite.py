"""The paper's figures as cells: all are there, what was not measured says why, names are found."""

import json

import pytest

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.paper_suite import (
    QUESTION_SETS,
    SUITES,
    Ours,
    cells_of,
    find_set,
    nearest_suite,
    question_means,
    suite_markdown,
    suite_report,
)
from deeptalk.evaluation.benchmarks.text_results import TASKS, read_text_results


def test_the_papers_figures_are_all_there() -> None:
    cells = cells_of(SUITES["paper"])
    assert len(cells) == 3 + 12 + 14 + 5 + 5
    assert len({cell.name for cell in cells}) == len(cells)
    papers = {cell.name: cell.paper for cell in cells}
    assert papers["mean/speech_to_text"] == 46.9
    for key in ("speech_to_text", "speech_to_speech"):  # the printed means follow from the printed sets
        mean = sum(values[key] for values in QUESTION_SETS.values()) / 3
        assert papers[f"mean/{key}"] == pytest.approx(mean, abs=0.06)
    assert (papers["drop/of_means"], papers["mean/score"], papers["latency/first_chunk"]) == (
        -5.45,
        50.17,
        341.7,
    )
    assert [cell.table for cell in cells_of(SUITES["latency"])] == ["latency"] * 5


def test_what_was_not_measured_says_why_and_is_never_zero() -> None:
    filled = {
        "llama_questions/speech_to_text": Ours(
            value=50.0, count=1, total=2, low=9.0, high=91.0, num_missing=1
        )
    }
    report = suite_report(
        cells_of(SUITES["questions"]),
        filled,
        {"web_questions": "no --data DIR"},
        suite="q",
        about={"model": "m"},
    )
    rows = {f"{row['set']}/{row['figure']}": row for row in report["rows"]}
    ours = rows["llama_questions/speech_to_text"]
    assert (ours["paper"], ours["ours"], ours["difference"], ours["not_run"]) == (65.0, 50.0, -15.0, None)
    other = rows["web_questions/text_to_text"]
    assert (other["ours"], other["difference"], other["not_run"]) == (None, None, "no --data DIR")
    assert rows["trivia_qa/speech_to_text"]["not_run"] == "not measured"
    shown = suite_markdown(report)
    figures = "65.00 % | 50.00 | -15.00 | 1 of 2 | 9.00 to 91.00 |  (1 missing) |"
    assert f"| llama_questions | speech_to_text | {figures}" in shown
    assert "| web_questions | text_to_text | 46.60 % | not run |  |  |  | no --data DIR |" in shown


def test_means_are_of_three_sets_or_of_none() -> None:
    filled = {f"{name}/speech_to_text": Ours(value=10.0 * n) for n, name in enumerate(QUESTION_SETS)}
    assert question_means(filled)["mean/speech_to_text"].value == pytest.approx(10.0)
    filled.popitem()
    assert question_means(filled) == {}


def test_an_unknown_suite_gets_the_nearest_name() -> None:
    assert nearest_suite("paper") == SUITES["paper"]
    for given, meant in (("papr", "'paper'"), ("latencies", "'latency'"), ("question", "'questions'")):
        with pytest.raises(ConfigError, match=f"no suite is called '{given}'; .*Did you mean {meant}"):
            nearest_suite(given)
    with pytest.raises(ConfigError, match="deeptalk eval pocket"):
        nearest_suite("pocket")
    with pytest.raises(ConfigError, match=r"latency\.$"):
        nearest_suite("zzz")


def test_sets_are_found_by_their_names(tmp_path) -> None:
    assert find_set(None, "trivia_qa") is None
    assert find_set(tmp_path, "trivia_qa") is None
    for name in ("trivia_qa.json", "aishell1.jsonl", "seedtts_en.lst", "seedtts_zh.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "librispeech_clean").mkdir()
    found = {
        name: find_set(tmp_path, name)
        for name in ("trivia_qa", "aishell1", "seedtts_en", "librispeech_clean")
    }
    assert {name: path.name for name, path in found.items() if path} == {
        **{"trivia_qa": "trivia_qa.json", "aishell1": "aishell1.jsonl"},
        **{"seedtts_en": "seedtts_en.lst", "librispeech_clean": "librispeech_clean"},
    }
    assert find_set(tmp_path, "seedtts_zh") is None  # a list has its own ending


def test_tasks_of_the_harness_are_gathered_by_set(tmp_path) -> None:
    def task(name: str, model: list[float], backbone: list[float]) -> dict:
        return {"task": name, "items": {"model": model, "backbone": backbone}}

    values = {
        "about": {"model": "m1"},
        "engine": {"scorer": "lm-eval", "version": "0.4"},
        "tasks": [
            task("mmlu_law/acc", [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]),
            task("mmlu_art/acc", [1.0], [1.0]),
            task("arc_challenge/acc", [0.0], [0.0]),
            task("arc_challenge/acc_norm", [1.0], [1.0]),
            task("gsm8k/exact_match,strict-match", [0.0], [0.0]),
            task("gsm8k/exact_match,flexible-extract", [1.0, 1.0], [1.0, 0.0]),
            task("other/acc", [1.0], [1.0]),
        ],
    }
    path = tmp_path / "text.json"
    path.write_text(json.dumps(values))
    found = read_text_results(path, model="m1")
    assert {name: (score.count, score.total) for name, score in found.model.items()} == {
        **{"MMLU": (2, 4), "ARC-c": (1, 1), "GSM8K": (2, 2)}
    }
    assert found.backbone["MMLU"].count == 3
    assert found.protocols["MMLU"] == "lm-eval 0.4, acc of 2 tasks"
    assert found.protocols["ARC-c"] == "lm-eval 0.4, acc_norm of 1 tasks"
    assert set(found.model) <= set(TASKS)
    with pytest.raises(DataError, match="of another model than --model"):
        read_text_results(path, model="m2")
    path.write_text("{}")
    with pytest.raises(DataError, match="not what `deeptalk eval text --out` writes"):
        read_text_results(path, model="m1")
