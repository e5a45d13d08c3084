"""The paper's tables in small, from results of runs that answer as many questions right as is said."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from variant_files import QUESTIONS, measured, write_all, write_run

from deeptalk.cli.varied import stages_of
from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.report_schema import check_report
from deeptalk.evaluation.benchmarks.small_cells import CELL, Cell
from deeptalk.evaluation.benchmarks.small_findings import APPEARS, OPEN, REVERSED
from deeptalk.evaluation.benchmarks.small_page import page
from deeptalk.evaluation.benchmarks.small_report import Part, Report, markdown, rows_of
from deeptalk.evaluation.benchmarks.small_results import Places, build_report
from deeptalk.evaluation.benchmarks.small_runs import read_runs
from deeptalk.evaluation.metrics import share_score, wer_score
from deeptalk.experts.load import ExpertLoad, write_load
from deeptalk.recipes.variants import VARIANTS

MODEL = "0123456789abcdef"
ALL = ("start", *VARIANTS)
RUNS = Path(__file__).parents[3] / "docs" / "results" / "pocket" / "runs"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A shipped model that answers 35 of 40 in text, its backbone 30."""
    assets = tmp_path / "assets"
    assets.mkdir()
    scores = measured({"text_to_text": 35, "speech_to_text": 30, "speech_to_speech/bigram": 25})["scores"]
    scores["transcription_wer"] = wer_score("", ["a b"], ["a c"]).to_dict()
    scores["first_audio_p50"] = {**share_score("", 1, 1).to_dict(), "unit": "ms", "value": 55.0}
    scores["real_time_factor_p50"] = {**share_score("", 1, 1).to_dict(), "unit": "x", "value": 0.06}
    figures = {"scores": scores, "num_runaway": 0, "not_run": [], "about": {"model": MODEL}}
    bare = measured({"text_to_text": 30})
    noted = {
        "scores": {"text_to_text/all": 75.0, "text_to_text/mean": 75.0},
        "verdicts": bare["verdicts"]["text_to_text"],
    }
    stages = {"commit": None, "stages": {"pocket-last": {"recipe_hash": "abc"}}}
    config = {"audio_experts": [[0, 1], [2, 3]]}
    for name, values in (
        ("evaluation", figures), ("text_backbone", noted), ("stages", stages), ("config", config)
    ):  # fmt: skip
        (assets / f"{name}.json").write_text(json.dumps(values))
    errors = [{"row": "text_to_text", "id": id} for id in QUESTIONS[35:]]
    (tmp_path / "report.json").write_text(json.dumps({"errors": errors}))
    runs = tmp_path / "runs"
    return Places(runs=runs, assets=assets, report=tmp_path / "report.json", figure=tmp_path / "load.png")


def test_the_published_runs_are_of_the_recipes_of_today():
    runs = read_runs(RUNS, ALL, recipes_of=stages_of)
    assert set(runs) == set(ALL)
    assert not [(run.name, run.seed, run.stale) for group in runs.values() for run in group if run.stale]


def build(places: Places) -> Report:
    return build_report(places, ALL, recipes_of=stages_of)


def part_of(places: Places, table: str) -> Part:
    (part,) = (part for part in build(places).parts if part.table.name == table)
    return part


def cell(part: Part, row: str, column: str) -> Cell:
    return part.rows()[row][column]


def write_rows(places: Places, wer: Mapping[str, int]) -> None:
    """Rows of table 1 with so many errors in a hundred words, whoever listens."""
    rows = {}
    for label, errors in wer.items():
        bounds = {"low": errors - 1.0, "high": errors + 1.0}
        score = {"value": errors, "unit": "% WER", "count": errors, "total": 100, **bounds}
        names = [f"{kind}_wer/{judge}" for kind in ("own", "target") for judge in ("bigram", "unigram")]
        one = {"scores": dict.fromkeys(names, score), "mean_frames": 20.0}
        rows[label] = {"answers": one, "hard": one, "about": {"commit": "c9", "model": MODEL}}
    floor = {name: {"floor_wer/bigram": share_score("", 1, 100).to_dict()} for name in ("answers", "hard")}
    (places.runs / "table-1.json").write_text(json.dumps({"rows": rows, "floor": floor}))


