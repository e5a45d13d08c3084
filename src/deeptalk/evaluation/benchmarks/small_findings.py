"""Whether the paper's effects appear, in plain sentences that follow from the figures and nothing else.

An effect appears where the interval of the difference, question by question, lies on the paper's side of
zero, and every single run of one side is better than every one of the other; it is turned round where both
hold on the other side; else it can't be told at this size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deeptalk.evaluation.benchmarks.small_figures import (
    CHANGE,
    CHANGE_PERCENT,
    HEARD,
    SPOKEN,
    TEXT,
    Figure,
    apart,
    figure_of,
    having,
)
from deeptalk.evaluation.benchmarks.small_runs import (
    CASCADE,
    LATENCY,
    SHIPPED,
    START,
    Run,
    StageRun,
)
from deeptalk.evaluation.benchmarks.small_runs import FLOOR as ORIGINALS
from deeptalk.evaluation.benchmarks.small_tables import ABLATIONS, RANDOM

Runs = Mapping[str, Sequence[Run]]

APPEARS, REVERSED, OPEN = (
    "the paper's effect appears",
    "the paper's effect is turned round",
    "it can't be told at this size",
)
FLOOR, CEILING = 5.0, 99.0
"""Where both sides are below or above, in per cent, a difference tells nothing."""

_WORDS = {
    TEXT: "text to text",
    HEARD: "speech to text",
    SPOKEN: "speech to speech",
}
LEAST_DPO = 1 / 3
"""The part by which DPO should lower the errors of speech against its own text."""
NEAR = 3.0
"""Points within which lossless text should leave speech to text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Right minus left of one score; ``verdict`` is one of `APPEARS`, `REVERSED`, `OPEN`, None if not run."""

    text: str
    verdict: str | None


def compare(
    runs: Runs,
    left: Sequence[str],
    right: Sequence[str],
    score: str,
    *,
    names: tuple[str, str],
    sign: int = 1,
) -> Comparison:
    """Whether ``right`` is better (``sign`` 1) or worse (-1) than ``left``, as the paper has it.

    ``names`` are the words for left and right.
    """
    before, after = ([run for name in side for run in runs.get(name, ())] for side in (left, right))
    first, second = figure_of(before, score), figure_of(after, score)
    difference = apart(before, after, score)
    if first is None or second is None or difference is None:
        return Comparison(text=f"{_WORDS[score]}: not run", verdict=None)
    text = (
        f"{_WORDS[score]}: {names[1]} {second.value:.1f} %, {names[0]} {first.value:.1f} %, a difference of "
        f"{difference.value:+.1f} points ({difference.low:+.1f} to {difference.high:+.1f}; "
        f"{_numbers(before, after, score)})"
    )
    if max(first.value, second.value) < FLOOR or min(first.value, second.value) > CEILING:
        edge = "neither can do it yet" if first.value < FLOOR else "both can do nearly all"
        return Comparison(text=f"{text}, {edge}", verdict=OPEN)
    if not difference.is_clear:
        return Comparison(text=text, verdict=OPEN)
    is_better = difference.value > 0
    if not _is_separate(before, after, score, is_better=is_better):
        return Comparison(text=f"{text}, but single runs of the two overlap", verdict=OPEN)
    return Comparison(text=text, verdict=APPEARS if is_better == (sign > 0) else REVERSED)


def _numbers(left: Sequence[Run], right: Sequence[Run], score: str) -> str:
    """How many runs stand behind both sides: what other seeds would give is seen from several alone."""
    first, second = len(having(left, score)), len(having(right, score))
    if first == second:
        return "one run each" if first == 1 else f"{first} runs each"
    return f"{second} against {first} runs"


def _is_separate(left: Sequence[Run], right: Sequence[Run], score: str, *, is_better: bool) -> bool:
    low, high = ([_last(run).scores[score].value for run in having(group, score)] for group in (left, right))
    if not is_better:
        low, high = high, low
    return max(low) < min(high)


def finding(table: str, runs: Runs) -> str:
    """The sentence of a table or figure, by its name."""
    return _FINDINGS[table](runs)


def _table_1(runs: Runs) -> str:
    told = [
        text
        for top_k in ("top-k 1", "top-k 10")
        for part in ("answers", "hard")
        if (text := _dpo(runs, top_k, part))
    ]
    if not told:
        return "WER of speech against its own text before and after DPO: not run."
    of = "".join(f" ({run.about})" for run in runs.get("top-k 1", ()) if run.about)
    return f"WER of speech against its own text, before and after DPO{of}: {'; '.join(told)}.{_why_not(runs)}"


def _why_not(runs: Runs) -> str:
    """Where answers' errors have not fallen by a third: what was there to be learnt, and to be gained."""
    (after,) = runs.get("dpo top-k 1", ()) or (None,)
    before, now = (_score(runs, name, "answers/own_wer/bigram") for name in ("top-k 1", "dpo top-k 1"))
    if after is None or not after.about or before is None or now is None:
        return ""
    if now.value <= (1 - LEAST_DPO) * before.value:
        return ""
    floor = _score(runs, ORIGINALS, "answers/target_wer/bigram")
    least = f" The judge hears {floor.value:.1f} % in flite's own recordings." if floor is not None else ""
    return f" Why not by a third: {after.about}: the reward tells little that codes could tell.{least}"


