"""Pairs of spoken answers: which samples become one, what is written of it, and what a stopped run keeps."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from deeptalk.codec import SineCodec
from deeptalk.data.dataset import Source
from deeptalk.data.manifest import read_manifest
from deeptalk.data.preference import Reference, collate_pairs, encode_pair, load_pairs
from deeptalk.decoding import Generated, LoadedModel
from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.pair_builder import PairBuilder, build_pairs, read_report, report_path
from deeptalk.evaluation.pairs import (
    PairReport,
    PairSettings,
    Sample,
    check_text,
    choose_pair,
    length_drift,
    summarise,
)
from deeptalk.model.identity import model_hash
from deeptalk.shapes import Tensor
from deeptalk.streams.text import ByteTokenizer
from deeptalk.training.preference import reference_log_probs

SAID = "one two three four"
HEARD = {1: SAID, 2: "one two", 3: "One, two three.", 4: ""}
"""What the recogniser understands of a sound whose codes are all the same number."""


def sample(code: int, num_frames: int, *, has_ended: bool = True, wer: float | None = None) -> Sample:
    rates = {1: 0.0, 2: 0.5, 3: 0.25, 4: 1.0}
    return Sample(
        codes=torch.full((num_frames, 7), code),
        has_ended=has_ended,
        transcript=HEARD[code],
        wer=rates[code] if wer is None else wer,
    )


@pytest.mark.parametrize(
    ("samples", "settings", "reason"),
    [
        ([sample(1, 4), sample(1, 4)], {}, "a tie"),
        ([sample(1, 10), sample(1, 10, wer=0.09)], {}, "gap too small"),
        ([sample(3, 4), sample(2, 4)], {}, "the best is not understood"),
        ([sample(1, 4, has_ended=False), sample(2, 4, has_ended=False)], {}, "no sample has ended"),
        ([sample(1, 0), sample(2, 0)], {}, "no sample has ended"),
        ([sample(1, 5), sample(2, 4)], {"max_frames": 4}, "the best is not understood"),
        ([sample(1, 143), sample(1, 142, wer=0.3)], {}, "the best is not understood"),
        ([sample(1, 6), sample(2, 10)], {}, "lengths differ"),
        ([sample(1, 10), sample(2, 6)], {}, "lengths differ"),
    ],
)
def test_samples_that_make_no_pair_have_a_reason(samples, settings, reason):
    with pytest.raises(DataError, match=f"^{reason}$"):
        choose_pair(samples, PairSettings(**settings))


def test_the_lowest_word_error_rate_wins_and_the_highest_loses():
    samples = [sample(3, 10), sample(1, 10), sample(2, 7)]
    win, lose = choose_pair(samples, PairSettings())
    assert (win, lose) == (samples[1], samples[2])
    silent = [sample(1, 4, has_ended=False), sample(3, 4, wer=0.1), sample(2, 4)]
    assert choose_pair(silent, PairSettings())[0] is silent[1]  # the limit of frames never wins


def test_a_loser_without_an_end_is_cut_to_twice_the_winner():
    samples = [sample(1, 5), sample(4, 142, has_ended=False)]
    win, lose = choose_pair(samples, PairSettings())
    assert (len(win.codes), len(lose.codes), lose.has_ended) == (5, 10, False)
    _, other = choose_pair(samples, PairSettings(max_ratio=1.5))
    assert len(other.codes) == 7
    _, short = choose_pair([sample(1, 80), samples[1]], PairSettings())
    assert len(short.codes) == 142


@pytest.mark.parametrize(
    ("text", "target", "settings", "reason"),
    [
        ("One two.", "one two", {}, None),
        ("one too", "one two", {}, "own text deviates from the target"),
        ("one too", "one two", {"max_text_wer": 0.5}, None),
        ("something else", "one two", {"instruction": "paraphrase"}, None),
        ("...", "one two", {"instruction": "paraphrase"}, "no words to say"),
        ("one", "!", {}, "no words to say"),
    ],
)
def test_the_own_text_of_a_repetition_is_its_target(text, target, settings, reason):
    if reason is None:
        check_text(text, target, PairSettings(**settings))
        return
    with pytest.raises(DataError, match=f"^{reason}$"):
        check_text(text, target, PairSettings(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"num_samples": 1},
        {"max_ratio": 0.5},
        {"instruction": "sing"},
        {"reference": "none"},
        {"precision": "fp8"},
        {"instruction": "paraphrase", "reference": "target"},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        PairSettings(**settings)


def entry(win: tuple[float, int], lose: tuple[float, int], frames: list[int], *, is_cut: bool = False):
    sides = {
        side: {"wer": wer, "codes": [[0] * 7] * length, "is_cut": is_cut and side == "lose"}
        for side, (wer, length) in (("win", win), ("lose", lose))
    }
    return {"id": "x", "frames": frames, "reason": None, "pair": sides}


def test_the_report_by_hand():
    left_out = {"id": "y", "frames": [3, 3], "reason": "a tie", "pair": None}
    entries = [
        entry((0.0, 10), (0.5, 12), [10, 12]),
        entry((0.1, 6), (0.9, 12), [6, 20], is_cut=True),
        entry((0.2, 8), (0.4, 7), [8, 7]),
        left_out,
        left_out | {"frames": [], "reason": "own text does not end"},
        left_out,
    ]
    report = summarise(entries)
    assert (report.num_prompts, report.num_pairs, report.num_cut) == (6, 3, 1)
    assert report.discarded == {"a tie": 2, "own text does not end": 1}
    assert (report.mean_frames_win, report.mean_frames) == (8.0, 7.5)
    assert report.mean_frames_lose == pytest.approx(31 / 3)
    assert report.mean_wer_win == pytest.approx(0.1)
    assert report.mean_wer_lose == pytest.approx(0.6)
    gaps, longer = torch.tensor([0.5, 0.8, 0.2]), torch.tensor([2.0, 6.0, -1.0])
    expected = float(torch.corrcoef(torch.stack([gaps, longer]))[0, 1])
    assert report.margin_length_correlation == pytest.approx(expected, abs=1e-5)
    few = summarise(entries[:1])
    assert few.margin_length_correlation is None
    nothing = summarise([left_out | {"frames": []}])
    assert nothing.mean_frames_win is None
    assert length_drift(few, report) == pytest.approx(11 / 7.5 - 1)
    assert length_drift(nothing, report) is None


class ScriptedEngine:
    """Says of each text what a script tells: the own text, and for each sample code, frames and ending."""

    def __init__(
        self, loaded: LoadedModel, script: dict[str, tuple[str, list[tuple[int, int, str]]]]
    ) -> None:
        self.model, self.layout, self.script = loaded.model, loaded.model.layout, script
        self.seeds: list[int] = []

    def generate(self, prompts, *, options, seeds) -> list[Generated]:
        self.seeds += seeds
        asked, found = Counter(), []
        for prompt in prompts:
            written = ByteTokenizer().decode(prompt.grid[0].tolist())
            target = next(text for text in self.script if f"aloud: {text}\n" in written)
            own, samples = self.script[target]
            code, num_frames, reason = samples[asked[target]]
            asked[target] += 1
            codes = torch.full((num_frames, 7), code)
            ids = tuple(ByteTokenizer().encode(own))
            found.append(Generated(text_ids=ids, codes=codes, finish_reason=reason))
        return found


class SineEars:
    """Understands the codes of sines."""

    name, hash = "sines", "0"

    def transcribe(self, sounds: Sequence[Tensor], *, sample_rate: int) -> list[str]:
        return [HEARD[int(SineCodec().encode(sound[None])[0, 0, 0])] for sound in sounds]


SCRIPT = {
    SAID: (" " + SAID, [(3, 5, "stop"), (1, 4, "stop"), (2, 5, "stop")]),
    "one two three FOUR": (" one two three FOUR", [(1, 3, "stop"), (4, 9, "length"), (1, 3, "stop")]),
    "one, two three four": (" one, two three four", [(1, 3, "stop")] * 3),
    "five": (" six", [(1, 3, "stop")] * 3),
    "seven": (" seven" * 40, [(1, 3, "length")] * 3),
    "one two three four!": ("one two three four!", [(1, 3, "stop"), (2, 3, "stop"), (2, 3, "stop")]),
}
RECORDS = [{"id": f"p{number}", "text": text} for number, text in enumerate(SCRIPT)]


@pytest.fixture
def builder(loaded: LoadedModel) -> PairBuilder:
    engine = ScriptedEngine(loaded, SCRIPT)
    scripted = LoadedModel(engine=engine, codec=SineCodec())  # type: ignore[arg-type]
    return PairBuilder(scripted, SineEars(), voice="rms")


def test_a_pair_is_written_with_all_that_it_was_made_from(
    builder: PairBuilder, loaded: LoadedModel, tmp_path: Path
):
    out = tmp_path / "deep" / "pairs.jsonl"
    report = build_pairs(builder, RECORDS, out, batch_size=4)
    assert report is not None
    assert (report.num_prompts, report.num_pairs, report.num_cut) == (6, 2, 1)
    assert report.discarded == {
        "a tie": 1,
        "own text deviates from the target": 1,
        "own text does not end": 1,
        "own text in unusual tokens": 1,  # it lacks the blank that training puts before it
    }
    one, cut = read_manifest(out, kind="preference").records
    assert (one["prompt"], one["text"], one["speaker"]) == (f"Read this aloud: {SAID}", SAID, "rms")
    assert (one["win"]["codes"], one["win"]["wer"], one["win"]["transcript"]) == ([[1] * 7] * 4, 0.0, SAID)
    assert (one["lose"]["wer"], one["lose"]["transcript"], one["lose"]["is_cut"]) == (0.5, "one two", False)
    assert (len(cut["lose"]["codes"]), cut["lose"]["is_cut"]) == (6, True)
    sampler = one["sampler"]
    assert sampler["recogniser"] == {"name": "sines", "hash": "0"}
    assert (sampler["top_k"], sampler["temperature"], sampler["num_samples"]) == (10, 1.0, 3)
    assert sampler["model"] == one["ref_logp"]["model"] == model_hash(loaded.model)
    assert sorted(path.name for path in out.parent.iterdir()) == ["pairs.jsonl", "pairs.report.json"]
    assert read_report(out) == report


def test_the_reference_is_what_training_computes(builder: PairBuilder, loaded: LoadedModel, tmp_path: Path):
    build_pairs(builder, RECORDS, tmp_path / "pairs.jsonl")
    layout = loaded.model.layout
    read = load_pairs(
        Source(manifest="pairs", task="preference"),
        tmp_path,
        layout=layout,
        reference=Reference(model=model_hash(loaded.model)),
    )
    encoded = [encode_pair(pair, tokenizer=ByteTokenizer(), layout=layout) for pair in read.pairs]
    batch = collate_pairs(encoded, layout=layout)
    assert batch.ref_log_prob.shape == (2, 2)
    assert (batch.ref_log_prob < -50).all()
    assert torch.allclose(batch.ref_log_prob, reference_log_probs(loaded.model, batch), rtol=1e-5)


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been(builder: PairBuilder, tmp_path: Path):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    build_pairs(builder, RECORDS, whole, batch_size=2)
    seeds = list(builder.loaded.engine.seeds)
    builder.loaded.engine.seeds.clear()
    told: list[tuple[int, int]] = []
    stop = iter([False, True])
    stopped = build_pairs(
        builder,
        RECORDS,
        parts,
        batch_size=2,
        progress=lambda done, total: told.append((done, total)),
        should_stop=lambda: next(stop),
    )
    assert stopped is None
    assert told == [(2, 6)]
    assert not parts.exists()
    with parts.with_suffix(".part").open("a") as journal:
        journal.write('{"id": "p2", "fra')  # a line that a crash has cut
    assert build_pairs(builder, RECORDS, parts, batch_size=2) == read_report(whole)
    assert parts.read_bytes() == whole.read_bytes()
    assert builder.loaded.engine.seeds == seeds
    assert len(set(seeds)) == 18
    builder.loaded.engine.seeds.clear()
    assert build_pairs(builder, RECORDS, parts) == read_report(whole)
    assert not builder.loaded.engine.seeds  # finished: nothing is sampled again


def test_files_of_other_makers_are_left_alone(builder: PairBuilder, tmp_path: Path):
    out = tmp_path / "pairs.jsonl"
    with pytest.raises(ConfigError, match=r"named \.jsonl"):
        build_pairs(builder, RECORDS, tmp_path / "pairs.json")
    out.write_text("mine\n")
    with pytest.raises(DataError, match="remove it"):
        build_pairs(builder, RECORDS, out)
    assert out.read_text() == "mine\n"
    out.unlink()
    build_pairs(builder, RECORDS, out, should_stop=lambda: True)
    with pytest.raises(DataError, match=r"pairs\.part was made of other prompts"):
        build_pairs(builder, RECORDS[:3], out)
    build_pairs(builder, RECORDS, out)
    with pytest.raises(DataError, match=r"pairs\.jsonl was made of other prompts"):
        build_pairs(builder, RECORDS[:3], out)
    other = PairBuilder(builder.loaded, SineEars(), PairSettings(min_gap=0.3), voice="rms")
    with pytest.raises(DataError, match="in another way"):
        build_pairs(other, RECORDS, out)
    report_path(out).write_text("[]")
    with pytest.raises(DataError, match="no report on pairs"):
        build_pairs(builder, RECORDS, out)


def test_samples_share_one_text_and_differ_in_their_codes(loaded: LoadedModel):
    settings = PairSettings(max_frames=3, max_text_tokens=4, num_samples=4)
    builder = PairBuilder(loaded, SineEars(), settings, voice="slt")
    records = [{"id": "a", "text": "hello"}, {"id": "b", "text": "hello"}]
    first, second = builder.sample(records)
    assert len({answer.text_ids for answer in first}) == 1
    for answers in (first, second):
        assert len(answers) == 4
        assert len({str(answer.codes.tolist()) for answer in answers}) == 4
        assert all(1 <= len(answer.codes) <= 3 for answer in answers)
    assert str(first[0].codes.tolist()) != str(second[0].codes.tolist())
    again = builder.sample(records)[0]
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(first, again, strict=True))
    (one, other) = builder.build(records)
    assert one["pair"] is None
    assert one["reason"] == other["reason"]
    assert one["frames"] == []


def test_a_voice_that_the_model_lacks_is_refused(loaded: LoadedModel):
    with pytest.raises(ConfigError, match="bob"):
        PairBuilder(loaded, SineEars(), voice="bob")
    assert PairBuilder(loaded, SineEars()).speaker in loaded.voices


def test_a_report_is_plain_json(builder: PairBuilder, tmp_path: Path):
    build_pairs(builder, RECORDS, tmp_path / "pairs.jsonl")
    values = json.loads(report_path(tmp_path / "pairs.jsonl").read_text())
    assert values.pop("made_from")["prompts"]
    assert PairReport(**values).num_pairs == 2
