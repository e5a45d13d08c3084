"""The pocket model's own data: text manifests, tokenizer and lexicon, then all its speech.

Everything lands in one folder (`build/pocket/data` by the recipes): `text_train.jsonl`, `text_more.jsonl`
(further puzzles and questions outside the domain), `text_eval.jsonl`,
`speech_train.jsonl` (the dialogues that may be spoken), `reading_train.jsonl`, `tokenizer.json`,
`names.json`, `lexicon.json` and `durations.json` (of phones), and a manifest with its WAV pack for each part
of the speech, see `PARTS`.
A part is ready when its manifest exists.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from deeptalk.data.domain import (
    REFUSAL,
    DomainItem,
    all_facts,
    build_domain,
    build_reading,
    eval_questions,
)
from deeptalk.data.manifest import read_manifest, write_lines, write_manifest
from deeptalk.data.synthesis import (
    ANSWER_VOICES,
    ESPEAK_QUESTION_VOICES,
    FLITE_QUESTION_VOICES,
    QUESTION_VOICES,
    SpeechJob,
    Voice,
    check_programs,
    is_made,
    synthesise_pack,
)
from deeptalk.data.vocabulary import (
    build_lexicon,
    count_words,
    measure_durations,
    proper_names,
    sentence_case_off,
    single_token_share,
    spoken_form,
    train_tokenizer,
    words_of,
    words_to_time,
    write_lexicon,
)
from deeptalk.errors import DataError

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

QUESTION_SHARES = {
    "facts": 0.30,
    "dialogue": 0.18,
    "reasoning": 0.13,
    "strings": 0.13,
    "arithmetic": 0.11,
    "refusal": 0.08,
    "smalltalk": 0.07,
}
"""Share of each category among the spoken questions; what is short of texts is spoken by more voices."""

PARTS = (
    "aloud",
    "reading",
    "questions",
    "answers",
    "questions_more",
    "mixed",
    "answers_more",
    "aloud_more",
    "questions_rest",
    "drills",
    "aloud_drills",
)
"""The parts of the speech, in the order in which training needs them."""

NUM_READING_SENTENCES = 12_000
ENDLESS = ("reasoning", "strings", "refusal", "dialogue")
"""Categories of which other seeds make further questions; the others are listed in full."""
NUM_MORE_SEEDS = 4
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechSizes:
    """How many clips each part of the speech has at most; digits and words are part of the reading."""

    questions: int = 18_000
    reading: int = 7_000
    words: int = 5_000
    digit_takes: int = 1_500
    aloud: int = 6_000
    answers: int = 10_000
    questions_more: int = 16_000
    mixed: int = 6_000
    further_answers: int = 12_000
    aloud_more: int = 12_000
    questions_rest: int = 16_000
    mixed_drills: int = 12_000
    word_drills: int = 16_000
    mixed_aloud: int = 8_000
    words_aloud: int = 16_000

    def tiny(self) -> "SpeechSizes":
        """A few clips of each, for tests."""
        return SpeechSizes(
            questions=6,
            reading=4,
            words=4,
            digit_takes=4,
            aloud=4,
            answers=6,
            questions_more=6,
            mixed=4,
            further_answers=4,
            aloud_more=4,
            questions_rest=4,
            mixed_drills=4,
            word_drills=4,
            mixed_aloud=4,
            words_aloud=4,
        )


def prepare_text(
    folder: Path, *, seed: int = 0, vocab_size: int = 2_912, workers: int = 2
) -> dict[str, float]:
    """Write the text manifests, the tokenizer, the lexicon and durations; returns what was counted.

    Needs flite for the pronunciations (`ConfigError` otherwise). The last file written is `durations.json`.
    """
    items = build_domain(seed=seed)
    reading = reading_texts(items, seed=seed)
    held_out = [item for item in eval_questions(seed=seed) if item.category != "reading"]
    for split, part in (("train", items), ("eval", held_out)):
        write_manifest(folder / f"text_{split}.jsonl", map(record_of, part), kind="text")
    write_manifest(folder / "text_more.jsonl", map(record_of, more_items(items, seed=seed)), kind="text")
    spoken = spoken_items(items)
    write_manifest(folder / "speech_train.jsonl", [record_of(item) for item in spoken], kind="dialogue")
    write_lines(
        folder / "reading_train.jsonl",
        [{"id": f"reading-{i}", "text": text} for i, text in enumerate(reading)],
    )
    texts = [message.text for item in items for message in item.messages] + reading
    tokenizer = train_tokenizer(texts, vocab_size=vocab_size, always=("User", "Assistant"))
    tokenizer.save(str(folder / "tokenizer.json"))
    counts = count_words(texts)
    lexicon = build_lexicon([*counts, *DIGITS], workers=workers)
    write_lexicon(folder / "lexicon.json", lexicon)
    names = sorted(proper_names(counts, texts))
    write_lines(folder / "names.json", [{"names": names}])
    write_lines(folder / "durations.json", [measure_durations(words_to_time(lexicon), workers=workers)])
    return {
        "items": len(items),
        "spoken_items": len(spoken),
        "reading": len(reading),
        "words": len({word.lower() for word in counts}),
        "vocab": tokenizer.get_vocab_size(),
        "single_token_share": single_token_share(tokenizer, counts),
    }


def more_items(items: Sequence[DomainItem], *, seed: int) -> list[DomainItem]:
    """What other seeds ask of the `ENDLESS` categories and `items` do not; nothing held out is among it."""
    held_out = {item.messages[0].text for item in eval_questions(seed=seed)}
    seen = {item.messages for item in items}
    more = []
    for other in range(seed + 1, seed + 1 + NUM_MORE_SEEDS):
        for item in build_domain(seed=other):
            is_new = item.messages not in seen and item.messages[0].text not in held_out
            if item.category in ENDLESS and is_new:
                seen.add(item.messages)
                more.append(item)
    return more


def prepare_speech(
    folder: Path,
    *,
    seed: int = 0,
    workers: int = 2,
    sizes: SpeechSizes | None = None,
    parts: Sequence[str] = PARTS,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Synthesise the training speech part by part, resumable; returns the hours of each part.

    No text of a text-only fact is among it, and no held-out voice. Needs flite and espeak-ng.
    """
    check_programs(QUESTION_VOICES)
    sizes = sizes or SpeechSizes()
    items = build_domain(seed=seed)
    reading = reading_texts(items, seed=seed)
    hours = {}
    for part in parts:
        manifest = folder / f"{part}.jsonl"
        if not is_made(manifest):
            jobs = speech_jobs(part, items, reading, seed=seed, sizes=sizes)
            report = None if progress is None else _named(progress, part)
            synthesise_pack(jobs, manifest, workers=workers, progress=report)
        hours[part] = hours_of(manifest)
        logger.info("%s: %.2f hours", part, hours[part])
    return hours