def _dpo(runs: Runs, top_k: str, part: str) -> str:
    before, after = (_score(runs, name, f"{part}/own_wer/bigram") for name in (top_k, f"dpo {top_k}"))
    if before is None or after is None or not before.value:
        return ""
    change = after.value / before.value - 1
    if change <= -LEAST_DPO:
        verdict = "at least a third less"
    else:
        verdict = "less, but by less than a third" if change < 0 else "not less"
    apart_or_not = "apart" if _are_apart(before, after) else "overlapping"
    lengths = [_score(runs, name, f"{part}/mean_frames") for name in (top_k, f"dpo {top_k}")]
    length = ""
    if lengths[0] is not None and lengths[1] is not None:
        length = f", length {100 * (lengths[1].value / lengths[0].value - 1):+.0f} %"
    return (
        f"{part}, {top_k}: {before.value:.1f} to {after.value:.1f} % ({100 * change:+.0f} %: {verdict}; "
        f"intervals {apart_or_not}{length})"
    )


def _table_2(runs: Runs) -> str:
    parts = [
        compare(runs, ["moextend"], ["adaptive"], score, names=("MoExtend", "adaptive"))
        for score in (HEARD, SPOKEN)
    ]
    return f"{_told(parts, 'Adaptive over MoExtend')} {_cascade(runs)}"


def _table_3(runs: Runs) -> str:
    lost = []
    for name in ("adaptive", "lossless", "moextend", "pure-moe"):
        change = figure_of(runs.get(name, ()), CHANGE_PERCENT, baselines=runs.get(START, ()))
        if change is not None:
            lost.append(f"{name} {change.value:+.1f} %{_between(change)}")
    told = f"Against the text backbone: {'; '.join(lost)}; the paper's is -5.45 %." if lost else "Not run."
    parts = [compare(runs, ["pure-moe"], ["adaptive"], TEXT, names=("PureMoE", "adaptive"))]
    return f"{told} {_told(parts, 'Less forgetting than PureMoE')}"


def _table_4(runs: Runs) -> str:
    wer = _score(runs, SHIPPED, "transcription_wer")
    if wer is None:
        return "Not run."
    return (
        f"The shipped model's {wer.value:.1f} % WER on held-out clips of its own domain says nothing on the "
        "paper's sets, which nobody has run here: no effect is claimed or compared."
    )


def _table_7(runs: Runs) -> str:
    parts = [
        compare(
            runs, ["adaptive"], ["experts-12"], TEXT, names=("4 audio experts", "12 audio experts"), sign=-1
        ),
        compare(runs, ["adaptive"], ["experts-9"], SPOKEN, names=("4 audio experts", "9 audio experts")),
    ]
    return _told(parts, "More audio experts cost text and, up to 18 of 64, help speech")


