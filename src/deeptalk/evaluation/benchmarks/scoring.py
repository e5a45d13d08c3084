"""From the items of a test and what a model gave for them to a report: every item counts."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.error_rates import ErrorReport, score_transcripts
from deeptalk.evaluation.benchmarks.llm_judge import LlmJudge
from deeptalk.evaluation.benchmarks.machine import git_hash, scorer
from deeptalk.evaluation.benchmarks.normalizers import Normalizer
from deeptalk.evaluation.benchmarks.qa_rules import rule, rule_version
from deeptalk.evaluation.benchmarks.question_sets import QaItem
from deeptalk.evaluation.benchmarks.records import RECOGNISER, SETTINGS, TIMING, read_json, split_of
from deeptalk.evaluation.metrics import Score, share_score

T = TypeVar("T")

JUDGE = "llm-judge"
"""The name of the judge's row among the rules."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredItem:
    """One item: what was given for it (None if nothing), and of every score its share of count and total.

    ``reason`` is empty, ``missing``, or why the judge could not judge.
    """

    id: str
    given: str | None
    parts: Mapping[str, tuple[float, float]]
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkReport:
    """The scores of one model on one set.

    Attributes:
        kind: ``qa``, ``asr`` or ``tts``.
        data: SHA-256 of the file of the set, sixteen digits.
        rules: of every score the version of its rule: a library's, the judge's model and prompt, or our own.
        scores: one for each rule.
        num_items: items of the set; no score has another total but error rates, which count units.
        num_missing: items for which nothing was given; they are wrong, or have lost all their words.
        num_unjudged: answers that the judge could not judge; they are wrong in its row.
        errors: substitutions, deletions, insertions and units of an error rate, else None.
        items: all items, in the order of the set.
        about: what the answers are of, as far as it is known: see `about_answers`; ``shrunk_from`` is the
            size of the set where missing items were left out, else None.
    """

    kind: str
    data: str
    rules: Mapping[str, str]
    scores: tuple[Score, ...]
    num_items: int
    num_missing: int
    num_unjudged: int
    errors: Mapping[str, int] | None
    items: tuple[ScoredItem, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self, *, has_items: bool) -> dict[str, Any]:
        """The report as JSON has it; with ``has_items`` every item besides."""
        values = {name: getattr(self, name) for name in ("kind", "data", "rules")}
        values["scores"] = {
            score.name: {name: value for name, value in asdict(score).items() if name != "name"}
            for score in self.scores
        }
        for name in ("num_items", "num_missing", "num_unjudged", "errors", "about"):
            values[name] = getattr(self, name)
        return values | ({"items": [asdict(item) for item in self.items]} if has_items else {})


