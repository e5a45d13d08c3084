"""Facts: one canonical answer sentence for each, many ways to ask."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from . import animals, countries, lexicon, things
from .item import (
    DomainItem,
    Wording,
    build_item,
    capitalise,
    clause_wording,
    fill,
    is_held_out,
    is_text_only,
    noun_wording,
    with_article,
)
from .numbers import ORDINALS


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """One kind of fact: how it is asked for; ``followup`` is what a follow-up question says after "and"."""

    name: str
    wording: Wording
    followup: str = "{x}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One fact; a fact and its reverse are ``text_only`` together: never asked nor answered in speech."""

    relation: Relation
    subject: str
    value: str
    answer: str
    text_only: bool

    @property
    def key(self) -> str:
        """The name of the fact, such as "capital/france"."""
        whole = f"/{_slug(self.value)}" if self.relation.name in ("count", "part") else ""
        return f"{self.relation.name}/{_slug(self.subject)}{whole}"

    def questions(self, style: str) -> list[str]:
        """All questions for the fact in one style."""
        templates = getattr(self.relation.wording, style)
        return [fill(t, x=self.subject, y=self.value) for t in templates]


CAPITAL = Relation(name="capital", wording=noun_wording("the capital of {x}"), followup="of {x}")
COUNTRY = Relation(
    name="country",
    wording=clause_wording("which country has the capital {x}", "which country has the capital {x}"),
)
CONTINENT = Relation(
    name="continent",
    wording=clause_wording("which continent is {x} in", "which continent {x} is in"),
)
LANGUAGE = Relation(
    name="language",
    wording=clause_wording("what language do people speak in {x}", "what language people speak in {x}"),
    followup="in {x}",
)
CURRENCY = Relation(name="currency", wording=noun_wording("the currency of {x}"), followup="of {x}")
OPPOSITE = Relation(name="opposite", wording=noun_wording("the opposite of {x}"), followup="of {x}")
PLURAL = Relation(name="plural", wording=noun_wording("the plural of {x}"), followup="of {x}")
PAST = Relation(name="past", wording=noun_wording("the past tense of {x}"), followup="of {x}")
COLOR = Relation(name="color", wording=clause_wording("what color is {x}", "what color {x} is"))
GROUP = Relation(
    name="group", wording=clause_wording("what kind of animal is {x}", "what kind of animal {x} is")
)
LEGS = Relation(name="legs", wording=clause_wording("how many legs does {x} have", "how many legs {x} has"))
SOUND = Relation(name="sound", wording=clause_wording("what sound does {x} make", "what sound {x} makes"))
YOUNG = Relation(
    name="young",
    wording=clause_wording("what is a young {x} called", "what a young {x} is called"),
    followup="a young {x}",
)
HOME = Relation(name="home", wording=clause_wording("where does {x} live", "where {x} lives"))
FOOD = Relation(
    name="food",
    wording=clause_wording("is {x} a fruit or a vegetable", "if {x} is a fruit or a vegetable"),
)
KIND = Relation(name="kind", wording=clause_wording("what is {x}", "what {x} is"))
WORKPLACE = Relation(name="workplace", wording=clause_wording("where does {x} work", "where {x} works"))
DUTY = Relation(name="duty", wording=clause_wording("what does {x} do", "what {x} does"))
USE = Relation(name="use", wording=clause_wording("what is {x} used for", "what {x} is used for"))
BODY = Relation(name="body", wording=clause_wording("what do you {x} with", "what you {x} with"))
PLACE = Relation(name="place", wording=clause_wording("where do you {x}", "where you {x}"))
COUNT = Relation(
    name="count", wording=clause_wording("how many {x} are there in {y}", "how many {x} there are in {y}")
)
PART = Relation(name="part", wording=clause_wording("how many {x} does {y} have", "how many {x} {y} has"))
MATERIALS = {
    verb: Relation(
        name="material",
        wording=clause_wording(f"what {verb} {{x}} made from", f"what {{x}} {verb} made from"),
    )
    for verb in ("is", "are")
}
FAMILY = Relation(name="family", wording=clause_wording("who is your {x}", "who your {x} is"))
MONTH = Relation(name="month", wording=noun_wording("the {x} month of the year"), followup="the {x}")
PLANET = Relation(name="planet", wording=noun_wording("the {x} planet from the sun"), followup="the {x}")
LETTER = Relation(name="letter", wording=noun_wording("the {x} letter of the alphabet"), followup="the {x}")


@lru_cache(maxsize=1)
def all_facts() -> tuple[Fact, ...]:
    """Every fact of the domain."""
    return (*_country_facts(), *_animal_facts(), *_word_facts(), *_thing_facts(), *_count_facts())


def build_facts() -> list[DomainItem]:
    """Every phrasing of every fact; a few phrasings of each are held out of training."""
    items = []
    for fact in all_facts():
        for style in ("formal", "colloquial"):
            for question in fact.questions(style):
                items.append(
                    build_item(
                        (question, fact.answer),
                        category="facts",
                        style=style,
                        fact=fact.key,
                        is_eval=is_held_out(question),
                        text_only=fact.text_only,
                    )
                )
    return items


def _fact(relation: Relation, subject: str, value: str, answer: str, bundle: str = "") -> Fact:
    bundle = bundle or f"{relation.name}/{_slug(subject)}"
    filled = _sentence(answer.format(x=subject, y=value))
    return Fact(
        relation=relation, subject=subject, value=value, answer=filled, text_only=is_text_only(bundle)
    )