def _table_8(runs: Runs) -> str:
    by_lot = [
        compare(runs, RANDOM, ["adaptive"], score, names=("random draws (mean)", "adaptive"))
        for score in (HEARD, SPOKEN, TEXT)
    ]
    pure = [
        compare(runs, ["pure-moe"], ["adaptive"], score, names=("PureMoE", "adaptive"))
        for score in (HEARD, SPOKEN)
    ]
    by_largest = [
        compare(runs, RANDOM, ["loads-max"], score, names=("random draws (mean)", "loads by their largest"))
        for score in (HEARD, SPOKEN, TEXT)
    ]
    return (
        f"{_told(by_lot, 'By load over by lot')} {_told(pure, 'Adaptive over PureMoE')} "
        f"{_told(by_largest, 'By load in parts of the largest over by lot')}"
    )


def _loads(runs: Runs) -> str:
    load = _score(runs, "load of adaptive", "text/all")
    lots = figure_of([run for name in RANDOM for run in runs.get(f"load of {name}", ())], "text/all")
    speech = _score(runs, "load of adaptive", "audio/all")
    if load is None or speech is None:
        return "Not run."
    lot = "" if lots is None else f", those by lot {lots.value:.1f} %"
    told = (
        f"The audio experts by load carry {load.value:.1f} % of text's choices{lot}, and "
        f"{speech.value:.1f} % of speech's. {_verdict_of_load(load.value, lots)}"
    )
    largest = [_score(runs, "load of loads-max", f"{kind}/all") for kind in ("text", "audio")]
    if None in largest:
        return told
    text_part, speech_part = (score.value for score in largest if score is not None)
    return (
        f"{told} Chosen by loads in parts of the layer's largest they carry {text_part:.1f} % of text's and "
        f"{speech_part:.1f} % of speech's. {_verdict_of_load(text_part, lots)}"
    )


def _verdict_of_load(load: float, lots: Figure | None) -> str:
    if lots is None or lots.lowest is None or lots.highest is None:
        return ""
    if load < lots.lowest:
        return "Text needs them less than any that were drawn: what the paper's choice is for appears."
    if load > lots.highest:
        return (
            "Text needs them more than any that were drawn: what speech uses most, text uses too, and what "
            "the paper's choice is for does not appear."
        )
    return "Text needs them no more and no less than those that were drawn."


def _latency(runs: Runs) -> str:
    first, factor = (_score(runs, SHIPPED, name) for name in ("first_audio_p50", "real_time_factor_p50"))
    if first is None or factor is None:
        return "Not run."
    chunk = _score(runs, LATENCY, "first_chunk")
    beside = "" if chunk is None else f" ({chunk.value:.0f} ms on average by the paper's way of measuring)"
    return (
        f"The shipped model speaks {first.value:.0f} ms after a question{beside} at a real-time factor of "
        f"{factor.value:.2f}; at another size on other hardware, that neither confirms nor refutes the paper."
    )


def _ablations(runs: Runs) -> str:
    clear, number = [], 0
    for row in ABLATIONS.rows[1:]:
        for score in (TEXT, HEARD, SPOKEN):
            found = compare(runs, ["adaptive"], row.runs, score, names=("adaptive", row.name))
            number += found.verdict is not None
            if found.verdict in (APPEARS, REVERSED):
                clear.append(found.text)
    if not number:
        return "Not run."
    told = f"Clear: {'; '.join(clear)}." if clear else "None is clear."
    return f"{number} comparisons with adaptive. {told} The paper has no figures to hold them against."


def _lossless(runs: Runs) -> str:
    start, group = runs.get(START, ()), runs.get("lossless", ())
    if not start or not group:
        return "Not run."
    change = figure_of(group, CHANGE, baselines=start)
    if change is None:
        return "Not run to its end."
    before = _last(start[0]).verdicts.get("text_to_text")
    is_same = all(_last(run).verdicts.get("text_to_text") == before for run in group)
    heard = compare(runs, ["adaptive"], ["lossless"], HEARD, names=("adaptive", "lossless"))
    spoken = compare(runs, ["adaptive"], ["lossless"], SPOKEN, names=("adaptive", "lossless"))
    told = (
        f"Text changes by {change.value:+.1f} points, "
        f"{'every verdict is the backbone' + chr(39) + 's' if is_same else 'and single verdicts differ'}."
    )
    value = _distance(runs, HEARD)
    near = "" if value is None else f" Speech to text is {_near(value)} of the paper's variant."
    return f"{told}{near} {_upper(heard.text)}; {spoken.text}."


