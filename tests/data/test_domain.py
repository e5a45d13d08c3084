"""The text domain: one exact answer per question, and nothing of evaluation in training."""

import re
from collections import Counter, defaultdict

import pytest

from deeptalk.data.domain import (
    REFUSAL,
    DomainItem,
    build_domain,
    build_reading,
    eval_questions,
    number_words,
    words,
)
from deeptalk.data.domain.countries import CAPITALS, CONTINENTS
from deeptalk.data.domain.facts import all_facts
from deeptalk.data.domain.item import with_article
from deeptalk.data.domain.numbers import ONES, TENS, say_number
from deeptalk.data.domain.questions_outside import EVAL_TEMPLATES, FILLERS, TRAIN_TEMPLATES
from deeptalk.data.domain.refusals import fillers
from deeptalk.data.domain.vocabulary import collect_words, words_of

ALLOWED = re.compile(r"[A-Za-z ,.?']+")


@pytest.fixture(scope="module")
def training() -> list[DomainItem]:
    return build_domain(seed=0)


@pytest.fixture(scope="module")
def evaluation() -> list[DomainItem]:
    return eval_questions(seed=0)


@pytest.fixture(scope="module")
def other_evaluation() -> list[DomainItem]:
    return eval_questions(seed=1)


@pytest.fixture(scope="module")
def reading() -> list[str]:
    return build_reading(seed=0, count=12_000)


def texts(items: list[DomainItem]) -> list[str]:
    return [message.text for item in items for message in item.messages]


def value_of(text: str) -> int:
    """The number that words say; the inverse of say_number, written another way."""
    total = 0
    for word in text.lower().split():
        total = total * 100 if word == "hundred" else total
        if word in TENS:
            total += 10 * (TENS.index(word) + 2)
        elif word in ONES:
            total += ONES.index(word)
    return total


def test_the_same_seed_builds_the_same_items(training):
    assert build_domain(seed=0) == training
    assert build_reading(seed=3, count=3000) == build_reading(seed=3, count=3000)


def test_every_text_is_plain_words(training, evaluation, reading):
    for text in (*texts(training), *texts(evaluation), *reading):
        assert ALLOWED.fullmatch(text), text
        assert "  " not in text
        assert text[0].isupper()
        assert text[-1] in ".?"


