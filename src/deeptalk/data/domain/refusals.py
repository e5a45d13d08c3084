"""Refusals: questions outside the domain, one answer; evaluation has its own templates and fillers."""

import random
import re
from collections.abc import Iterator

from . import countries
from .facts import CURRENCY, LANGUAGE, Relation, all_facts
from .item import DomainItem, build_item, capitalise, fill, stable_hash
from .questions_outside import EVAL_TEMPLATES, FILLERS, NEAR_EVAL, NEAR_TRAIN, TRAIN_TEMPLATES
from .smalltalk import contract

REFUSAL = "Sorry, I don't know that."
FORMAL_OPENERS = ("", "", "Please answer, ", "Assistant, ")
COLLOQUIAL_OPENERS = ("", "Hey, ", "So, ", "Okay, ", "Well, ", "Oh, ")
NUM_TRAIN, NUM_EVAL = 12000, 600


def build_refusals(*, seed: int) -> list[DomainItem]:
    """Distinct questions outside the domain, each refused with the same words."""
    items: dict[str, DomainItem] = {}
    for question, style, is_eval in (*_open_questions(seed), *_near_questions()):
        items.setdefault(question, _refuse(question, style=style, is_eval=is_eval))
    for question, style in _unknown_countries():
        items.setdefault(question, _refuse(question, style=style, is_eval=False, text_only=True))
    return list(items.values())


def fillers(slot: str, *, is_eval: bool) -> list[str]:
    """What may fill the slot in training, or the disjoint rest for evaluation."""
    ranked = sorted(FILLERS[slot], key=lambda word: stable_hash(f"filler {word}"))
    num_eval = len(ranked) // 4
    return ranked[:num_eval] if is_eval else ranked[num_eval:]


def _refuse(question: str, *, style: str, is_eval: bool, text_only: bool = False) -> DomainItem:
    turns = (question, REFUSAL)
    return build_item(
        turns, category="refusal", style=style, fact=_key(question), is_eval=is_eval, text_only=text_only
    )


def _key(question: str) -> str:
    """The question without its opener, so that its wordings share one name."""
    for opener in sorted({*FORMAL_OPENERS, *COLLOQUIAL_OPENERS}, key=len, reverse=True):
        question = question.removeprefix(opener)
    return f"refusal/{question.lower().rstrip('.?').replace(' ', '_')}"


def _open_questions(seed: int) -> Iterator[tuple[str, str, bool]]:
    rng = random.Random(f"{seed} refusals")
    for templates, is_eval, count in ((TRAIN_TEMPLATES, False, NUM_TRAIN), (EVAL_TEMPLATES, True, NUM_EVAL)):
        known = {slot: fillers(slot, is_eval=is_eval) for slot in FILLERS}
        for i in range(count):
            slots = {}
            for slot, words in known.items():
                first, second = rng.sample(words, 2)
                slots |= {slot: first, f"{slot}2": second}
            question = templates[i % len(templates)].format(**slots)
            yield _worded(rng, question, is_eval)


def _worded(rng: random.Random, question: str, is_eval: bool) -> tuple[str, str, bool]:
    style = "colloquial" if is_eval or rng.random() < 0.5 else "formal"
    if style == "formal":
        return capitalise(rng.choice(FORMAL_OPENERS) + question), style, is_eval
    if rng.random() < 0.5:
        question = contract(question)
    openers = COLLOQUIAL_OPENERS if contract(question) == question and is_eval else COLLOQUIAL_OPENERS[1:]
    return capitalise(rng.choice(openers) + question), style, is_eval


def _near_questions() -> Iterator[tuple[str, str, bool]]:
    """Questions in the domain's own wording about what has no answer."""
    relations: dict[str, Relation] = {fact.relation.name: fact.relation for fact in all_facts()}
    for name, near in NEAR_TRAIN.items():
        for style, template in relations[name].wording.styled():
            for subject in near:
                yield capitalise(template.format(x=subject)), style, False
    for template, near in NEAR_EVAL.items():
        for subject in near:
            question = template.format(x=subject)
            yield capitalise(question), "colloquial", True
            yield capitalise(re.sub("^what", "hey, what", question)), "colloquial", True


def _unknown_countries() -> Iterator[tuple[str, str]]:
    """What is refused in text only, so that refusing aloud never hangs on the name of a country."""
    for relation, known in ((LANGUAGE, countries.LANGUAGES), (CURRENCY, countries.CURRENCIES)):
        for style, template in relation.wording.styled():
            for country in countries.CAPITALS:
                if country not in known:
                    yield fill(template, x=country), style