def _forgetting(runs: Runs) -> str:
    start = runs.get(START, ())
    changes = {}
    for name, group in runs.items():
        if name == START or not start or not group or not group[0].positions:
            continue  # not trained for this
        change = figure_of(group, CHANGE, baselines=start)
        if change is not None:
            changes[name] = change
    if not changes:
        return "Not run."
    order = sorted(changes, key=lambda name: changes[name].value)
    told = [f"{name} {changes[name].value:+.1f}{_between(changes[name])}" for name in order]
    lowest = _lowest_stage(runs)
    return f"Change from before speech to the end, in points: {'; '.join(told)}.{lowest}"


def _lowest_stage(runs: Runs) -> str:
    values = {
        stage: figure_of(runs.get("adaptive", ()), TEXT, stage=ending)
        for stage, ending in (("2.1", "audio-experts"), ("2.2", "text-experts"), ("3", "joint"))
    }
    known = {stage: figure.value for stage, figure in values.items() if figure is not None}
    if len(known) < len(values):
        return ""
    return (
        " The paper's way goes "
        + ", ".join(
            f"{'to' if number == 0 else 'then'} {value:.1f} % after {stage}"
            for number, (stage, value) in enumerate(known.items())
        )
        + "."
    )


def _told(parts: Sequence[Comparison], claim: str) -> str:
    """A claim with its comparisons, and one verdict on all of them."""
    known = [part for part in parts if part.verdict is not None]
    if not known:
        return f"{claim}: not run."
    verdicts = {part.verdict for part in known}
    if len(verdicts) == 1:
        (only,) = verdicts
        return f"{claim}: {only}. {_upper('; '.join(part.text for part in parts))}."
    each = "; ".join(f"{part.text}: {part.verdict or 'nothing can be said'}" for part in parts)
    return f"{claim}: {each}."


def _cascade(runs: Runs) -> str:
    """On the questions that both were asked."""
    cascade, whole = runs.get(CASCADE, ()), runs.get(SHIPPED, ())
    told = []
    for score in (HEARD, SPOKEN):
        difference = apart(cascade, whole, score)
        if difference is not None:
            word = "clear" if difference.is_clear else "not clear"
            told.append(
                f"{_WORDS[score]} {difference.value:+.1f} points ({difference.low:+.1f} to "
                f"{difference.high:+.1f}, {word})"
            )
    if not told:
        return "The cascade: not run."
    return f"The shipped model end to end against the cascade of its parts: {', '.join(told)}."


def _are_apart(left: Figure, right: Figure) -> bool:
    bounds = (left.low, left.high, right.low, right.high)
    if None in bounds:
        return False
    low, high, other_low, other_high = bounds
    return bool(high < other_low or other_high < low)  # type: ignore[operator]


def _distance(runs: Runs, score: str) -> float | None:
    found = apart(runs.get("adaptive", ()), runs.get("lossless", ()), score)
    return None if found is None else found.value


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _near(value: float) -> str:
    return f"measured within {NEAR:g} points" if abs(value) <= NEAR else f"{abs(value):.1f} points off that"


def _between(figure: Figure) -> str:
    return "" if figure.low is None else f" ({figure.low:+.1f} to {figure.high:+.1f})"


def _score(runs: Runs, name: str, score: str) -> Figure | None:
    return figure_of(runs.get(name, ()), score)


def _last(run: Run) -> StageRun:
    stage = run.stage(None)
    assert stage is not None
    return stage


_FINDINGS: Mapping[str, Callable[[Runs], str]] = {
    "table-1": _table_1,
    "table-2": _table_2,
    "table-3": _table_3,
    "table-4": _table_4,
    "table-7": _table_7,
    "table-8": _table_8,
    "figures-4-6": _loads,
    "latency": _latency,
    "ablations": _ablations,
    "lossless": _lossless,
    "forgetting": _forgetting,
}