def speech_jobs(
    part: str, items: Sequence[DomainItem], reading: Sequence[str], *, seed: int, sizes: SpeechSizes
) -> list[SpeechJob]:
    """The clips of one part: who says what; the same for the same seed."""
    makers: dict[str, Callable[[np.random.Generator], list[SpeechJob]]] = {
        "questions": lambda g: question_jobs(items, g, number=sizes.questions),
        "reading": lambda g: reading_jobs(items, reading, g, sizes=sizes),
        "answers": lambda g: answer_jobs(items, g, number=sizes.answers),
        "aloud": lambda g: aloud_jobs(reading, g, number=sizes.aloud),
        "questions_more": lambda g: more_question_jobs(
            items,
            g,
            number=sizes.questions_more,
            spoken=speech_jobs("questions", items, reading, seed=seed, sizes=sizes),
        ),
        "mixed": lambda g: mixed_jobs(items, g, number=sizes.mixed),
        "answers_more": lambda g: more_answer_jobs(
            items,
            g,
            number=sizes.further_answers,
            spoken=speech_jobs("answers", items, reading, seed=seed, sizes=sizes),
            seed=seed,
        ),
        "aloud_more": lambda g: more_aloud_jobs(
            reading,
            g,
            number=sizes.aloud_more,
            spoken=speech_jobs("aloud", items, reading, seed=seed, sizes=sizes),
        ),
        "questions_rest": lambda g: rest_question_jobs(
            items,
            g,
            number=sizes.questions_rest,
            spoken=[
                *speech_jobs("questions", items, reading, seed=seed, sizes=sizes),
                *speech_jobs("questions_more", items, reading, seed=seed, sizes=sizes),
            ],
        ),
        "drills": lambda g: drill_jobs(items, reading, g, sizes=sizes),
        "aloud_drills": lambda g: aloud_drill_jobs(items, reading, g, sizes=sizes),
    }
    if part not in makers:
        raise DataError(f"there is no part {part!r} of the speech; parts are {', '.join(makers)}")
    return makers[part](np.random.default_rng([seed, *part.encode()]))


