"""Corpora become manifests, recorded answers get their codes, and what doesn't fit is told in one line."""

import gc
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.cli.prepare import QUESTION_SETS, Corpus
from deeptalk.codec import SineCodec, save_codec
from deeptalk.data.corpora import CORPORA
from deeptalk.data.manifest import read_manifest
from deeptalk.evaluation.benchmarks.question_sets import read_questions


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def lines(result) -> dict[str, dict]:
    return {line["manifest"]: line for line in map(json.loads, result.stdout.splitlines())}


@pytest.fixture
def corpus(tmp_path: Path, tone) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("q", "a"):
        tone(f"mine/{name}.wav")
        (folder / f"{name}.txt").write_text(f"this is {name}")
    turns = [
        {"role": "user", "text": "what is the capital of france", "audio": "q.wav"},
        {"role": "assistant", "text": "paris", "audio": "a.wav", "speaker": "slt"},
    ]
    other = [{**turns[0], "text": "who are you"}, turns[1]]
    text = "".join(json.dumps({"messages": messages}) + "\n" for messages in (turns, other))
    (folder / "dialogues.jsonl").write_text(text + "broken\n")
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "known.jsonl"
    row = {"id": "1", "audio": "q.wav", "question": "What is the capital of France?", "answers": ["Paris"]}
    path.write_text(json.dumps(row) + "\n")
    return path


def test_a_folder_becomes_manifests(corpus, questions, tmp_path):
    out = tmp_path / "data"
    given = ("prepare", "folder", corpus, "--out", out, "--against", questions, "--licence", "CC0-1.0")
    told = lines(run(*given, "--json"))
    assert told["recordings"] == {
        "manifest": "recordings",
        "kind": "recording",
        "num_records": 2,
        "hours": 1.2 / 3600,
        "rejects": {},
        "overlaps": {},
        "num_not_compared": 0,
        "licence": "CC0-1.0",
        "path": str(out / "recordings.jsonl"),
    }
    assert (told["dialogues"]["rejects"], told["dialogues"]["overlaps"]) == (
        {"unreadable": 1},
        {str(questions): 1},
    )
    (record,) = read_manifest(out / "dialogues.jsonl", kind="dialogue").records
    assert (record["license"], record["source"]) == ("CC0-1.0", "mine")
    assert {path.stem for path in out.iterdir()} == {"recordings", "dialogues"}
    printed = run(*given).stdout
    assert "dialogues.jsonl: 1 records, 0.00 hours, licence CC0-1.0" in printed
    assert f"left out, asked by {questions}: 1" in printed


def test_lists_of_fairseq_and_kaldi_become_recordings(tmp_path, tone):
    tone("a.wav")
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na.wav\t9600\nb.wav\t9600\n")
    (tmp_path / "train.wrd").write_text("hello\nlost\n")
    (told,) = lines(
        run("prepare", "folder", tmp_path / "train.tsv", "--out", tmp_path / "d", "--json")
    ).values()
    assert (told["manifest"], told["num_records"], told["rejects"]) == ("train", 1, {"no such audio": 1})
    (record,) = read_manifest(tmp_path / "d" / "train.jsonl", kind="recording").records
    assert (record["id"], record["text"], record["duration"], record["source"]) == (
        "a",
        "hello",
        0.6,
        "train",
    )
    kaldi = tmp_path / "kaldi"
    kaldi.mkdir()
    (kaldi / "wav.scp").write_text(f"u1 {tmp_path / 'a.wav'}\n")
    (kaldi / "text").write_text("u1 hello you\n")
    run("prepare", "folder", kaldi, "--out", tmp_path / "d")
    (record,) = read_manifest(tmp_path / "d" / "kaldi.jsonl", kind="recording").records
    assert (record["id"], record["text"]) == ("u1", "hello you")
    (tmp_path / "train.wrd").write_text("hello\n")
    stderr = run("prepare", "folder", tmp_path / "train.tsv", "--out", tmp_path / "e", code=2).stderr
    assert "2 recordings, and 1 lines in its .wrd" in stderr


