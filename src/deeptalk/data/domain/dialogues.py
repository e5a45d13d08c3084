"""Dialogues of two or three turns: follow-up questions that need the turn before, and unrelated ones."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

from . import countries, things
from .arithmetic import WORDINGS as SUM_WORDINGS
from .facts import CAPITAL, CONTINENT, CURRENCY, LANGUAGE, Fact, Relation, all_facts
from .item import DomainItem, Wording, build_item, fill, is_held_out, split_words
from .numbers import say_number
from .questions_outside import NEAR_TRAIN
from .refusals import REFUSAL

NUM_FOLLOWUPS, NUM_ABOUT, NUM_CHANGED = 9000, 2500, 2000
NUM_SEQUENCES, NUM_REFUSED, NUM_MIXED = 1200, 500, 4000
FOLLOWUP = Wording(
    formal=("And what about {x}?", "What about {x}?"),
    colloquial=("And {f}?", "How about {x}?", "Okay, and {f}?"),
)
ABOUT = {
    "capital": Wording(formal=("What is its capital?",), colloquial=("And what's its capital?",)),
    "continent": Wording(
        formal=("Which continent is it in?",), colloquial=("And which continent is that in?",)
    ),
    "language": Wording(
        formal=("What language do people speak there?",), colloquial=("And what do people speak there?",)
    ),
    "currency": Wording(formal=("What is its currency?",), colloquial=("And what's the currency there?",)),
}
SEQUENCE = {
    "formal": ("What {unit} comes {side} {x}?", "And {side} {x}?"),
    "colloquial": ("What's the {unit} {side} {x}?", "Okay, and {side} {x}?"),
}
CHANGED = Wording(
    formal=("And {sign} {y}?", "Now {sign} {y}."),
    colloquial=("Okay, and {sign} {y}?", "And that {sign} {y}?"),
)
FOLLOWED = split_words(
    "capital country continent language currency opposite plural past color legs sound group young use "
    "workplace food kind month planet"
)


def build_dialogues(singles: Sequence[DomainItem], *, seed: int) -> list[DomainItem]:
    """Distinct dialogues; ``singles`` are the training questions that the mixed ones are made of."""
    items: dict[tuple[str, ...], DomainItem] = {}
    rng = random.Random(f"{seed} dialogues")
    for item in (
        *_followups(rng),
        *_about_country(rng),
        *_changed_sums(rng),
        *_sequences(rng),
        *_refused(rng),
        *_mixed(rng, singles),
    ):
        items.setdefault(tuple(message.text for message in item.messages), item)
    return list(items.values())


def _dialogue(turns: Sequence[str], *, style: str, facts: Sequence[Fact], key: str, fact: str) -> DomainItem:
    return build_item(
        turns,
        category="dialogue",
        style=style,
        fact=fact,
        is_eval=is_held_out(key),
        text_only=any(known.text_only for known in facts),
    )


def _by_relation() -> dict[str, list[Fact]]:
    groups = defaultdict(list)
    for fact in all_facts():
        groups[fact.relation.name].append(fact)
    return groups


def _followups(rng: random.Random) -> Iterator[DomainItem]:
    groups = _by_relation()
    spoken = {name: [fact for fact in facts if not fact.text_only] for name, facts in groups.items()}
    weights = [len(groups[name]) for name in FOLLOWED]
    for _ in range(NUM_FOLLOWUPS):
        name = rng.choices(FOLLOWED, weights)[0]
        facts = spoken[name] if rng.random() < 0.7 else groups[name]
        chosen = rng.sample(facts, rng.choice((2, 2, 3)))
        style = rng.choice(("formal", "colloquial"))
        turns = [rng.choice(chosen[0].questions(style)), chosen[0].answer]
        for fact in chosen[1:]:
            turns += [_followup(rng, fact.relation, fact.subject, style), fact.answer]
        key = "|".join(sorted(fact.key for fact in chosen[-2:]))
        yield _dialogue(turns, style=style, facts=chosen, key=key, fact=chosen[-1].key)


def _followup(rng: random.Random, relation: Relation, subject: str, style: str) -> str:
    template = rng.choice(getattr(FOLLOWUP, style))
    return fill(template, x=subject, f=relation.followup.format(x=subject))


def _about_country(rng: random.Random) -> Iterator[DomainItem]:
    """Two questions about one country, the second of which does not name it."""
    relations = (CAPITAL, CONTINENT, LANGUAGE, CURRENCY)
    known = {(fact.relation.name, fact.subject): fact for fact in all_facts() if fact.relation in relations}
    for _ in range(NUM_ABOUT):
        country = rng.choice(list(countries.CAPITALS))
        facts = [known[r.name, country] for r in relations if (r.name, country) in known]
        if len(facts) < 2:
            continue
        first, second = rng.sample(facts, 2)
        style = rng.choice(("formal", "colloquial"))
        asked = rng.choice(getattr(ABOUT[second.relation.name], style))
        turns = (rng.choice(first.questions(style)), first.answer, asked, second.answer)
        key = f"{first.key}|{second.relation.name}"
        yield _dialogue(turns, style=style, facts=(first, second), key=key, fact=second.key)


def _changed_sums(rng: random.Random) -> Iterator[DomainItem]:
    """A sum, then its result plus or minus a little."""
    for _ in range(NUM_CHANGED):
        x, y, z = rng.randint(0, 20), rng.randint(0, 15), rng.randint(1, 5)
        total = x + y
        sign, result = rng.choice((("plus", total + z), ("minus", total - z)))
        if result < 0:
            continue
        style = rng.choice(("formal", "colloquial"))
        first = rng.choice(getattr(SUM_WORDINGS["plus"], style))
        second = rng.choice(getattr(CHANGED, style))
        turns = (
            fill(first, x=say_number(x), y=say_number(y)),
            fill("{x} plus {y} is {z}.", x=say_number(x), y=say_number(y), z=say_number(total)),
            fill(second, sign=sign, y=say_number(z)),
            fill("{x} {s} {y} is {z}.", x=say_number(total), s=sign, y=say_number(z), z=say_number(result)),
        )
        key = f"{x} plus {y} {sign} {z}"
        yield _dialogue(turns, style=style, facts=(), key=key, fact=f"changed/{key}".replace(" ", "_"))


def _sequences(rng: random.Random) -> Iterator[DomainItem]:
    """What comes before or after one day or month, then another, or on the other side."""
    for _ in range(NUM_SEQUENCES):
        unit, names = rng.choice((("day", things.DAYS), ("month", things.MONTHS)))
        a, b = rng.choices(range(len(names)), k=2)
        side, other = rng.choices(("after", "before"), k=2)
        if (a, side) == (b, other):
            continue
        style = rng.choice(("formal", "colloquial"))
        asked, again = SEQUENCE[style]
        turns = []
        for template, at, where in ((asked, a, side), (again, b, other)):
            neighbor = names[(at + (1 if where == "after" else -1)) % len(names)]
            turns.append(fill(template, unit=unit, side=where, x=names[at]))
            turns.append(fill("{side} {x} comes {y}.", side=where, x=names[at], y=neighbor))
        key = f"sequence/{side}_{names[a]}_{other}_{names[b]}".lower()
        yield _dialogue(turns, style=style, facts=(), key=key, fact=key)


def _refused(rng: random.Random) -> Iterator[DomainItem]:
    """A known fact, then the same asked of something that has none."""
    groups = _by_relation()
    for _ in range(NUM_REFUSED):
        name = rng.choice(sorted(NEAR_TRAIN))
        fact = rng.choice([fact for fact in groups[name] if not fact.text_only])
        subject = rng.choice(NEAR_TRAIN[name])
        style = rng.choice(("formal", "colloquial"))
        turns = (
            rng.choice(fact.questions(style)),
            fact.answer,
            _followup(rng, fact.relation, subject, style),
            REFUSAL,
        )
        yield _dialogue(turns, style=style, facts=(fact,), key=f"{fact.key}|{subject}", fact="refusal")


def _mixed(rng: random.Random, singles: Sequence[DomainItem]) -> Iterator[DomainItem]:
    """Two or three questions that have nothing to do with each other."""
    by_style = {style: [i for i in singles if i.style == style] for style in ("formal", "colloquial")}
    for _ in range(NUM_MIXED):
        style = rng.choice(("formal", "colloquial"))
        chosen = rng.sample(by_style[style], rng.choice((2, 2, 3)))
        if rng.random() < 0.7:
            chosen = [item for item in chosen if not item.text_only]
        if len(chosen) < 2:
            continue
        turns = [message.text for item in chosen for message in item.messages]
        yield build_item(
            turns,
            category="dialogue",
            style=style,
            fact=chosen[-1].fact,
            is_eval=False,
            text_only=any(item.text_only for item in chosen),
        )
