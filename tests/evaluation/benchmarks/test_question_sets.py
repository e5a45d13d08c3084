"""Four questions in every layout are the same four questions; what is wrong is told with its line."""

import csv
import json
from pathlib import Path

import pytest

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.question_sets import (
    QaItem,
    read_answers,
    read_questions,
    write_vita,
    write_voicebench,
)

FOUR = (
    ("0", "What is the capital of France?", ["paris", "city of paris"]),
    ("1", 'How many, "exactly"?', ["21"]),
    ("2", "Wer singt\u2028das?", ["beyoncé", "beyonce knowles"]),
    ("3", "Who?", ["o'neill"]),
)


def items_in(folder: Path) -> tuple[QaItem, ...]:
    return tuple(
        QaItem(id=name, question=question, answers=tuple(answers), audio=folder / "audios" / f"{name}.wav")
        for name, question, answers in FOUR
    )


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    return path


def write_table(path: Path, header: list[str], *rows: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def native(folder: Path) -> Path:
    records = [
        {"id": i, "audio": f"audios/{i}.wav", "question": q, "answers": a, "lang": "en"} for i, q, a in FOUR
    ]
    return write_lines(folder / "set.jsonl", *records)


def vita(folder: Path) -> Path:
    records = []
    for name, question, answers in FOUR:
        asked = {"role": "user", "content": question + "\n<|audio|>"}
        messages = [asked, {"role": "assistant", "content": answers}]
        if name == "1":
            asked["content"] = [asked["content"]]
            messages = [
                {"role": "system", "content": "Speak."},
                asked,
                {"role": "assistant", "content": answers[0]},
            ]
        records.append({"messages": messages, "audios": [f"audios/{name}.wav"]})
    (folder / "set.json").write_text(json.dumps(records))
    return folder / "set.json"


def ultraeval(folder: Path) -> Path:
    records = [{"WavPath": f"audios/{i}.wav", "question": q, "right": a} for i, q, a in FOUR]
    return write_lines(folder / "set.jsonl", *records)


def kimi(folder: Path) -> Path:
    records = [
        {"index": int(i), "audio_path": f"audios/{i}.wav", "question": q, "answer": repr(a), "subset": "s"}
        for i, q, a in FOUR
    ]
    return write_lines(folder / "set.jsonl", *records)


def openaudiobench(folder: Path) -> Path:
    table = [[q, ", ".join(a), "some value", f"{i}.wav"] for i, q, a in FOUR]
    header = ["question", "answer_normalized_aliases", "answer", "audio_filename"]
    return write_table(folder / "trivia_qa.csv", header, *table)


@pytest.mark.parametrize("write", [native, vita, ultraeval, kimi, openaudiobench])
def test_every_layout_gives_the_same_items(write, tmp_path: Path) -> None:
    found = read_questions(write(tmp_path), answer_column="right")
    assert found == items_in(tmp_path)


@pytest.mark.parametrize(
    ("name", "header", "answers", "expected"),
    [
        ("llama_questions", ["Questions", "Answer"], "Denali; a hill", ("Denali; a hill",)),
        (
            "web_questions",
            ["question", "answers"],
            "George Seifert;Dom Capers",
            ("George Seifert", "Dom Capers"),
        ),
        (
            "web_questions",
            ["question", "answers"],
            "['Paris, France', \"O'Neill\"]",
            ("Paris, France", "O'Neill"),
        ),
    ],
)
def test_sets_of_openaudiobench_in_their_folders(name, header, answers, expected, tmp_path: Path) -> None:
    write_table(tmp_path / name / f"{name}.csv", [*header, "audio_filename"], ["Who?", answers, "7.wav"])
    (item,) = read_questions(tmp_path / name)
    assert item.answers == expected
    assert item.audio == tmp_path / name / "audios" / "7.wav"
    assert item.id == "7"


def test_voicebench_has_places_for_ids_and_may_have_no_answers(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "m-sd-qa-usa-audio.jsonl", {"prompt": "a?", "reference": "x"}, {"prompt": "b?"}
    )
    first, second = read_questions(path)
    assert (first.id, first.answers, second.id, second.answers) == ("0", ("x",), "1", ())


def test_the_authors_input_has_no_answers(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "set.jsonl", {"wavpath": "a/5.wav", "question": "Who?"})
    (item,) = read_questions(path)
    assert item == QaItem(id="5", question="Who?", answers=(), audio=tmp_path / "a" / "5.wav")


def test_answers_by_id_in_two_fields(tmp_path: Path) -> None:
    items = read_questions(native(tmp_path))
    path = write_lines(
        tmp_path / "answers.jsonl",
        {"id": "3", "text": "three", "transcript": "tree"},
        {"id": "0", "text": "zero", "transcript": None},
        {"id": "1", "text": "", "transcript": "one"},
    )
    assert read_answers(path, items) == {"3": "three", "0": "zero", "1": ""}
    assert read_answers(path, items, field="transcript") == {"3": "tree", "1": "one"}
    with pytest.raises(DataError, match="line 1: there is no 'answer'; null stands"):
        read_answers(path, items, field="answer")


@pytest.mark.parametrize(
    ("write", "name"), [(write_vita, "a_hyp_ref_text.json"), (write_voicebench, "a.jsonl")]
)
def test_exports_have_every_question_and_are_read_again(write, name: str, tmp_path: Path) -> None:
    items = read_questions(native(tmp_path))
    answers = {"0": "Paris.", "2": "Beyoncé\u2028sings", "3": ""}
    write(tmp_path / name, items, answers)
    assert read_answers(tmp_path / name, items) == {"1": "", **answers}
    with pytest.raises(DataError, match="4 answers to 3 questions, and no ids"):
        read_answers(tmp_path / name, items[1:])


def test_answers_to_other_questions_are_refused(tmp_path: Path) -> None:
    items = read_questions(native(tmp_path))
    with pytest.raises(DataError, match="'9' is no question of this set"):
        read_answers(write_lines(tmp_path / "a.jsonl", {"id": "9", "text": "x"}), items)
    with pytest.raises(DataError, match="line 2: the id '0' comes twice"):
        read_answers(write_lines(tmp_path / "a.jsonl", *[{"id": "0", "text": "x"}] * 2), items)
    write_vita(tmp_path / "a.json", items[::-1], {})
    with pytest.raises(DataError, match=r"entry 0: the right answer is \[\"o'neill\"\], not that of '0'"):
        read_answers(tmp_path / "a.json", items)
    (tmp_path / "a.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="a list of"):
        read_answers(tmp_path / "a.json", items)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "can't be told"),
        ('{"other": 1}\n', "can't be told: none of the fields .* is among other"),
        ("[]", "can't be told"),
        ("[1]", "entry 0: an object is expected, got '1'"),
        ("{", "line 1: no JSON"),
        ('{"id": "a", "answers": ["x"]}\n\n{"answers": "x"}\n', "line 3: 'id' must be a text, got None"),
        ('{"id": "a", "answers": ["x"]}\n{"id": "a", "answers": "x"}\n', "the id 'a' comes twice"),
        ('{"id": "a", "answers": [1]}\n', r"'answers' must be a text or a list of texts, got \[1\]"),
        ('{"id": "a", "answers": "[\'a\' \'b\']"}\n', "line 1: a list without commas"),
        ('{"audio_path": "a.wav", "question": "q", "answer": "x"}\n', "there is no 'index'"),
        ('{"messages": [], "audios": ["a.wav"]}\n', "line 1: a question, its answer and one recording"),
        (
            '{"audios": ["c"], "messages": [{"role": "assistant", "content": "a"}, '
            '{"role": "user", "content": "b"}]}',
            "a question, its answer and one recording",
        ),
        ('{"WavPath": "a.wav", "right": "x"}\n', "one of WavPath, right; got None"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text(text)
    with pytest.raises((DataError, ConfigError), match=complaint):
        read_questions(tmp_path / "set.jsonl")


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_questions(tmp_path / "set.jsonl")
    (tmp_path / "set.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="can't be read"):
        read_questions(tmp_path / "set.jsonl")
    with pytest.raises(ConfigError, match="'kinder'; there are: native"):
        read_questions(native(tmp_path), layout="kinder")
    (tmp_path / "llama_questions.csv").write_text('Questions,Answer,audio_filename\n"open,x,1.wav\n')
    with pytest.raises(DataError, match=r"llama_questions\.csv, line \d: no CSV"):
        read_questions(tmp_path / "llama_questions.csv")
    write_table(tmp_path / "alpaca_eval.csv", ["question"], ["q"])
    with pytest.raises(DataError, match=r"must be one of llama_questions\.csv"):
        read_questions(tmp_path / "alpaca_eval.csv")