def write_loads(places: Places) -> None:
    count = torch.ones(2, 2, 4, 4, dtype=torch.long)
    count[1, :, :, :2] = 3  # text prefers the first two
    load = ExpertLoad(count=count, mass=count.double(), num_tokens=torch.full((2, 2, 4), 8), even=None)
    for name in ("load-start", "load"):
        write_load(places.runs / f"{name}.json", load, provenance={"model_hash": MODEL})


def test_why_dpo_has_not_helped_is_told_in_figures(places):
    places.runs.mkdir()
    write_rows(places, {"shipped top-k 1": 12, "dpo top-k 1": 10})
    path = places.runs / "table-1.json"
    made = {"num_prompts": 1200, "num_pairs": 377, "discarded": {"a tie": 432}}
    preference = {
        "recipe_hash": "abc",
        "pairs": {"held_out": {"num_prompts": 100, "num_pairs": 29, "discarded": {}}, "trained": made},
        "loss": [0.693, 0.574],
        "held_out": [{"accuracy": 0.39}, {"accuracy": 0.44}],
        "processor_minutes": 21.4,
        "peak_memory_mb": 3210,
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preference": preference}))
    part = part_of(places, "table-1")
    told = ("1,200 prompts gave 377 pairs", "a tie 432", "0.69 to 0.57", "29 pairs", "in 44 %", "hears 1.0 %")
    assert [words for words in told if words not in part.finding] == []
    row = next(row for row in rows_of(part) if row[0] == "DPO, top-k 1")
    assert row[-2:] == ["21", "3210"]
    write_rows(places, {"shipped top-k 1": 12, "dpo top-k 1": 6})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preference": preference}))
    assert "Why not" not in part_of(places, "table-1").finding


def test_rows_of_an_earlier_model_say_so(places):
    places.runs.mkdir()
    write_rows(places, {"shipped top-k 1": 12, "dpo top-k 1": 10})
    path = places.runs / "table-1.json"
    assert "shipped before" not in part_of(places, "table-1").finding
    rows = json.loads(path.read_text())
    rows["rows"]["shipped top-k 1"]["about"] |= {"model": "another", "when": "2026-11-28T15:48:03+00:00"}
    path.write_text(json.dumps(rows))
    assert "(weights of 2026-11-28, which shipped before)" in part_of(places, "table-1").finding


def test_without_results_every_cell_of_a_variant_is_not_run(places):
    report = build(places)
    cells = [cell for part in report.parts for cell in part.cells]
    own = {cell.row for cell in cells if cell.is_run}
    assert own == {"shipped model, all 440 questions", "shipped model", "text backbone of the shipped model"}
    for text in (markdown(report), page(report)):
        assert "not run" in text
    assert "No variant has been run." in markdown(report)


def test_with_all_results_every_cell_is_filled(places):
    write_all(places.runs, list(VARIANTS))
    partitioned = ("random-1", "random-2", "random-3", "loads-max", "experts-6", "experts-9", "experts-12")
    for name in ("adaptive", *partitioned):
        write_run(places.runs, name, audio_experts=[[2], [3]])
    write_loads(places)
    write_rows(places, {"shipped top-k 1": 12, "shipped top-k 10": 12, "dpo top-k 1": 6, "dpo top-k 10": 10})
    heard = measured({"speech_to_text": 20, "speech_to_speech/bigram": 10})
    (places.runs / "cascade.json").write_text(json.dumps({**heard, "about": {"model": MODEL}}))
    times = {"n": 5, "mean": 40.0}
    engine = {"first_chunk_ms": times, "step_ms": {"both": times}, "real_time_factor": times}
    (places.runs / "latency.json").write_text(json.dumps({"engine": engine, "about": {"model": MODEL}}))
    report = build(places)
    missing = [(c.table, c.column) for part in report.parts for c in part.cells if not c.is_run]
    assert missing == [("table-4", "digits of real people, exact")]  # the shipped model of this test has none
    for part in report.parts:
        for one in part.cells:
            check_report(one.to_dict(), CELL)
    assert "at least a third less" in report.parts[0].finding
    text = markdown(report)
    assert text.count("\n## ") == len(report.parts) + 2
    assert len(page(report)) < 500_000


def test_a_cell_tells_what_it_is_of(places):
    write_run(places.runs, "start", (30, 0, 0))
    write_run(places.runs, "adaptive", (24, 20, 10))
    one = cell(part_of(places, "table-8"), "adaptive", "speech to text")
    recipe = stages_of("adaptive", 1)[-1]
    assert one.to_dict() == {
        "table": "table-8", "row": "adaptive", "column": "speech to text", "value": 50.0, "unit": "%",
        "n": 40, "low": pytest.approx(35.2, abs=0.1), "high": pytest.approx(64.8, abs=0.1), "lowest": None,
        "highest": None, "runs": ("adaptive",), "seeds": (1,), "commit": "c1", "recipe_hash": recipe.hash,
        "minutes": 4.5, "peak_memory_mb": 900, "paper": 46.9, "is_run": True,
    }  # fmt: skip
    change = cell(part_of(places, "table-3"), "adaptive", "change, % of the backbone")
    assert (change.value, change.paper) == (pytest.approx(-20.0), -5.45)
    assert change.low is not None
    assert change.low < -20 < (change.high or 0) < 0


def test_seeds_are_averaged_and_their_spread_is_told(places):
    write_run(places.runs, "adaptive", (30, 20, 10))
    write_run(places.runs, "adaptive", (30, 10, 10), seed=2)
    one = cell(part_of(places, "table-8"), "adaptive", "speech to text")
    assert (one.value, one.lowest, one.highest) == (37.5, 25.0, 50.0)
    assert (one.seeds, one.commit, one.minutes) == ((1, 2), "c1, c2", 9.0)
    assert one.low is not None
    assert one.low < 37.5 < (one.high or 0)


def test_draws_are_averaged_over_those_that_are_there(places):
    write_run(places.runs, "random-1", (30, 20, 10))
    write_run(places.runs, "random-3", (30, 30, 10))
    one = cell(part_of(places, "table-8"), "random, mean of the draws", "speech to text")
    assert (one.value, one.runs) == (62.5, ("random-1", "random-3"))


def test_stages_of_other_recipes_are_left_out_with_all_after_them(places):
    path = write_run(places.runs, "adaptive", text=[22, 21])
    values = json.loads(path.read_text())
    values["stages"][1]["recipe_values"]["num_steps"] += 1
    path.write_text(json.dumps(values))
    report = build(places)
    (run,) = report.runs["adaptive"]
    assert not run.is_complete
    assert run.stale == ("pocket-adaptive-text-experts", "pocket-adaptive-joint")
    assert not cell(part_of(places, "table-8"), "adaptive", "speech to text").is_run
    curve = part_of(places, "forgetting").rows()["adaptive"]
    assert [one.value for one in curve.values()] == [None, pytest.approx(55), None, None]
    assert "their recipes have changed since: adaptive (seed 1)" in markdown(report)


def test_a_run_that_is_under_way_has_its_first_stages_alone(places):
    write_run(places.runs, "start", (36, 0, 0))
    write_run(places.runs, "adaptive", text=[22], num_stages=1)
    curve = part_of(places, "forgetting").rows()["adaptive"]
    assert [one.value for one in curve.values()] == [90.0, pytest.approx(55), None, None]
    assert list(curve) == ["before speech", "stage 2.1", "stage 2.2", "at the end"]


def test_a_variant_with_its_own_stage_1_begins_its_curve_there(places):
    write_run(places.runs, "start", (36, 0, 0))
    write_run(places.runs, "mean8", text=[8, 6, 4])
    curve = part_of(places, "forgetting").rows()["mean8"]
    assert curve["before speech"].value == 20.0
    assert curve["stage 2.1"].value == 15.0


@pytest.mark.parametrize(
    ("adaptive", "draws", "verdict"),
    [
        ((30, 36, 30), [(30, 8, 8)] * 3, APPEARS),
        ((30, 8, 8), [(30, 36, 30)] * 3, REVERSED),
        ((30, 21, 11), [(30, 20, 10)] * 3, OPEN),
        ((30, 36, 30), [(30, 2, 2), (30, 2, 2), (30, 36, 30)], OPEN),  # one draw is as good
        ((30, 1, 1), [(30, 0, 0)] * 3, OPEN),  # neither can do it
    ],
)
def test_an_effect_is_named_where_interval_and_runs_agree(places, adaptive, draws, verdict):
    write_run(places.runs, "adaptive", adaptive)
    for number, right in enumerate(draws, 1):
        write_run(places.runs, f"random-{number}", right)
    told = part_of(places, "table-8").finding.partition("Adaptive over PureMoE")[0]
    heard = told[told.index("peech to text") : told.index("speech to speech")]
    assert verdict in (heard if "By load over by lot: speech" in told else told)
    assert "PureMoE: not run" in part_of(places, "table-8").finding


def test_lossless_is_told_by_single_verdicts(places):
    write_run(places.runs, "start", (30, 0, 0))
    write_run(places.runs, "adaptive", (24, 20, 10))
    write_run(places.runs, "lossless", (30, 21, 10), text=[30])
    told = part_of(places, "lossless").finding
    assert "Text changes by +0.0 points, every verdict is the backbone's" in told
    assert "within 3 points" in told
    write_run(places.runs, "lossless", (30, 4, 10))
    assert "40.0 points off" in part_of(places, "lossless").finding


def test_figures_of_another_model_are_not_the_cascade(places):
    places.runs.mkdir()
    heard = measured({"speech_to_text": 20, "speech_to_speech/bigram": 10})
    for model, is_run in (("another", False), (MODEL, True)):
        (places.runs / "cascade.json").write_text(json.dumps({**heard, "about": {"model": model}}))
        row = part_of(places, "table-2").rows()["cascade of the shipped model's parts"]
        assert row["speech to text"].is_run == is_run


def test_loads_are_shares_of_choices(places):
    write_run(places.runs, "adaptive", audio_experts=[[2], [3]])
    write_run(places.runs, "random-1", audio_experts=[[0], [1]])
    write_loads(places)
    part = part_of(places, "figures-4-6")
    assert cell(part, "4 by load (adaptive)", "text, all layers").value == pytest.approx(12.5)
    assert cell(part, "4 by lot, draw 1", "text, layer 0").value == pytest.approx(37.5)
    assert cell(part, "shipped model, after all stages", "text, last layer").value == pytest.approx(25.0)
    (places.assets / "evaluation.json").write_text(json.dumps({"scores": {}, "about": {"model": "another"}}))
    assert not cell(part_of(places, "figures-4-6"), "shipped model, after all stages", "text, layer 0").is_run
    assert "than any that were drawn" not in part.finding  # of one draw nothing is said
    write_run(places.runs, "random-2", audio_experts=[[0], [3]])
    assert "Text needs them less than any that were drawn" in part_of(places, "figures-4-6").finding
    write_run(places.runs, "adaptive", audio_experts=[[0, 1], [0, 1]])
    assert "Text needs them more than any that were drawn" in part_of(places, "figures-4-6").finding


@pytest.mark.parametrize("text", ["", "[]", '{"stages": [{}]}', '{"stages": 3}'])
def test_a_broken_file_is_named(places, text):
    places.runs.mkdir()
    (places.runs / "adaptive.json").write_text(text)
    with pytest.raises(DataError, match=r"adaptive\.json"):
        build(places)


def test_the_page_stands_alone(places):
    write_run(places.runs, "start")
    write_run(places.runs, "adaptive")
    places.figure.write_bytes(b"\x89PNG")
    text = page(build(places))
    assert "data:image/png;base64,iVBORw==" in text
    assert "<polyline" in text
    assert 'src="http' not in text
    assert "href=" not in text