def test_messages_alternate_and_end_with_the_assistant(training, evaluation):
    for item in (*training, *evaluation):
        roles = [message.role for message in item.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert 2 <= len(roles) <= 6


def test_ids_are_unique(training, evaluation):
    assert max(Counter(item.id for item in (*training, *evaluation)).values()) == 1


def test_the_domain_is_large_enough(training):
    assert len(CAPITALS) >= 150
    assert len(CONTINENTS) >= 170
    assert len(words()) >= 1500
    assert len(training) >= 60_000
    counts = Counter((item.category, item.style) for item in training)
    assert min(counts.values()) >= 500
    assert {category for category, _ in counts} == {
        "facts",
        "reasoning",
        "arithmetic",
        "strings",
        "smalltalk",
        "dialogue",
        "refusal",
    }


def test_a_question_has_one_answer(training, evaluation):
    answers = defaultdict(set)
    for item in (*training, *evaluation):
        turns = [message.text for message in item.messages]
        for i in range(1, len(turns), 2):
            if item.category != "reading":
                answers[tuple(turns[:i])].add(turns[i])
    assert [question for question, known in answers.items() if len(known) > 1] == []


def test_a_fact_has_one_answer(training, evaluation):
    answers = defaultdict(set)
    for item in (*training, *evaluation):
        if item.category in ("facts", "arithmetic", "smalltalk"):
            answers[item.fact].add(item.messages[-1].text)
    assert [fact for fact, known in answers.items() if len(known) > 1] == []


def test_no_answer_of_a_fact_begins_with_a_faint_vowel():
    answers = {fact.key: fact.answer for fact in all_facts()}
    assert not [answer for answer in answers.values() if re.match("An? ", answer)]
    assert answers["legs/dog"] == "The dog has four legs."
    assert answers["kind/hammer"] == "The hammer is a tool."


def test_answers_are_short(training, evaluation):
    for item in (*training, *evaluation):
        for message in item.messages[1::2]:
            assert 1 <= len(message.text.split()) <= 12, message.text


def test_styles_have_their_own_wording(training):
    styles = defaultdict(set)
    for item in training:
        if len(item.messages) == 2:
            styles[item.messages[0].text].add(item.style)
    assert [question for question, known in styles.items() if len(known) > 1] == []


def test_no_evaluation_item_is_trained(training, evaluation, other_evaluation, reading):
    trained = {tuple(message.text for message in item.messages) for item in training}
    for item in (*evaluation, *other_evaluation):
        assert tuple(message.text for message in item.messages) not in trained
    openers = {item.messages[0].text for item in training}
    assert not openers & {item.messages[0].text for item in evaluation if item.category != "dialogue"}
    sentences = {item.messages[0].text for item in evaluation if item.category == "reading"}
    assert not sentences & set(reading)


def test_held_out_combinations_are_not_trained(training, evaluation, other_evaluation):
    trained = {item.fact for item in training}
    for item in (*evaluation, *other_evaluation):
        if item.fact.split("/")[0] in {
            "chain",
            "pair",
            "compare",
            "extreme",
            "odd_one",
            "index",
            "reverse",
            "append",
        }:
            assert item.fact not in trained


def test_every_evaluated_fact_can_be_learnt(training, evaluation):
    trained = {item.fact for item in training}
    for item in evaluation:
        if item.category in ("facts", "arithmetic", "smalltalk"):
            assert item.fact in trained


def test_the_evaluation_set_has_the_required_parts(evaluation):
    counts = Counter(item.category for item in evaluation)
    silent = sum(item.text_only for item in evaluation if item.category == "facts")
    assert counts["facts"] - silent >= 70
    assert silent >= 70
    assert min(counts[c] for c in ("reasoning", "arithmetic", "strings", "smalltalk")) >= 50
    assert min(counts[c] for c in ("dialogue", "refusal", "reading")) >= 60
    assert {item.split for item in evaluation} == {"eval"}
    assert {item.style for item in evaluation} == {"colloquial"}
    assert not any(item.text_only for item in evaluation if item.category != "facts")


def test_a_fifth_of_the_facts_is_learnt_from_text_only(training):
    facts = all_facts()
    assert 0.2 <= sum(fact.text_only for fact in facts) / len(facts) <= 0.35
    silent = defaultdict(set)
    for item in training:
        if item.category == "facts":
            silent[item.fact].add((item.text_only, item.style))
    for known in silent.values():
        assert len({text_only for text_only, _ in known}) == 1
        assert {style for _, style in known} == {"formal", "colloquial"}


def test_speech_never_contains_a_text_only_fact(training, evaluation, reading):
    silent = {fact.answer for fact in all_facts() if fact.text_only}
    spoken = [item for item in training if not item.text_only]
    assert not silent & set(texts(spoken))
    assert not silent & set(reading)
    questions = {
        i.messages[0].text for i in (*training, *evaluation) if i.text_only and i.category == "facts"
    }
    assert not questions & set(texts(spoken))


def test_a_fact_and_its_reverse_are_kept_together():
    silent = {(fact.relation.name, fact.subject): fact.text_only for fact in all_facts()}
    for country, capital in CAPITALS.items():
        assert silent["capital", country] == silent["country", capital]


def test_reading_covers_every_word(reading):
    assert len(set(reading)) == 12_000
    read = Counter(word.lower() for sentence in reading for word in words_of(sentence))
    assert min(read[word.lower()] for word in words()) >= 3
    assert max(len(sentence.split()) for sentence in reading) <= 10
    assert set(number_words()) <= set(reading)


def test_refusals_of_evaluation_are_new_in_template_and_filler(evaluation):
    assert not set(TRAIN_TEMPLATES) & set(EVAL_TEMPLATES)
    for slot in FILLERS:
        trained, held_out = fillers(slot, is_eval=False), fillers(slot, is_eval=True)
        assert not set(trained) & set(held_out)
        assert min(len(trained), len(held_out)) >= 2
    assert {item.messages[-1].text for item in evaluation if item.category == "refusal"} == {REFUSAL}


def test_sums_are_right_and_complete(training, evaluation):
    operations = {"plus": lambda x, y: x + y, "minus": lambda x, y: x - y, "times": lambda x, y: x * y}
    seen = Counter()
    for item in {i.fact: i for i in training if i.category == "arithmetic"}.values():
        left, right = item.messages[-1].text.rstrip(".").split(" is ")
        for name, operation in operations.items():
            if f" {name} " in left:
                x, y = left.split(f" {name} ")
                assert operation(value_of(x), value_of(y)) == value_of(right), item
                seen[name] += 1
    assert seen == {"plus": 861, "minus": 496, "times": 121}


def test_chains_of_order_are_right(training):
    pattern = re.compile(r"(\w+) is (\w+) than (\w+)")
    checked = 0
    for item in training:
        if item.category != "reasoning" or not item.fact.startswith("chain/"):
            continue
        question, answer = (message.text for message in item.messages)
        (a, more, b), (c, _, d) = pattern.findall(question)
        first, last = (a, d) if b == c else (c, b)
        asks_first = f"the {more[:-1]}st" in question
        assert answer.split()[0] == (first if asks_first else last), item
        assert answer.split()[-1].rstrip(".") in question
        checked += 1
    assert checked > 1000


def test_list_operations_are_right(training):
    checked = Counter()
    for item in (item for item in training if item.category == "strings"):
        question, answer = (message.text for message in item.messages)
        if match := re.fullmatch(r"Reverse the list (.*)\.", question):
            assert answer == f"The reversed list is {', '.join(match[1].split(', ')[::-1])}."
        elif match := re.fullmatch(r"Spell the word (\w+)\.", question):
            assert answer.replace(", ", "").rstrip(".").lower() == match[1]
        elif match := re.fullmatch(r"Count the elements of the list (.*)\.", question):
            assert value_of(answer) == len(match[1].split(", "))
        else:
            continue
        checked[item.fact.split("/")[0]] += 1
    assert set(checked) == {"reverse", "spell", "count"}


def test_words_for_numbers():
    assert [say_number(n) for n in (0, 13, 20, 23, 99, 100)] == [
        "zero",
        "thirteen",
        "twenty",
        "twenty three",
        "ninety nine",
        "one hundred",
    ]
    assert [value_of(say_number(n)) for n in range(101)] == list(range(101))
    with pytest.raises(ValueError, match="from 0 to 100"):
        say_number(101)


def test_articles_follow_the_sound():
    assert [with_article(noun) for noun in ("owl", "dog", "unicycle", "umbrella")] == [
        "an owl",
        "a dog",
        "a unicycle",
        "an umbrella",
    ]


def test_a_word_is_capitalised_only_where_it_always_is():
    assert collect_words(["Red is red.", "Peru is red, isn't it?"]) == ("Peru", "is", "isn't", "it", "red")