def question_jobs(
    items: Sequence[DomainItem], generator: np.random.Generator, *, number: int
) -> list[SpeechJob]:
    """User turns that may be spoken, in shares by category, each by a voice of chance.

    Of dialogues only the follow-ups are taken: their first turns are questions of the other categories.
    """
    texts, chosen = _asked(items), list[str]()
    for category, share in QUESTION_SHARES.items():
        chosen += _spread(texts[category], generator, round(share * number))
    return _shuffled_jobs("question", chosen, generator, source="questions")


def more_question_jobs(
    items: Sequence[DomainItem],
    generator: np.random.Generator,
    *,
    number: int,
    spoken: Sequence[SpeechJob],
) -> list[SpeechJob]:
    """Further questions in the same shares: first what nobody of `spoken` asks, then other voices."""
    counts, chosen = Counter(job.text for job in spoken), list[str]()
    for category, texts in _asked(items).items():
        order = [texts[i] for i in generator.permutation(len(texts)).tolist()]
        order.sort(key=lambda text: counts[text])
        chosen += islice(cycle(order), round(QUESTION_SHARES[category] * number))
    return _shuffled_jobs("question-more", chosen, generator, source="questions")


def mixed_jobs(
    items: Iterable[DomainItem], generator: np.random.Generator, *, number: int
) -> list[SpeechJob]:
    """Questions that make no sense, such as "What's the plural of Peru?", for transcription alone.

    A word heard in a frame where no sense leads to it has to be listened to. No fact is asked for, so
    words of text-only facts are among them too; at most `number`, as what only text may ask is left out.
    """
    jobs = _shuffled_jobs("mixed", _mixed_texts(generator, number), generator, source="mixed")
    kept = _kept_from_speech(items)
    return [job for job in jobs if job.text not in kept]


def rest_question_jobs(
    items: Sequence[DomainItem],
    generator: np.random.Generator,
    *,
    number: int,
    spoken: Sequence[SpeechJob],
) -> list[SpeechJob]:
    """What may be asked and nobody of `spoken` asks, `number` at most."""
    known = {job.text for job in spoken}
    texts = [text for found in _asked(items).values() for text in found if text not in known]
    chosen = _spread(texts, generator, min(number, len(texts)))
    return _shuffled_jobs("question-rest", chosen, generator, source="questions")


def drill_jobs(
    items: Sequence[DomainItem], reading: Sequence[str], generator: np.random.Generator, *, sizes: SpeechSizes
) -> list[SpeechJob]:
    """For transcription alone: further questions without sense, and two to six words in a row by lot."""
    words = _spoken_words(items, reading)
    rows = [_word_row(words, generator, 2, 6) for _ in range(sizes.word_drills)]
    kept = _kept_from_speech(items)
    texts = [text for text in _mixed_texts(generator, sizes.mixed_drills) + rows if text not in kept]
    return _shuffled_jobs("drill", texts, generator, source="drill")


def aloud_drill_jobs(
    items: Sequence[DomainItem], reading: Sequence[str], generator: np.random.Generator, *, sizes: SpeechSizes
) -> list[SpeechJob]:
    """For reading aloud alone: statements without sense, and one to six words in a row by lot.

    What comes next must be read from the text, each word as often as any other: sentences that are spoken
    often are learnt by heart instead.
    """
    words = _spoken_words(items, reading)
    texts = [_word_row(words, generator, 1, 6) for _ in range(sizes.words_aloud)]
    texts += _mixed_statements(generator, sizes.mixed_aloud)
    kept = _kept_from_speech(items)
    texts = [texts[i] for i in generator.permutation(len(texts)).tolist() if texts[i] not in kept]
    return [_answer_job(f"aloud-drill-{i}", text, generator, source="drill") for i, text in enumerate(texts)]


def _word_row(words: Sequence[str], generator: np.random.Generator, fewest: int, most: int) -> str:
    chosen = generator.integers(len(words), size=generator.integers(fewest, most + 1))
    return " ".join(words[int(i)] for i in chosen)


