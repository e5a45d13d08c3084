"""Word and character error rates over a corpus, with every utterance of the references counted."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.intervals import bootstrap_interval
from deeptalk.evaluation.benchmarks.normalizers import Normalizer
from deeptalk.evaluation.metrics import Score


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """What turns a reference of ``num_units`` words or characters into what was heard."""

    substitutions: int
    deletions: int
    insertions: int
    num_units: int

    @property
    def total(self) -> int:
        """All errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit of the reference; there is no cap at 1."""
        return self.total / self.num_units

    def to_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        names = ("substitutions", "deletions", "insertions")
        return {name: getattr(self, name) for name in names} | {"units": self.num_units}


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """The errors of one utterance; ``is_missing`` where nothing was written down for it."""

    id: str
    errors: Errors
    is_missing: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorReport:
    """All utterances of the references, in their order."""

    normalizer: Normalizer
    utterances: tuple[Utterance, ...]

    @property
    def total(self) -> Errors:
        """The errors of the corpus."""
        all_errors = [utterance.errors for utterance in self.utterances]
        return Errors(
            substitutions=sum(errors.substitutions for errors in all_errors),
            deletions=sum(errors.deletions for errors in all_errors),
            insertions=sum(errors.insertions for errors in all_errors),
            num_units=sum(errors.num_units for errors in all_errors),
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """The utterances that have no hypothesis."""
        return tuple(utterance.id for utterance in self.utterances if utterance.is_missing)

    def corpus_score(self, *, seed: int = 0) -> Score:
        """All errors over all units, in per cent; the interval is drawn over utterances."""
        pairs = [(u.errors.total, u.errors.num_units) for u in self.utterances]
        total = self.total
        return self._score("corpus", total.total, total.num_units, pairs, seed=seed)

    def mean_score(self, *, seed: int = 0) -> Score:
        """The mean of the utterances' rates, in per cent; ``count`` of ``total`` utterances have errors."""
        rates = [(u.errors.rate, 1.0) for u in self.utterances]
        wrong = sum(rate > 0 for rate, _ in rates)
        return self._score("utterances", wrong, len(rates), rates, seed=seed)

    def _score(
        self, kind: str, count: int, total: int, pairs: Sequence[tuple[float, float]], *, seed: int
    ) -> Score:
        low, high = bootstrap_interval(pairs, seed=seed)
        value = sum(errors for errors, _ in pairs) / sum(units for _, units in pairs)
        return Score(
            name=f"{self.normalizer.name}/{kind}",
            value=100 * value,
            unit=f"% {self.normalizer.unit}",
            count=count,
            total=total,
            low=100 * low,
            high=100 * high,
        )


def count_errors(reference: Sequence[str], heard: Sequence[str], *, joins_words: bool = False) -> Errors:
    """The fewest errors; of several ways to have so few, the one with most substitutions.

    The sum is the same for every way. ``reference`` may be empty here: then all is inserted. With
    ``joins_words`` words that stand side by side are no error for the one word that they are together.
    """
    # One number holds three counts: errors, insertions and deletions, insertions.
    step = len(reference) + len(heard) + 1
    changed = step * step
    lost, added = changed + step, changed + step + 1
    reach = max(map(len, heard), default=1) if joins_words else 1  # a word has as many parts as letters
    rows = deque([[added * j for j in range(len(heard) + 1)]], maxlen=max(1, reach))
    for i, wanted in enumerate(reference, start=1):
        above, row = rows[-1], [lost * i]
        for j, given in enumerate(heard, start=1):
            same = above[j - 1] + (changed if wanted != given else 0)
            fewest = min(same, above[j] + lost, row[j - 1] + added)
            if joins_words and fewest:
                apart = [above[start] for start in _parts(heard, j, wanted)]
                joined = [rows[start - i][j - 1] for start in _parts(reference, i, given)]
                fewest = min(fewest, *apart, *joined) if apart or joined else fewest
            row.append(fewest)
        rows.append(row)
    errors, rest = divmod(rows[-1][-1], changed)
    lost_or_added, insertions = divmod(rest, step)
    return Errors(
        substitutions=errors - lost_or_added,
        deletions=lost_or_added - insertions,
        insertions=insertions,
        num_units=len(reference),
    )


def _parts(words: Sequence[str], end: int, whole: str) -> Iterator[int]:
    """Where two words or more begin, up to ``end``, that are ``whole`` together."""
    text, start = words[end - 1], end - 1
    while len(text) < len(whole) and start and whole.endswith(text):
        start -= 1
        text = words[start] + text
        if text == whole:
            yield start


def score_transcripts(
    references: Mapping[str, str], heard: Mapping[str, str], normalizer: Normalizer
) -> ErrorReport:
    """The errors of every utterance of ``references``; one that ``heard`` lacks has lost all its units.

    Raises:
        DataError: there are no references, one is empty once it is normalised, or ``heard`` has utterances
            that the references lack.
    """
    if not references:
        raise DataError("there are no references to score against.")
    unknown = [name for name in heard if name not in references]
    if unknown:
        raise DataError(
            f"{len(unknown)} utterances have no reference, the first is {unknown[0]!r}: are these "
            "transcripts of another set?"
        )
    utterances = []
    for name, text in references.items():
        units = normalizer.units(text)
        if not units:
            raise DataError(
                f"the reference of {name!r} is empty after {normalizer.name}: {text!r}; correct or remove it."
            )
        given = normalizer.units(heard.get(name, ""))
        errors = count_errors(units, given, joins_words=normalizer.joins_words)
        utterances.append(Utterance(id=name, errors=errors, is_missing=name not in heard))
    return ErrorReport(normalizer=normalizer, utterances=tuple(utterances))