def test_answers_get_their_codes(corpus, tmp_path):
    out, codec = tmp_path / "data", tmp_path / "codec"
    run("prepare", "folder", corpus, "--out", out)
    save_codec(SineCodec(), codec)
    given = ("encode", out / "dialogues.jsonl", "--codec", codec, "--shard", 1, "--json")
    told = json.loads(run(*given).stdout)
    assert told == {
        "manifest": str(out / "dialogues.jsonl"),
        "num_answers": 2,
        "num_frames": 2 * 8,  # 0.6 s in frames of 85.3 ms
        "num_shards": 2,
        "num_made": 2,
        "rejects": {},
    }
    assert json.loads(run(*given).stdout)["num_made"] == 0


def test_texts_are_said_and_then_get_their_codes(tmp_path, tone):
    turns = [{"role": "user", "text": "hi"}, {"role": "assistant", "text": "hello"}]
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": "1", "messages": turns}) + "\n")
    voice = f"bob=cat {tone('voice.wav')}"
    given = ("synthesise", tmp_path / "t.jsonl", "--user", voice, "--assistant", voice, "--json")
    told = json.loads(run(*given).stdout)
    assert told == {
        "manifest": str(tmp_path / "t-spoken.jsonl"),
        "kind": "dialogue",
        "num_records": 1,
        "num_spoken": 2,
        "hours": told["hours"],
        "num_shards": 2,
        "num_made": 2,
        "rejects": {},
    }
    assert told["hours"] == pytest.approx(1.2 / 3600)
    assert json.loads(run(*given).stdout)["num_made"] == 0
    save_codec(SineCodec(), tmp_path / "codec")
    run("encode", tmp_path / "t-spoken.jsonl", "--codec", tmp_path / "codec")
    (record,) = read_manifest(tmp_path / "t-spoken.jsonl", kind="dialogue").records
    assert [set(message) & {"codes", "speaker", "voice"} for message in record["messages"]] == [
        {"voice"},
        {"codes", "speaker"},
    ]
    assert "num_spoken" in run(*given[:-1]).stdout
    stderr = run("synthesise", tmp_path / "t.jsonl", "--user", "nobody", code=2).stderr
    assert "a voice is flite:NAME, espeak-ng:NAME+VARIANT or NAME=PROGRAM" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_manifest_goes_to_shar_and_back(corpus, tmp_path):
    pytest.importorskip("lhotse", reason="deeptalk[lhotse] is not installed")
    out, packed = tmp_path / "data", tmp_path / "packed"
    run("prepare", "folder", corpus, "--out", out)
    given = ("shar", out / "dialogues.jsonl", "--out", packed, "--shard", 1, "--json")
    told = json.loads(run(*given).stdout)
    assert told == {
        "folder": str(packed / "shar"),
        "num_records": 2,
        "num_cuts": 4,
        "hours": told["hours"],
        "num_shards": 2,
        "num_made": 2,
        "rejects": {},
    }
    assert json.loads(run(*given).stdout)["num_made"] == 0
    again = ("prepare", "shar", packed, "--out", tmp_path / "again", "--workers", 1, "--json")
    (told,) = lines(run(*again)).values()
    assert (told["manifest"], told["kind"], told["num_records"]) == ("packed", "dialogue", 2)
    (first, _) = read_manifest(tmp_path / "again" / "packed.jsonl", kind="dialogue").records
    (before, _) = read_manifest(out / "dialogues.jsonl", kind="dialogue").records
    assert (first["id"], first["source"]) == (before["id"], "mine")
    assert [m["text"] for m in first["messages"]] == [m["text"] for m in before["messages"]]
    stderr = run("prepare", "shar", corpus, "--out", out, code=2).stderr
    assert "holds no Shar of lhotse" in stderr
    assert len(stderr.splitlines()) == 1
    gc.collect()