def score_questions(
    items: Sequence[QaItem],
    answers: Mapping[str, str],
    *,
    rules: Sequence[str],
    data: str,
    judge: LlmJudge | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BenchmarkReport:
    """The share of right answers by each rule, and by the judge where there is one.

    ``progress`` is told how many questions of how many have been scored.

    Raises:
        DataError: a question has no right answer, or one of which a rule leaves nothing; the text names it.
        ConfigError: a rule is unknown, or the judge refuses all requests.
    """
    chosen = {name: rule(name) for name in dict.fromkeys(rules)}
    scored = []
    for number, item in enumerate(items):
        progress(number, len(items))
        given, reason, verdicts = answers.get(item.id), "", {}
        try:
            for name, is_right in chosen.items():
                # Asked about missing answers too, so that what is wrong with the data is told in any case.
                verdicts[name] = is_right(given or "", item.answers)
        except DataError as error:
            raise DataError(f"question {item.id!r}: {error}") from error
        if judge is not None:
            verdict = judge.judge(item.question, given, item.answers)
            verdicts[JUDGE] = verdict.is_right
            reason = "" if verdict.reason in ("judged", "no answer") else verdict.reason
        parts = {name: (float(is_right), 1.0) for name, is_right in verdicts.items()}
        reason = "missing" if given is None else reason
        scored.append(ScoredItem(id=item.id, given=given, parts=parts, reason=reason))
    versions = {name: rule_version(name) for name in chosen}
    if judge is not None:
        versions[JUDGE] = f"{judge.settings.model}, prompt {judge.settings.prompt_hash}"
    counts = {name: round(sum(item.parts[name][0] for item in scored)) for name in versions}
    return BenchmarkReport(
        kind="qa",
        data=data,
        rules=versions,
        scores=tuple(share_score(name, count, len(scored)) for name, count in counts.items()),
        num_items=len(scored),
        num_missing=sum(item.given is None for item in scored),
        num_unjudged=sum(item.reason not in ("", "missing") for item in scored),
        errors=None,
        items=tuple(scored),
        about=about or {},
    )


def score_speech(
    references: Mapping[str, str],
    heard: Mapping[str, str],
    *,
    normalizers: Sequence[Normalizer],
    data: str,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> BenchmarkReport:
    """Error rates of the corpus and their mean over utterances, by each normaliser.

    ``errors`` are those of the first normaliser. Raises as `score_transcripts` does.
    """
    reports = [score_transcripts(references, heard, normalizer) for normalizer in normalizers]
    scored = [
        ScoredItem(
            id=name,
            given=heard.get(name),
            parts=_speech_parts(reports, number),
            reason="" if name in heard else "missing",
        )
        for number, name in enumerate(references)
    ]
    scores = [score for r in reports for score in (r.corpus_score(seed=seed), r.mean_score(seed=seed))]
    versions = {report.normalizer.name: report.normalizer.version for report in reports}
    return BenchmarkReport(
        kind="asr",
        data=data,
        rules={score.name: versions[score.name.rpartition("/")[0]] for score in scores},
        scores=tuple(scores),
        num_items=len(scored),
        num_missing=len(reports[0].missing),
        num_unjudged=0,
        errors=reports[0].total.to_dict(),
        items=tuple(scored),
        about=about or {},
    )


def about_answers(path: Path, *, set_name: str, field: str, shrunk_from: int | None = None) -> dict[str, Any]:
    """What a file of answers is of.

    ``set`` names the test set, ``split`` what of it, None where the name does not tell; ``field`` is what is
    scored of an answer; ``row`` is T for what the model wrote, S for what was heard of its speech, None for
    answers of others. ``run`` is what ``run.json`` beside the file tells of model and of how it was asked,
    ``recogniser`` who has listened, and ``rtfx`` how many seconds were heard in one of computing, all None
    where nothing does; ``num_runaway`` counts answers that were cut off at their longest, None where the file
    does not tell.
    """
    runaway = None
    if path.suffix == ".jsonl":
        lines = [row.values for row in read_json(path)]
        if any("finish_reason" in line for line in lines):
            runaway = sum(line.get("finish_reason") == "length" for line in lines)
    run = _beside(path, SETTINGS)
    return {
        "set": set_name,
        "split": split_of(set_name),
        "field": field,
        "row": None if run is None else "S" if field == "transcript" else "T",
        "run": run,
        "recogniser": _beside(path, RECOGNISER),
        "rtfx": (_beside(path, TIMING) or {}).get("rtfx"),
        "num_runaway": runaway,
        "shrunk_from": shrunk_from,
        "scorer": scorer(),
        "git": git_hash(),
    }


def about_folder(folder: Path) -> dict[str, Any]:
    """What a folder of samples is of: its name, its ``run.json`` if it has one, and what scores it."""
    run = _beside(folder / SETTINGS, SETTINGS)
    name = folder.resolve().name
    return {"set": name, "split": split_of(name), "run": run, "scorer": scorer(), "git": git_hash()}


def without_missing(items: Sequence[T], ids: Callable[[T], str], given: Collection[str]) -> list[T]:
    """The items that something was given for, as tools that skip the others see them.

    Raises:
        DataError: nothing is left.
    """
    kept = [item for item in items if ids(item) in given]
    if not kept:
        raise DataError("nothing is left when all that is missing is left out.")
    return kept


def _beside(path: Path, name: str) -> dict[str, Any] | None:
    try:
        values = json.loads((path.parent / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _speech_parts(reports: Sequence[ErrorReport], number: int) -> dict[str, tuple[float, float]]:
    """Of one utterance its share of every error rate."""
    parts = {}
    for report in reports:
        name, errors = report.normalizer.name, report.utterances[number].errors
        parts[f"{name}/corpus"] = (float(errors.total), float(errors.num_units))
        parts[f"{name}/utterances"] = (errors.rate, 1.0)
    return parts


def read_report(path: Path) -> BenchmarkReport:
    """A report that was written with its items; DataError where the file is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        items = tuple(
            ScoredItem(
                id=str(item["id"]),
                given=item["given"],
                parts={name: (float(above), float(below)) for name, (above, below) in item["parts"].items()},
                reason=item["reason"],
            )
            for item in values["items"]
        )
        scores = tuple(Score(name=name, **score) for name, score in values["scores"].items())
        names = ("kind", "data", "rules", "num_items", "num_missing", "num_unjudged", "errors")
        about = values.get("about", {})
        report = BenchmarkReport(
            scores=scores, items=items, about=about, **{name: values[name] for name in names}
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no report with items, as `deeptalk eval ... --out` writes ({error})."
        ) from error
    if any(score.name not in item.parts for item in items for score in scores):
        raise DataError(f"{path}: an item lacks its part of a score.")
    return report
