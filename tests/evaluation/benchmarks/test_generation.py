"""A model asked item by item: every line is there, nothing is asked twice, what can't be heard is told."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from deeptalk.decoding import DecodingOptions, Limits, LoadedModel, Sampling
from deeptalk.errors import DataError
from deeptalk.evaluation.answers import Asked, Respondent
from deeptalk.evaluation.benchmarks import generation
from deeptalk.evaluation.benchmarks.generation import ANSWERS, CACHE, Ask, Generator, claim_folder, generate
from deeptalk.evaluation.pocket import sound_of

SETTINGS = {"model": "m1", "limits": [4, 3]}


class Counting(Respondent):
    """Notes how many items each call has asked."""

    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__(loaded.engine, limits=Limits(max_frames=3, max_text_tokens=4))
        self.calls: list[int] = []

    def answer(self, asked: Sequence[Asked], **how):
        self.calls.append(len(asked))
        return super().answer(asked, **how)


class Listener:
    """Hears how long each sound is."""

    name = "counting"

    def __init__(self, hash: str) -> None:
        self.hash, self.calls = hash, list[int]()

    def transcribe(self, sounds: Sequence[torch.Tensor], *, sample_rate: int) -> list[str]:
        assert sample_rate == 16_000
        self.calls.append(len(sounds))
        return [f"{self.hash} {len(sound)}" for sound in sounds]


@pytest.fixture
def respondent(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setattr(generation, "BATCH_SIZE", 2)
    return Counting(loaded)


@pytest.fixture
def speaking(respondent: Counting, loaded: LoadedModel) -> Generator:
    mode = f"speaker:{loaded.voices[0]}"
    return Generator(respondent=respondent, mode=mode, longest_seconds=2.0, codec=loaded.codec)


def written(*texts: str) -> list[Ask]:
    return [Ask(id=f"q{i}", audio=None, text=text) for i, text in enumerate(texts)]


def tone(path: Path, pitch: float, *, seconds: float = 0.5) -> Path:
    wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * 16_000)) / 16_000)
    soundfile.write(path, wave, 16_000)
    return path


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / ANSWERS).read_text().splitlines()]


def test_answers_are_the_respondents_and_their_sound_is_saved(speaking, respondent, loaded, tmp_path) -> None:
    asks = [*written("a", "bc", "hello"), Ask(id="s", audio=tone(tmp_path / "s.wav", 440))]
    found = generate(asks, speaking, tmp_path / "run", settings=SETTINGS)
    assert found is not None
    assert [one.id for one in found] == ["q0", "q1", "q2", "s"]
    spoken = respondent.spoken(torch.from_numpy(soundfile.read(tmp_path / "s.wav", dtype="float32")[0]))
    alone = [
        respondent.answer([respondent.written(text)], mode=speaking.mode)[0] for text in ("a", "bc", "hello")
    ]
    alone += respondent.answer([spoken], mode=speaking.mode)
    assert [(one.text, one.finish_reason) for one in found] == [(a.text, a.finish_reason) for a in alone]
    assert any(one.audio for one in found)
    for one, answered in zip(found, alone, strict=True):
        if not len(answered.codes):
            assert one.audio is one.seconds is None
            continue
        samples, rate = soundfile.read(tmp_path / "run" / one.audio, dtype="float32")
        sound = sound_of(answered, loaded.codec).numpy()
        assert (one.audio, rate, one.seconds) == (
            f"audio/{one.id}.wav",
            loaded.codec.sample_rate,
            len(sound) / rate,
        )
        assert np.abs(samples - sound.clip(-1, 1)).max() < 1e-3
    assert lines_of(tmp_path / "run")[0] == {
        **dict(id="q0", text=found[0].text, audio=found[0].audio, seconds=found[0].seconds, transcript=None),
        **dict(finish_reason=found[0].finish_reason, reason=""),
    }


def test_what_is_drawn_depends_on_the_seed_and_the_item_alone(loaded, tmp_path, monkeypatch) -> None:
    limits = Limits(max_frames=4, max_text_tokens=4)
    options = DecodingOptions(codec=Sampling(temperature=1.0), limits=limits)

    def drawn(folder: str, *asks: Ask, seed: int, batch: int) -> dict[str, bytes]:
        monkeypatch.setattr(generation, "BATCH_SIZE", batch)
        generator = Generator(
            respondent=Respondent(loaded.engine, options=options),
            mode=f"speaker:{loaded.voices[0]}",
            longest_seconds=2.0,
            codec=loaded.codec,
            seed=seed,
        )
        generate(asks, generator, tmp_path / folder, settings=SETTINGS)
        return {ask.id: (tmp_path / folder / "audio" / f"{ask.id}.wav").read_bytes() for ask in asks}

    asks = written("a", "bc", "hello")
    together = drawn("together", *asks, seed=1, batch=3)
    assert drawn("turned", *asks[::-1], seed=1, batch=1) == together
    assert drawn("other", *asks, seed=2, batch=3) != together


def test_an_interrupted_run_goes_on(speaking, respondent, tmp_path) -> None:
    asks, seen = written("a", "b", "c", "d", "e"), []

    def progress(name: str, done: int, total: int) -> None:
        seen.append((name, done, total))

    stops = iter([False, True])
    assert generate(asks, speaking, tmp_path, settings=SETTINGS, should_stop=lambda: next(stops)) is None
    assert not (tmp_path / ANSWERS).exists()
    with (tmp_path / CACHE).open("a") as file:
        file.write('{"key": "cut o')  # killed while it wrote
    found = generate(asks, speaking, tmp_path, settings=SETTINGS, progress=progress)
    assert respondent.calls == [2, 2, 1]
    assert seen == [("answers", 2, 5), ("answers", 4, 5), ("answers", 5, 5)]
    assert generate(asks, speaking, tmp_path, settings=SETTINGS) == found
    assert len(respondent.calls) == 3
    assert generate(asks, speaking, tmp_path / "other", settings=SETTINGS) == found


def test_an_answer_is_known_by_the_content_of_its_question(speaking, respondent, tmp_path) -> None:
    clips, run = [tone(tmp_path / f"{pitch}.wav", pitch) for pitch in (300, 400)], tmp_path / "run"
    first = generate([Ask(id=c.stem, audio=c) for c in clips], speaking, run, settings=SETTINGS)
    assert first is not None
    renamed = clips[0].rename(tmp_path / "new.wav")
    found = generate([Ask(id="new", audio=renamed)], speaking, run, settings=SETTINGS)
    assert found == (replace(first[0], id="new"),)
    assert respondent.calls == [2]
    assert all(one.audio for one in first)
    tone(clips[1], 500)
    generate([Ask(id="400", audio=clips[1])], speaking, run, settings=SETTINGS)
    assert respondent.calls == [2, 1]
    tone(clips[1], 400)  # as it was
    tone(run / "audio" / "400.wav", 500)  # the sound of another answer
    again = generate([Ask(id="400", audio=clips[1])], speaking, run, settings=SETTINGS)
    assert respondent.calls == [2, 1, 1]
    assert again == (first[1],)
    (run / "audio" / "300.wav").unlink()
    generate([Ask(id="new", audio=renamed)], speaking, run, settings=SETTINGS)
    assert respondent.calls == [2, 1, 1, 1]


def test_what_can_not_be_heard_is_told_without_a_path_and_asked_again(speaking, respondent, tmp_path) -> None:
    silent, long = tmp_path / "silent.wav", tone(tmp_path / "long.wav", 300, seconds=2.1)
    soundfile.write(silent, np.zeros(8_000), 16_000)
    good = tone(tmp_path / "good.wav", 300)
    asks = [Ask(id=path.stem, audio=path) for path in (silent, good, long, tmp_path / "none.wav")]
    found = generate(asks, speaking, tmp_path / "run", settings=SETTINGS)
    assert found is not None
    assert {one.id: one.reason for one in found} == {
        "silent": "silent.wav: the recording is silent.",
        "good": "",
        "long": "long.wav: longer than 2 s.",
        "none": "none.wav: there is no such file.",
    }
    assert [one.text is None for one in found] == [True, False, True, True]
    assert [one.finish_reason is None for one in found] == [True, False, True, True]
    tone(silent, 350)
    again = generate(asks, speaking, tmp_path / "run", settings=SETTINGS)
    assert again is not None
    assert [one.text is None for one in again] == [False, False, True, True]
    assert sum(respondent.calls) == 2


@pytest.mark.parametrize(("sentence", "longest"), [(None, 0.5), (0.5, 30.0)])
def test_a_long_recording_is_transcribed_in_parts(
    respondent, tmp_path, monkeypatch, sentence, longest
) -> None:
    path, model = tone(tmp_path / "a.wav", 300, seconds=1.2), respondent.engine.model
    monkeypatch.setattr(model, "config", replace(model.config, sentence_seconds=sentence))
    hearing = Generator(respondent=respondent, mode="asr", longest_seconds=longest)
    (one,) = generate([Ask(id="a", audio=path)], hearing, tmp_path, settings=SETTINGS) or ()
    (number,) = respondent.calls
    assert number >= 3
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    parts = generation.audible_parts(samples, longest_seconds=0.5)
    texts = [respondent.answer([respondent.spoken(part)], mode="asr")[0] for part in parts]
    assert one.text == " ".join(part.text for part in texts if part.text)
    assert one.finish_reason == ("length" if any(p.finish_reason == "length" for p in texts) else "stop")
    assert one.audio is None


def test_transcripts_are_kept_by_recogniser_and_sound(speaking, tmp_path) -> None:
    asks, first = written("a", "bc", "hello", "x"), Listener("h1")
    found = generate(asks, speaking, tmp_path, settings=SETTINGS, recogniser=first)
    assert found is not None
    spoken = [one for one in found if one.audio]
    assert spoken
    assert sum(first.calls) == len(spoken)
    for one in found:
        heard = None if one.seconds is None else f"h1 {round(one.seconds * 16_000)}"
        assert one.transcript == heard
    again = Listener("h1")
    assert generate(asks, speaking, tmp_path, settings=SETTINGS, recogniser=again) == found
    assert not again.calls
    other = generate(asks, speaking, tmp_path, settings=SETTINGS, recogniser=Listener("h2")) or ()
    assert all((one.transcript or "h2").startswith("h2") for one in other)
    stop = lambda: True  # noqa: E731
    third = Listener("h3")
    assert generate(asks, speaking, tmp_path, settings=SETTINGS, recogniser=third, should_stop=stop) is None
    assert not third.calls
    assert lines_of(tmp_path)[0]["transcript"] == other[0].transcript


def test_a_folder_of_another_model_and_an_id_that_is_no_name(speaking, respondent, tmp_path) -> None:
    generate(written("a"), speaking, tmp_path / "run", settings=SETTINGS)
    before = (tmp_path / "run" / ANSWERS).read_bytes()
    with pytest.raises(DataError, match="run holds a run of another model or of other settings"):
        generate(written("b"), speaking, tmp_path / "run", settings=SETTINGS | {"model": "m2"})
    assert (tmp_path / "run" / ANSWERS).read_bytes() == before
    for name in ("../a", "a/b", "", ".."):
        with pytest.raises(DataError, match="can't name a sound file"):
            generate([Ask(id=name, audio=None, text="a")], speaking, tmp_path / "new", settings=SETTINGS)
    assert not (tmp_path / "new").exists()
    assert respondent.calls == [1]


def test_a_run_goes_on_by_other_code_and_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    claim_folder(path, {"model": "m", "limits": {"max_frames": 3}, "git": "one", "device": "a"})
    claim_folder(path, {"model": "m", "limits": {"max_frames": 3}, "git": "two", "device": "b"})
    assert json.loads(path.read_text())["git"] == "two"
    with pytest.raises(DataError, match="another model or of other settings"):
        claim_folder(path, {"model": "m", "limits": {"max_frames": 4}, "git": "two", "device": "b"})


def test_the_time_that_recordings_took_is_kept_and_not_counted_twice(speaking, tmp_path) -> None:
    asks = [Ask(id=f"s{n}", audio=tone(tmp_path / f"s{n}.wav", 300 + n, seconds=0.5)) for n in range(3)]
    asks += [Ask(id="gone", audio=tmp_path / "gone.wav"), *written("a")]
    ticks = iter(range(0, 1000, 3))
    told = []
    for _ in range(2):
        generate(asks, speaking, tmp_path / "run", settings=SETTINGS, now=lambda: float(next(ticks)))
        told.append(json.loads((tmp_path / "run" / "timing.json").read_text()))
    # Two at a time, three seconds a batch; the third stands beside the one that is not there.
    assert told[0] == {
        "num_timed": 3,
        "audio_seconds": 1.5,
        "compute_seconds": 4.5,
        "rtfx": pytest.approx(1.5 / 4.5),
    }
    assert told[0] == told[1]
    generate(asks, speaking, tmp_path / "untimed", settings=SETTINGS)
    assert json.loads((tmp_path / "untimed" / "timing.json").read_text())["rtfx"] is None