def test_published_corpora_are_told_with_their_licence(tmp_path):
    path = tmp_path / "databricks-dolly-15k.jsonl"
    path.write_text(json.dumps({"instruction": "Who?", "context": "", "response": "Ann"}) + "\n")
    (told,) = lines(run("prepare", "dolly-15k", tmp_path, "--out", tmp_path / "data", "--json")).values()
    assert (told["licence"], told["num_records"]) == ("CC-BY-SA-3.0", 1)
    (record,) = read_manifest(tmp_path / "data" / "dolly-15k.jsonl", kind="text").records
    assert (record["license"], record["source"], record["lang"]) == ("CC-BY-SA-3.0", "dolly-15k", "en")


def test_question_sets_can_be_scored(questions, tmp_path):
    out = tmp_path / "data"
    told = lines(run("prepare", "web-questions", questions, "--out", out, "--json"))
    assert (told["web-questions"]["num_records"], told["web-questions"]["kind"]) == (1, "questions")
    (item,) = read_questions(out / "web-questions.jsonl")
    assert (item.question, item.answers) == ("What is the capital of France?", ("Paris",))
    assert item.audio == tmp_path / "q.wav"


def test_seed_tts_lists_become_sentences(tmp_path):
    folder = tmp_path / "seedtts_testset"
    for name in ("zh", "en"):
        (folder / name).mkdir(parents=True)
    (folder / "en" / "meta.lst").write_text("x-1|Said before.|prompt-wavs/x.wav|To be said.\n")
    (folder / "zh" / "hardcase.lst").write_text("h-1|以前|p.wav|绕口令\n", encoding="utf-8")
    told = lines(run("prepare", "seed-tts", tmp_path, "--out", tmp_path / "data", "--json"))
    assert set(told) == {"seed-tts-en", "seed-tts-hard"}
    (record,) = read_manifest(tmp_path / "data" / "seed-tts-en.jsonl", kind="sentence").records
    assert (record["id"], record["text"], record["lang"]) == ("x-1", "To be said.", "en")
    assert (record["prompt_text"], record["license"]) == ("Said before.", "not stated")
    assert record["prompt_audio"] == str(folder / "en" / "prompt-wavs" / "x.wav")


def test_every_corpus_has_its_word():
    others = {Corpus.POCKET, Corpus.FOLDER, Corpus.SHAR, Corpus.SEED_TTS, *QUESTION_SETS}
    assert {corpus.value for corpus in set(Corpus) - others} == set(CORPORA)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("pocket", "."), "pocket is made from nothing"),
        (
            ("librispeech",),
            "deeptalk prepare librispeech DIR. It is published at https://www.openslr.org/12.",
        ),
        (("folder",), "say where folder lies: deeptalk prepare folder DIR."),
        (("librispeech", "nowhere"), "nowhere doesn't exist"),
        (("librispeech", "."), "no PART/SPEAKER/CHAPTER"),
        (("folder", "."), "holds no sound"),
        (("seed-tts", "."), "holds none of zh/meta.lst"),
        (("web-questions", ".", "--against", "x.jsonl"), "is an evaluation set itself"),
        (
            ("librispeech", ".", "--seed", "1"),
            "librispeech is read as it is: --seed and --tiny are for pocket",
        ),
        (("dolly-15k", ".", "--workers", "2"), "--workers for pocket and shar"),
        (("folder", ".", "--tiny"), "folder is read as it is"),
    ],
)
def test_slips_are_one_line(tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    stderr = run("prepare", *given, code=2).stderr
    assert words in stderr
    assert len(stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_manifest_that_is_missing_is_one_line(tmp_path):
    save_codec(SineCodec(), tmp_path / "codec")
    stderr = run("encode", tmp_path / "x.jsonl", "--codec", tmp_path / "codec", code=2).stderr
    assert "x.jsonl: no such manifest" in stderr
    assert len(stderr.splitlines()) == 1
