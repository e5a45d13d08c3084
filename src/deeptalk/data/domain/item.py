"""What the domain is made of: items, facts, relations, and the rule that holds questions out of training.

Every choice that must never change with the seed (held out or not, learnt from text only or not) hangs on a
hash of a stable key, so training items of one seed never meet evaluation questions of another.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2s

EVAL_PERCENT = 5
TEXT_ONLY_PERCENT = 25
CATEGORIES = ("facts", "reasoning", "arithmetic", "strings", "smalltalk", "dialogue", "refusal", "reading")


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a dialogue; ``role`` is "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainItem:
    """One question with its answer, or one dialogue; ``messages`` ends with the assistant.

    ``style`` is "formal" (wording of text data) or "colloquial" (wording of speech data); ``text_only`` says
    that the fact is learnt from text alone, never asked nor answered in speech; ``fact`` is shared by all
    phrasings.
    """

    id: str
    category: str
    messages: tuple[Message, ...]
    style: str
    split: str
    text_only: bool
    fact: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """The templates of one kind of question, in two disjoint styles; slots are {x}, {y}, {z}."""

    formal: tuple[str, ...]
    colloquial: tuple[str, ...]

    def styled(self) -> Iterable[tuple[str, str]]:
        """Every (style, template) pair, formal first."""
        yield from (("formal", template) for template in self.formal)
        yield from (("colloquial", template) for template in self.colloquial)


def stable_hash(key: str) -> int:
    """A hash of the text that is equal on every machine and in every run."""
    return int.from_bytes(blake2s(key.encode(), digest_size=8).digest(), "big")


def is_held_out(key: str, *, percent: int = EVAL_PERCENT) -> bool:
    """Whether this question (or combination of words) belongs to evaluation."""
    return stable_hash("split " + key) % 100 < percent


def is_text_only(bundle: str) -> bool:
    """Whether the facts of this bundle (a fact and its reverse) are learnt from text only."""
    return stable_hash("text only " + bundle) % 100 < TEXT_ONLY_PERCENT


def split_words(text: str, separator: str | None = None) -> list[str]:
    """The entries of a table that is written as one text, between spaces or the separator."""
    return text.split(separator)


def capitalise(text: str) -> str:
    """The text with a capital first letter, the rest unchanged."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """The noun after "a" or "an"."""
    starts_like_you = noun.startswith(("uni", "eu", "us"))
    return f"an {noun}" if noun[0].lower() in "aeiou" and not starts_like_you else f"a {noun}"


def fill(template: str, **slots: str) -> str:
    """The template with its slots filled and a capital first letter."""
    return capitalise(template.format(**slots))


def build_item(
    turns: Iterable[str],
    *,
    category: str,
    style: str,
    fact: str,
    is_eval: bool,
    text_only: bool = False,
) -> DomainItem:
    """An item of alternating user and assistant turns, named after its text."""
    roles = ("user", "assistant")
    messages = tuple(Message(role=roles[i % 2], text=text) for i, text in enumerate(turns))
    digest = blake2s("|".join(m.text for m in messages).encode(), digest_size=6).hexdigest()
    return DomainItem(
        id=f"{category}-{digest}",
        category=category,
        messages=messages,
        style=style,
        split="eval" if is_eval else "train",
        text_only=text_only,
        fact=fact,
    )


def noun_wording(noun: str) -> Wording:
    """Templates that ask for a noun phrase such as "the capital of {x}"."""
    return Wording(
        formal=(f"What is {noun}?", f"Name {noun}.", f"Please state {noun}.", f"Give {noun}."),
        colloquial=(
            f"What's {noun}?",
            f"Tell me {noun}.",
            f"Hey, what's {noun}?",
            f"Do you know {noun}?",
            f"Can you tell me {noun}, please?",
            f"I'd like to know {noun}.",
        ),
    )


def clause_wording(direct: str, embedded: str) -> Wording:
    """Templates from a question ("where does {x} work") and the clause it becomes ("where {x} works")."""
    return Wording(
        formal=(f"{direct}?", f"Please state {embedded}.", f"Say {embedded}.", f"Please answer, {direct}?"),
        colloquial=(
            f"Hey, {direct}?",
            f"Tell me {embedded}.",
            f"Do you know {embedded}?",
            f"Can you tell me {embedded}, please?",
            f"I'd like to know {embedded}.",
            f"So, {direct}?",
        ),
    )
