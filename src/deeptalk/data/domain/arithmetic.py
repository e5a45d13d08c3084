"""Arithmetic in words: sums to forty, differences up to thirty, times tables to ten, halves and doubles."""

from collections.abc import Iterator

from .item import DomainItem, Wording, build_item, fill, is_held_out
from .numbers import say_number

LARGEST_SUM = 40
LARGEST_MINUEND = 30
LARGEST_FACTOR = 10
LARGEST_DOUBLED = 20


def _expression(noun: str, *formal: str) -> Wording:
    return Wording(
        formal=(f"What is {noun}?", f"Calculate {noun}.", f"Please compute {noun}.", *formal),
        colloquial=(
            f"What's {noun}?",
            f"How much is {noun}?",
            f"Hey, what's {noun}?",
            f"Tell me what {noun} is.",
            f"Can you work out {noun}?",
        ),
    )


WORDINGS = {
    "plus": _expression("{x} plus {y}", "Add {x} and {y}."),
    "minus": _expression("{x} minus {y}", "Subtract {y} from {x}."),
    "times": _expression("{x} times {y}", "Multiply {x} by {y}."),
    "half": _expression("half of {x}"),
    "double": _expression("double {x}"),
}


def all_sums() -> Iterator[tuple[str, str, str, str]]:
    """Every (operation, x, y, answer sentence), complete; y is empty for halves and doubles."""
    say = say_number
    for x in range(LARGEST_SUM + 1):
        for y in range(LARGEST_SUM + 1 - x):
            yield "plus", say(x), say(y), fill("{x} plus {y} is {z}.", x=say(x), y=say(y), z=say(x + y))
    for x in range(LARGEST_MINUEND + 1):
        for y in range(x + 1):
            yield "minus", say(x), say(y), fill("{x} minus {y} is {z}.", x=say(x), y=say(y), z=say(x - y))
    for x in range(LARGEST_FACTOR + 1):
        for y in range(LARGEST_FACTOR + 1):
            yield "times", say(x), say(y), fill("{x} times {y} is {z}.", x=say(x), y=say(y), z=say(x * y))
    for x in range(LARGEST_DOUBLED + 1):
        yield "half", say(2 * x), "", fill("half of {x} is {z}.", x=say(2 * x), z=say(x))
        yield "double", say(x), "", fill("double {x} is {z}.", x=say(x), z=say(2 * x))


def build_arithmetic() -> list[DomainItem]:
    """Every phrasing of every sum; a few phrasings of each are held out of training."""
    items = []
    for operation, x, y, answer in all_sums():
        fact = f"{operation}/{x}/{y}".rstrip("/").replace(" ", "_")
        for style, template in WORDINGS[operation].styled():
            question = fill(template, x=x, y=y)
            items.append(
                build_item(
                    (question, answer),
                    category="arithmetic",
                    style=style,
                    fact=fact,
                    is_eval=is_held_out(question),
                )
            )
    return items
