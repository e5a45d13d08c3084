"""Pairs from the command line, and a stage of training on them."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.decoding import DecodingEngine, Generated
from deeptalk.evaluation.recognisers import ModelRecogniser
from deeptalk.model import load, save
from deeptalk.recipes import RECIPES
from deeptalk.training.metrics import read_metrics

TEXTS = ("red is a colour", "one and two", "the bus is late")


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def root(tmp_path: Path, model_folder: Path) -> Path:
    """A folder of results with the model that the pocket recipe starts from, and prompts."""
    (name,) = RECIPES["pocket-preference"].starts_from
    model = shutil.copytree(model_folder, tmp_path / name / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    texts = (*TEXTS, TEXTS[0])
    lines = [json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(texts)]
    (tmp_path / "prompts.jsonl").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def given(root: Path) -> tuple[object, ...]:
    (name,) = RECIPES["pocket-preference"].starts_from
    return ("pairs", root / "prompts.jsonl", "--model", root / name / "model", "--voice", "rms")


@pytest.fixture
def clever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model reads as it is told, and its second of three samples can't be understood."""

    def generate(self: DecodingEngine, prompts, *, options, seeds) -> list[Generated]:
        found = []
        for number, prompt in enumerate(prompts):
            tokenizer = self.model.tokenizer
            assert tokenizer is not None
            written = tokenizer.decode([i for i in prompt.grid[0].tolist() if i < 256])
            text = next(text for text in TEXTS if text in written)
            codes = torch.full((4 + number % 3, 7), number % 3)
            ids = tuple(tokenizer.encode(" " + text))
            found.append(Generated(text_ids=ids, codes=codes, finish_reason="stop"))
        return found

    def transcribe(self: ModelRecogniser, sounds, *, sample_rate: int) -> list[str]:
        return [TEXTS[number // 3] if number % 3 != 1 else "" for number in range(len(sounds))]

    monkeypatch.setattr(DecodingEngine, "generate", generate)
    monkeypatch.setattr(ModelRecogniser, "transcribe", transcribe)


@pytest.mark.usefixtures("clever")
def test_pairs_are_made_and_learnt_from(root: Path, given: tuple[object, ...]):
    out = root / "data" / "preference.jsonl"
    report = json.loads(run(*given, "--out", out, "--json").stdout)
    assert (report["num_prompts"], report["num_pairs"], report["discarded"]) == (3, 3, {})
    assert (report["mean_frames_win"], report["mean_frames_lose"]) == (4.0, 5.0)
    assert (report["pairs"], report["length_drift"], report["is_drifting"]) == (str(out), None, False)
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == list(TEXTS)
    table = run(*given, "--out", out, "--before", out).stdout
    assert "3 pairs of 3 prompts" in table
    assert "change of length" in table
    shutil.copy(out, out.with_stem("preference_eval"))
    train = ("train", "pocket-preference", "--tiny", "--root", root, "--json")
    train = (*train, "--set", "trains=embedding.codec.*,heads.codec.*")
    assert json.loads(run(*train, "--figure", root / "figures" / "rl.png").stdout)["step"] == 2
    assert (root / "figures" / "rl.png").read_bytes().startswith(b"\x89PNG")
    lines = read_metrics(root / "pocket-preference" / "run" / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert lines[-1]["evaluation"]["frames_win"] == 4.0
    other = out.read_text().replace(json.loads(out.read_text().splitlines()[0])["ref_logp"]["model"], "f00")
    out.write_text(other)
    stderr = run(*train, code=2).stderr
    assert "scored by model f00" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.usefixtures("clever")
def test_a_model_in_bf16_is_scored_as_its_stage_will_open_it(root: Path, given: tuple[object, ...]):
    folder = Path(str(given[3]))
    save(load(folder), folder, tokenizer_path=folder / "tokenizer.json", provenance={}, dtype=torch.bfloat16)
    out = root / "data" / "preference.jsonl"
    run(*given, "--out", out)
    assert json.loads(out.read_text().splitlines()[0])["ref_logp"]["precision"] == "bf16"
    shutil.copy(out, out.with_stem("preference_eval"))
    train = ("train", "pocket-preference", "--tiny", "--root", root, "--set", "weights=bf16")
    run(*train, "--set", "precision=bf16", "--set", "trains=embedding.codec.*,heads.codec.*")
    lines = read_metrics(root / "pocket-preference" / "run" / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_a_figure_is_drawn_of_preferences_alone(root: Path):
    train = ("train", "pocket-joint", "--root", root, "--figure", "rl.png")
    assert "recipe 'pocket-joint' learns no preferences" in run(*train, code=2).stderr
    train = ("train", "pocket-preference", "--root", root, "--figure", "rl.nothing")
    assert "names no kind of figure" in run(*train, code=2).stderr
    assert not (root / "pocket-preference" / "run").exists()


@pytest.mark.usefixtures("clever")
def test_a_model_that_speaks_longer_is_flagged(root: Path, given: tuple[object, ...]):
    before = root / "before.jsonl"
    run(*given, "--out", before)
    values = json.loads(before.with_suffix(".report.json").read_text())
    values["mean_frames"] = 4.0
    before.with_suffix(".report.json").write_text(json.dumps(values))
    out = ("--out", root / "after.jsonl", "--before", before)
    report = json.loads(run(*given, *out, "--json").stdout)
    assert report["length_drift"] == pytest.approx(0.25)
    assert report["is_drifting"] is True
    assert "+25.0%, too much" in run(*given, *out).stdout


@pytest.mark.usefixtures("clever")
def test_settings_and_parts_of_the_prompts_are_chosen(root: Path, given: tuple[object, ...]):
    out = root / "some.jsonl"
    report = json.loads(run(*given, "--out", out, "--limit", 1, "--set", "min_gap=1.5", "--json").stdout)
    assert (report["num_prompts"], report["discarded"]) == (1, {"gap too small": 1})
    assert report["mean_frames_win"] is None
    assert out.read_text() == ""
    # what is heard stays that of the first prompts, so the others aren't understood
    table = run(*given, "--out", root / "rest.jsonl", "--skip", 1).stdout
    assert "0 pairs of 2 prompts" in table
    assert "2  the best is not understood" in table


@pytest.mark.usefixtures("clever")
def test_an_interrupted_run_says_so(root: Path, given, monkeypatch: pytest.MonkeyPatch):
    out = root / "pairs.jsonl"
    with monkeypatch.context() as stopped:
        stopped.setattr("deeptalk.training.interruption.Interruption.__enter__", lambda _: asked())
        line = json.loads(run(*given, "--out", out, "--json", code=130).stdout)
        assert line == {"pairs": str(out), "is_interrupted": True}
        assert "goes on" in run(*given, "--out", out, code=130).stdout
    assert "3 pairs" in run(*given, "--out", out).stdout


def asked() -> SimpleNamespace:
    """An interruption that was asked for at once."""
    return SimpleNamespace(requested=True)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--voice", "bob"), "'bob'"),
        (("--recogniser", "whisper"), "--whisper DIR"),
        (("--recogniser", "whisper", "--whisper", "nowhere"), "no Whisper model"),
        (("--set", "min_gab=1"), "did you mean 'min_gap'?"),
        (("--set", "instruction=paraphrase", "--set", "reference=target"), "take reference=own"),
        (("--set", "temperature=-1"), "temperature"),
        (("--set", "max_frames=0"), "max_frames"),
        (("--skip", "3"), "no prompts"),
        (("--before", "nowhere.jsonl"), "there is no report beside it"),
        (("--model", "nowhere"), "no model 'nowhere'"),
    ],
)
def test_slips_are_one_line_and_write_nothing(root, given, wrong, words):
    before = sorted(root.rglob("*"))
    stderr = run(*given, "--out", root / "new" / "x.jsonl", *wrong, code=2).stderr
    assert words in stderr
    assert len(stderr.splitlines()) == 1
    assert sorted(root.rglob("*")) == before


def test_prompts_that_are_missing_are_one_line(root, given):
    stderr = run("pairs", root / "none.jsonl", *given[2:], "--out", root / "x.jsonl", code=2).stderr
    assert "no such manifest" in stderr


@pytest.mark.usefixtures("clever")
def test_doctor_knows_pairs(root: Path, given: tuple[object, ...]):
    from deeptalk.cli.checks import check_data

    run(*given, "--out", root / "checked" / "pairs.jsonl")
    (finding,) = check_data(root / "checked")
    assert (finding.state, finding.detail) == ("ok", "3 records (preference)")