def _sentence(answer: str) -> str:
    """The answer as a sentence. Its subject is "the dog" where the question has "a dog".

    An "a" that begins an utterance is a faint vowel: of recordings of the synthesiser itself two out of five
    were heard as "the" where they said "a".
    """
    return capitalise(re.sub(r"^an? ", "the ", answer))


def _slug(text: str) -> str:
    return text.lower().removeprefix("the ").removeprefix("a ").removeprefix("an ").replace(" ", "_")


def _country_facts() -> Iterator[Fact]:
    for country, capital in countries.CAPITALS.items():
        bundle = f"capital/{_slug(country)}"
        yield _fact(CAPITAL, country, capital, "the capital of {x} is {y}.", bundle)
        yield _fact(COUNTRY, capital, country, "{x} is the capital of {y}.", bundle)
    for country, continent in countries.CONTINENTS.items():
        yield _fact(CONTINENT, country, continent, "{x} is in {y}.")
    for country, language in countries.LANGUAGES.items():
        yield _fact(LANGUAGE, country, language, "in {x} people speak {y}.")
    for country, currency in countries.CURRENCIES.items():
        yield _fact(CURRENCY, country, currency, "the currency of {x} is the {y}.")


def _animal_facts() -> Iterator[Fact]:
    for animal, group in animals.GROUP_OF.items():
        yield _fact(GROUP, with_article(animal), with_article(group), "{x} is {y}.")
    for animal, legs in animals.LEGS.items():
        yield _fact(LEGS, with_article(animal), legs, "{x} has {y} legs.")
    for animal, sound in animals.SOUNDS.items():
        yield _fact(SOUND, with_article(animal), sound, "{x} {y}.")
    for animal, young in animals.YOUNG.items():
        yield _fact(YOUNG, animal, with_article(young), "a young {x} is called {y}.")
    for animal, home in animals.HOMES.items():
        yield _fact(HOME, with_article(animal), with_article(home), "{x} lives in {y}.")


def _word_facts() -> Iterator[Fact]:
    for left, right in lexicon.OPPOSITES:
        bundle = f"opposite/{left}"
        yield _fact(OPPOSITE, left, right, "the opposite of {x} is {y}.", bundle)
        yield _fact(OPPOSITE, right, left, "the opposite of {x} is {y}.", bundle)
    for noun, plural in lexicon.PLURALS.items():
        yield _fact(PLURAL, noun, plural, "the plural of {x} is {y}.")
    for verb, past in lexicon.PAST.items():
        yield _fact(PAST, verb, past, "the past tense of {x} is {y}.")


def _thing_facts() -> Iterator[Fact]:
    for thing, color in things.COLORS.items():
        yield _fact(COLOR, thing, color, "{x} is {y}.")
    for kind, foods in things.FOODS.items():
        for food in foods.split():
            subject = food if food in things.MASS_FOODS else with_article(food)
            yield _fact(FOOD, subject, with_article(kind), "{x} is {y}.")
    for kind, names in things.KINDS.items():
        for name in names.split():
            yield _fact(KIND, with_article(name), with_article(kind), "{x} is {y}.")
    for kind, names in things.METALS_AND_MASS.items():
        for name in names.split():
            yield _fact(KIND, name, with_article(kind), "{x} is {y}.")
    for job, place in things.WORKPLACES.items():
        yield _fact(WORKPLACE, with_article(job), place, "{x} works {y}.")
    for job, duty in things.DUTIES.items():
        yield _fact(DUTY, with_article(job), duty, "{x} {y}.")
    for tool, use in things.USES.items():
        subject = tool if tool in things.MASS_TOOLS else with_article(tool)
        yield _fact(USE, subject, use, "{x} is used for {y}.")
    for verb, part in things.BODY.items():
        yield _fact(BODY, verb, part, "you {x} with your {y}.")
    for activity, place in things.PLACES.items():
        yield _fact(PLACE, activity, place, "you {x} {y}.")
    for relative, name in things.FAMILY.items():
        yield _fact(FAMILY, relative, name, "your {x} is your {y}.")


def _count_facts() -> Iterator[Fact]:
    for (things_counted, whole), number in things.COUNTS.items():
        yield _counted(COUNT, things_counted, whole, f"there are {number} {things_counted} in {whole}.")
    for (parts, whole), number in things.PARTS.items():
        subject = with_article(whole)
        noun = parts.removesuffix("s") if number == "one" else parts
        yield _counted(PART, parts, subject, f"{subject} has {number} {noun}.")
    for relation, names, of in (
        (MONTH, things.MONTHS, "month of the year"),
        (PLANET, things.PLANETS, "planet from the sun"),
        (LETTER, things.LETTERS, "letter of the alphabet"),
    ):
        for ordinal, name in zip(ORDINALS, names, strict=False):
            yield _fact(relation, ordinal, name, f"the {{x}} {of} is {{y}}.")
    for product, source in things.MATERIALS.items():
        verb = "are" if product in things.PLURAL_MATERIALS else "is"
        relation = MATERIALS[verb]
        yield _fact(relation, product, source, f"{{x}} {verb} made from {{y}}.")


def _counted(relation: Relation, counted: str, whole: str, answer: str) -> Fact:
    text_only = is_text_only(f"{relation.name}/{counted}/{_slug(whole)}")
    filled = _sentence(answer)
    return Fact(relation=relation, subject=counted, value=whole, answer=filled, text_only=text_only)
