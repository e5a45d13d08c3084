"""`eval latency` from the command line: the paper beside ours, a silent answer fails, nothing is hidden."""

import json
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.cli.latency import own_waits, served_figures
from deeptalk.evaluation.benchmarks import report_schema

HEARD = {"viability": 1.0, "underruns_per_minute": 0.0}


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["eval", "latency", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(autouse=True)
def idle(monkeypatch) -> None:
    monkeypatch.setattr("deeptalk.cli.idle.busy_cores", lambda: 0.0)


def test_the_engine_is_measured_and_stands_beside_the_paper(model_folder, tone, tmp_path):
    out = tmp_path / "new" / "latency.json"
    given = (tone(), "--model", model_folder, "--turns", 2, "--max-frames", 3, "--out", out)
    result = CliRunner().invoke(app, ["eval", "latency", *map(str, given), "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == (1 if told["num_failed"] else 0)  # the random model may say nothing
    assert json.loads(out.read_text()) == told
    assert [row["figure"] for row in told["rows"]] == [*told["paper"]]
    by_name = {row["figure"]: row for row in told["rows"]}
    assert (by_name["network"]["ours"], by_name["end_to_end"]["ours"]) == (None, None)
    first = told["engine"]["first_chunk_ms"]
    if first["mean"] is not None:
        assert by_name["first_chunk"]["difference"] == pytest.approx(first["mean"] - 341.7)
        split = told["engine"]["split_ms"]
        assert sum(part["mean"] for part in split.values()) == pytest.approx(first["mean"])
    assert (first["n"], told["served"], told["valid"]) == (2, [], True)
    assert (told["about"]["dtype"], told["about"]["batch_size"], told["kind"]) == ("float32", 1, "latency")
    assert told["about"].keys() >= report_schema.OF_MODEL.keys()
    assert told["about"]["device"]
    of = [told["about"][name] for name in ("weights", "questions", "split")]
    assert of == ["random", None, None]
    report_schema.check_report(told, report_schema.LATENCY)
    assert "loading the model" in told["excluded"]
    assert str(tmp_path) not in out.read_text()


def test_a_server_is_asked_for_each_number_of_sessions(model_folder, tone, monkeypatch):
    asked = []

    async def ask(url, questions, *, count, kind, turns, key, is_hurried):
        asked.append((url, count, kind, turns))
        return served_figures(
            [0.5 * count] * turns,
            heard=HEARD,
            server_ms=400.0,
            server_waits=[0.4] * turns if count == 1 else None,
            count=count,
            kind=kind,
            is_hurried=is_hurried,
        )

    monkeypatch.setattr("deeptalk.cli.latency._ask", ask)
    monkeypatch.setattr("deeptalk.cli.served.served", lambda *options: nullcontext("ws://here/v1/realtime"))
    metrics = ["deeptalk_sessions_limit 2\n"]
    monkeypatch.setattr("deeptalk.cli.served.told", lambda url, path, *, key: metrics[0])
    given = (
        tone(),
        "--model",
        model_folder,
        "--turns",
        4,
        "--max-frames",
        3,
        "--sessions",
        1,
        "--sessions",
        2,
    )
    told = json.loads(CliRunner().invoke(app, ["eval", "latency", *map(str, given), "--json"]).stdout)
    assert asked == [
        ("ws://here/v1/realtime", n, *of) for n, of in ((1, ("manual", 4)), (2, ("manual", 2)))
    ] + [("ws://here/v1/realtime", 1, "server_vad", 4)]
    assert [one["first_audio_ms"]["mean"] for one in told["served"]] == [500.0, 1000.0, 500.0]
    own = [one["server_first_audio_ms"] for one in told["served"]]
    assert [one and one["p95"] for one in own] == [400.0, None, 400.0]
    ours = {row["figure"]: row["ours"] for row in told["rows"]}
    assert (ours["end_to_end"], ours["network"]) == (500.0, 100.0)  # one session, turns ended by hand
    elsewhere = (*given, "--url", "ws://there/v1/realtime")
    CliRunner().invoke(app, ["eval", "latency", *map(str, elsewhere), "--json"])
    assert asked[-1][0] == "ws://there/v1/realtime"
    metrics[0], before = "deeptalk_sessions_limit 1\n", len(asked)
    (line,) = run(*elsewhere, code=2).stderr.splitlines()
    assert "holds 1 conversations at a time, --sessions asks for 2: start it with --max-sessions 2" in line
    assert len(asked) == before


def test_a_silent_answer_and_a_busy_machine_are_told_by_the_exit_status(
    model_folder, tone, monkeypatch, tmp_path
):
    from deeptalk.evaluation.benchmarks import latency

    given = (tone(), "--model", model_folder, "--turns", 2, "--max-frames", 3)
    timed = latency.TimedAnswer(
        first_chunk=0.1,
        parts=dict.fromkeys(latency.PARTS, 0.0),
        num_steps=8,
        steps={phase: [0.01] for phase in latency.PHASES},
        real_time_factor=0.1,
    )
    monkeypatch.setattr(latency, "time_answer", lambda *_, **__: timed)
    shown = run(*given).stdout
    assert "first_chunk" in shown
    assert "not run" in shown
    monkeypatch.setattr("deeptalk.cli.idle.busy_cores", lambda: 0.5)
    assert "NOT valid" in run(*given, code=3).stdout
    run(*given, "--allow-busy")
    silent = latency.TimedAnswer(first_chunk=float("inf"), steps=timed.steps)
    monkeypatch.setattr(latency, "time_answer", lambda *_, **__: silent)
    assert "no sound" in run(*given, "--allow-busy", code=1).stdout


def test_waits_of_clients_are_percentiles_of_the_delays():
    waits: list[float | None] = [n / 10 for n in range(1, 101)]
    named = {
        "heard": HEARD,
        "server_ms": 5000.0,
        "server_waits": None,
        "count": 2,
        "kind": "manual",
        "is_hurried": False,
    }
    figures = served_figures(waits, **named)
    told = {name: figures["first_audio_ms"][name] for name in ("p50", "p95", "p99", "n")}
    assert told == {"p50": 5000.0, "p95": 9500.0, "p99": 9900.0, "n": 100}
    assert figures["network_ms"] == pytest.approx(50.0)
    assert figures["num_failed"] == 0
    figures = served_figures([*waits[2:], None, None], **named)
    assert (figures["first_audio_ms"]["p99"], figures["num_failed"]) == (None, 2)
    assert figures["network_ms"] is None
    assert "silence" in served_figures(waits, **named | {"kind": "server_vad"})["included"]


def test_a_servers_own_wait_for_each_answer_is_what_its_sum_has_gained():
    def page(total: float, count: int) -> str:
        name = "deeptalk_server_ttfa_seconds"
        return f'{name}_bucket{{le="0.1"}} 0\n{name}_sum {total}\n{name}_count {count}\n'

    waits = own_waits([page(1.0, 3), page(1.25, 4), page(1.25, 4), page(1.75, 5)])
    assert waits == [0.25, float("inf"), 0.5]  # the second had no sound
    assert own_waits([page(1.0, 3), page(1.5, 5)]) is None  # somebody else has asked
    assert own_waits([page(999.9, 3), page(1000.1, 4)]) is None  # milliseconds are no longer told
    assert own_waits(["", ""]) is None


def test_mistakes_are_one_line(model_folder, tmp_path):
    for arguments, complaint in (
        (("--device", "gpu"), "no device 'gpu' here"),
        (("--voice", "bob"), "'bob'"),
        (("--url", "ws://127.0.0.1:1/v1/realtime"), "--sessions"),
        ((tmp_path / "none.wav",), "no such file"),
        (("--out", tmp_path), "it is a folder"),
    ):
        (line,) = run(*arguments, "--model", model_folder, code=2).stderr.splitlines()
        assert complaint in line