def _mixed_texts(generator: np.random.Generator, number: int) -> list[str]:
    facts = all_facts()
    known = {(fact.relation.name, fact.subject) for fact in facts}
    chosen: list[str] = []
    while len(chosen) < number:
        frame, word = (facts[int(generator.integers(len(facts)))] for _ in range(2))
        if (frame.relation.name, word.subject) not in known:
            asked = replace(frame, subject=word.subject).questions("colloquial")
            chosen.append(asked[int(generator.integers(len(asked)))])
    return chosen


def _mixed_statements(generator: np.random.Generator, number: int) -> list[str]:
    """Answers of which two other facts give subject and value, such as "The plural of Peru is a mammal."

    Subject and value come from different facts, so that what only text may teach is not hinted at.
    """
    facts = all_facts()
    chosen = []
    for frame, one, other in generator.integers(len(facts), size=(number, 3)).tolist():
        text = facts[frame].answer
        for old, new in (
            (facts[frame].subject, facts[one].subject),
            (facts[frame].value, facts[other].value),
        ):
            text = re.sub(rf"\b{re.escape(old)}\b", new, text, count=1, flags=re.IGNORECASE)
        chosen.append(text[0].upper() + text[1:])
    return chosen


def reading_jobs(
    items: Sequence[DomainItem], reading: Sequence[str], generator: np.random.Generator, *, sizes: SpeechSizes
) -> list[SpeechJob]:
    """Sentences, single words of the domain, and digits by all question voices: what transcription learns.

    Words of text-only facts are among the single words and sentences, as they must be heard somewhere.
    """
    jobs = [("sentence", text) for text in _spread(reading, generator, sizes.reading)]
    jobs += [("word", word) for word in _spread(_spoken_words(items, reading), generator, sizes.words)]
    jobs += [("digit", DIGITS[i % len(DIGITS)]) for i in range(sizes.digit_takes)]
    order = generator.permutation(len(jobs))
    return [
        SpeechJob(id=f"reading-{i}", text=jobs[at][1], voice=_question_voice(generator), source=jobs[at][0])
        for i, at in enumerate(order.tolist())
    ]


def answer_jobs(
    items: Sequence[DomainItem], generator: np.random.Generator, *, number: int
) -> list[SpeechJob]:
    """Each answer that may be spoken, `number` at most, in one of the answer voices by lot.

    The other voice says it from what it has read aloud and answered elsewhere.
    """
    texts = _unique(m.text for item in spoken_items(items) for m in item.messages if m.role == "assistant")
    texts = _spread(texts, generator, min(number, len(texts)))
    return [_answer_job(f"answer-{i}", text, generator, source="answers") for i, text in enumerate(texts)]


def aloud_jobs(reading: Sequence[str], generator: np.random.Generator, *, number: int) -> list[SpeechJob]:
    """Reading sentences, each in one of the answer voices: what reading aloud learns from."""
    texts = _spread(_unique(reading), generator, min(number, len(reading)))
    return [_answer_job(f"aloud-{i}", text, generator, source="reading") for i, text in enumerate(texts)]


def more_answer_jobs(
    items: Sequence[DomainItem],
    generator: np.random.Generator,
    *,
    number: int,
    spoken: Sequence[SpeechJob],
    seed: int,
) -> list[SpeechJob]:
    """What `spoken` answers, in the other voice, and `number` further answers of other seeds."""
    known, kept = {job.text for job in spoken}, _kept_from_speech(items)
    more = _unique(
        message.text
        for item in more_items(items, seed=seed)
        if item.style == "colloquial"
        for message in item.messages
        if message.role == "assistant" and message.text not in known | kept
    )
    jobs = _other_voices(spoken)
    texts = _spread(more, generator, min(number, len(more)))
    jobs += [_answer_job(f"further-{i}", text, generator, source="answers") for i, text in enumerate(texts)]
    return [jobs[i] for i in generator.permutation(len(jobs)).tolist()]


def more_aloud_jobs(
    reading: Sequence[str], generator: np.random.Generator, *, number: int, spoken: Sequence[SpeechJob]
) -> list[SpeechJob]:
    """Sentences that nobody of `spoken` reads, then what is read in the other voice, `number` in all."""
    known = {job.text for job in spoken}
    texts = [text for text in _unique(reading) if text not in known]
    texts = _spread(texts, generator, min(number, len(texts)))
    jobs = [_answer_job(f"aloud-more-{i}", text, generator, source="reading") for i, text in enumerate(texts)]
    return (jobs + _other_voices(spoken))[:number]


def spoken_items(items: Iterable[DomainItem]) -> list[DomainItem]:
    """Training items that may be heard: colloquial, neither asking nor answering what only text may teach."""
    items = list(items)
    kept = _kept_from_speech(items)
    return [
        item
        for item in items
        if item.split == "train"
        and item.style == "colloquial"
        and not item.text_only
        and not any(message.text in kept for message in item.messages)
    ]


def _kept_from_speech(items: Iterable[DomainItem]) -> set[str]:
    """Questions and answers that only text may teach."""
    facts = [item for item in items if item.text_only and len(item.messages) == 2]
    return {message.text for item in facts for message in item.messages} - {REFUSAL}


def reading_texts(items: Sequence[DomainItem], *, seed: int) -> list[str]:
    """The sentences of the reading corpus for training, each once, without the capital of a sentence."""
    sentences = build_reading(seed=seed, count=NUM_READING_SENTENCES)
    texts = [message.text for item in items for message in item.messages] + sentences
    names = proper_names(count_words(texts), texts)
    return _unique(sentence_case_off(text, names) for text in sentences)


def record_of(item: DomainItem) -> dict[str, object]:
    """An item as a manifest record."""
    messages = [{"role": message.role, "text": message.text} for message in item.messages]
    record: dict[str, object] = {"id": item.id, "messages": messages, "category": item.category}
    record |= {"style": item.style, "text_only": item.text_only, "lang": "en", "source": "domain"}
    return record | ({"fact": item.fact} if item.fact else {})


def hours_of(manifest: Path) -> float:
    """Hours of speech that a manifest names."""
    return sum(r["duration"] for r in read_manifest(manifest, kind="recording").records) / 3600


def read_names(folder: Path) -> frozenset[str]:
    """The proper names that `prepare_text` found."""
    return frozenset(json.loads((folder / "names.json").read_text(encoding="utf-8"))["names"])


def _asked(items: Sequence[DomainItem]) -> dict[str, list[str]]:
    """By category what users may ask aloud, each text once."""
    texts: dict[str, list[str]] = {category: [] for category in QUESTION_SHARES}
    for item in spoken_items(items):
        turns = [m.text for m in item.messages if m.role == "user"]
        texts[item.category] += turns[1:] if item.category == "dialogue" else turns
    return {category: _unique(found) for category, found in texts.items()}


def _spoken_words(items: Iterable[DomainItem], reading: Sequence[str]) -> list[str]:
    """Every word of the domain and of the sentences, names with their capitals."""
    texts = [m.text for item in items for m in item.messages] + list(reading)
    counts = count_words(texts)
    names = proper_names(counts, texts)
    return sorted({spoken_form(word, names) for word in counts})


def _other_voices(jobs: Iterable[SpeechJob]) -> list[SpeechJob]:
    """The same texts, each in every answer voice that does not say it."""
    return [
        replace(job, id=f"{job.id}-as-{name}", voice=voice, speaker=name)
        for job in jobs
        for name, voice in ANSWER_VOICES.items()
        if name != job.speaker
    ]


def _shuffled_jobs(
    id: str, texts: list[str], generator: np.random.Generator, *, source: str
) -> list[SpeechJob]:
    return [
        SpeechJob(id=f"{id}-{i}", text=texts[at], voice=_question_voice(generator), source=source)
        for i, at in enumerate(generator.permutation(len(texts)).tolist())
    ]


def _question_voice(generator: np.random.Generator) -> Voice:
    """Two of five clips by the natural voices of flite, the others by espeak-ng in all its variety."""
    voices = FLITE_QUESTION_VOICES if generator.random() < 0.4 else ESPEAK_QUESTION_VOICES
    return voices[int(generator.integers(len(voices)))].varied(generator)


def _answer_job(id: str, text: str, generator: np.random.Generator, *, source: str) -> SpeechJob:
    names = list(ANSWER_VOICES)
    name = names[int(generator.integers(len(names)))]
    return SpeechJob(id=f"{id}-{name}", text=text, voice=ANSWER_VOICES[name], speaker=name, source=source)


def _spread(texts: Sequence[str], generator: np.random.Generator, number: int) -> list[str]:
    """`number` texts, each as often as any other up to one, in random order."""
    rounds = -(-number // max(1, len(texts)))
    order: list[int] = [i for _ in range(rounds) for i in generator.permutation(len(texts)).tolist()]
    return [texts[i] for i in order[:number]]


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if words_of(text)))


def _named(progress: Progress, part: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(part, done, total)
