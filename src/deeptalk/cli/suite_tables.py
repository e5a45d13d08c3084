"""How each table of the paper is filled: a model at work on a set that is here, scored by its rule."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeptalk.cli.generate import Form, Work, asks_of, spoken_asks
from deeptalk.errors import DataError, DeepTalkError, reason

if TYPE_CHECKING:
    from deeptalk.decoding import LoadedModel
    from deeptalk.evaluation.benchmarks.llm_judge import LlmJudge
    from deeptalk.evaluation.benchmarks.paper_suite import Ours
    from deeptalk.evaluation.benchmarks.question_sets import QaItem
    from deeptalk.evaluation.benchmarks.speech_lists import SayItem
    from deeptalk.evaluation.metrics import Score


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What a suite is given: where sets lie, results of other engines, and how the model is asked."""

    work: Work
    judge: "LlmJudge | None" = None
    data: Path | None = None
    text: Path | None = None
    latency: Path | None = None
    turns: int = 50
    limit: int | None = None
    allow_missing: bool = False


@dataclass(slots=True)
class Filled:
    """What a suite has found so far; a set that could not be run does not keep the others from being run."""

    ours: "dict[str, Ours]" = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    num_unjudged: int = 0

    @contextmanager
    def tried(self, name: str) -> Iterator[None]:
        """A mistake in a set is told in its rows."""
        try:
            yield
        except DeepTalkError as error:
            self.not_run[name] = str(error)
            self.failed.append(f"{name}: {error}")


def fill_questions(given: Given, loaded: "LoadedModel", filled: Filled) -> None:
    """Tables 2 and 7: written and spoken questions, answered in text and in speech."""
    from deeptalk.evaluation.benchmarks.normalizers import normalizer
    from deeptalk.evaluation.benchmarks.paper_suite import QUESTION_RULE, QUESTION_SETS, find_set
    from deeptalk.evaluation.benchmarks.question_sets import question_file, read_answers, read_questions
    from deeptalk.evaluation.benchmarks.scoring import score_questions
    from deeptalk.evaluation.benchmarks.spoken_answers import read_spoken, speech_costs
    from deeptalk.files import digest_of

    for name in QUESTION_SETS:
        path = find_set(given.data, name)
        if path is None:
            filled.not_run[name] = _absent(given, name)
            continue
        with filled.tried(name):
            items = read_questions(path)
            data = digest_of(question_file(path)) or ""
            runs = [
                ("text_to_text", Form.TEXT, "text", "text"),
                ("speech_to_text", Form.SPEECH, "speaker", "text"),
                ("speech_to_speech", Form.SPEECH, "speaker", "transcript"),
            ]
            for key, asked, mode, answer_field in runs:
                if key == "speech_to_speech" and given.work.recogniser is None:
                    filled.not_run[f"{name}/{key}"] = "nobody listens: no --recogniser"
                    continue
                if asked is Form.TEXT and not all(item.question.strip() for item in items):
                    filled.not_run[f"{name}/{key}"] = "the set has no texts of its questions"
                    continue
                with filled.tried(f"{name}/{key}"):
                    folder = given.work.out / name / ("text" if mode == "text" else "speech")
                    _run(given, loaded, asks_of(items, path, asked), folder, mode=mode)
                    answers = folder / "answers.jsonl"
                    scored = score_questions(
                        items,
                        read_answers(answers, items, field=answer_field),
                        rules=(QUESTION_RULE, "has-answer"),
                        data=data,
                        about=_about_run(answers, name, answer_field),
                    )
                    _keep(given, filled, name, key, scored, scored.scores[0], QUESTION_RULE)
                    filled.extra[f"{name}/{key}/has-answer"] = scored.scores[1].to_dict()
                    _note_texts(
                        filled, {item.id: (item.question, " / ".join(item.answers)) for item in items}
                    )
                    if given.judge is not None:
                        given_answers = read_answers(answers, items, field=answer_field)
                        _judge(given.judge, filled, f"{name}/{key}", items, given_answers, data)
            if f"{name}/speech_to_speech" in filled.ours:
                filled.extra[f"{name}/speech"] = speech_costs(
                    items,
                    read_spoken(given.work.out / name / "speech" / "answers.jsonl"),
                    rule_name=QUESTION_RULE,
                    normalizer=normalizer("plain-en"),
                )


def fill_recognition(given: Given, loaded: "LoadedModel", filled: Filled) -> None:
    """Table 4: recordings written down."""
    from deeptalk.evaluation.benchmarks.generation import Ask
    from deeptalk.evaluation.benchmarks.normalizers import normalizer
    from deeptalk.evaluation.benchmarks.paper_suite import SPEECH_SETS, find_set
    from deeptalk.evaluation.benchmarks.scoring import score_speech
    from deeptalk.evaluation.benchmarks.speech_lists import read_references, read_speech, read_transcripts
    from deeptalk.files import digest_of

    for name, (_, rule) in SPEECH_SETS.items():
        path = find_set(given.data, name)
        if path is None:
            filled.not_run[name] = _absent(given, name)
            continue
        with filled.tried(name):
            folder = given.work.out / name
            asks = [Ask(id=item.id, audio=item.audio) for item in read_speech(path)]
            asks_by_id = {ask.id: ask for ask in asks}
            _run(given, loaded, asks, folder, mode="asr")
            texts, file = read_references(path)
            answers = folder / "answers.jsonl"
            scored = score_speech(
                texts,
                read_transcripts(answers),
                normalizers=[normalizer(rule)],
                data=digest_of(file) or "",
                about=_about_run(answers, name, "text"),
            )
            _keep(given, filled, name, rule, scored, scored.scores[0], scored.scores[0].name)
            _note_texts(filled, {key: (asks_by_id[key].audio, text) for key, text in texts.items()})
            filled.extra[name] = {"rtfx": scored.about["rtfx"]}


def fill_synthesis(given: Given, loaded: "LoadedModel", filled: Filled) -> None:
    """Table 1: texts read aloud, and the list's own recordings through the codec, where it has any."""
    from deeptalk.cli.synthesis import recoded
    from deeptalk.evaluation.benchmarks.paper_suite import SAY_SETS, find_set
    from deeptalk.evaluation.benchmarks.speech_lists import read_say_list
    from deeptalk.files import digest_of

    for name, (_, rule) in SAY_SETS.items():
        path = find_set(given.data, name)
        if path is None:
            filled.not_run[name] = _absent(given, name)
            continue
        if given.work.recogniser is None:
            filled.not_run[name] = "nobody listens: no --recogniser"
            continue
        with filled.tried(name):
            items, folder = read_say_list(path), given.work.out / name
            _run(given, loaded, spoken_asks(items), folder, mode="speaker")
            data = digest_of(path) or ""
            scored = _scored_speech(items, folder, name, rule, data)
            by_name = {score.name: score for score in scored.scores}
            _keep(given, filled, name, "target", scored, by_name["target/utterances"], f"{rule}/utterances")
            _note_texts(filled, {item.id: (item.text, item.text) for item in items})
            headlines = [key for key in by_name if key.endswith("/utterances")]
            filled.extra[name] = {
                **{key.removesuffix("/utterances"): by_name[key].to_dict() for key in headlines},
                "coverage": by_name["coverage"].to_dict(),
            }
            if all(item.target_audio is not None for item in items):
                ceiling = replace(given.work, out=folder / "codec", mode="recoded")
                recoded(items[: given.limit], ceiling, loaded)
                heard = _scored_speech(items, ceiling.out, name, rule, data)
                headline = next(score for score in heard.scores if score.name == "target/utterances")
                filled.extra[f"{name}/codec"] = headline.to_dict()


def _scored_speech(items: "Sequence[SayItem]", folder: Path, name: str, rule: str, data: str) -> Any:
    from deeptalk.evaluation.benchmarks.normalizers import normalizer
    from deeptalk.evaluation.benchmarks.spoken_answers import read_spoken
    from deeptalk.evaluation.benchmarks.synthesis import speech_report

    answers = folder / "answers.jsonl"
    return speech_report(
        items,
        read_spoken(answers),
        folder / "audio",
        normalizer(rule),
        data=data,
        about=_about_run(answers, name, "transcript"),
    )


def fill_text(given: Given, loaded: "LoadedModel", filled: Filled) -> None:
    """Table 3, from what `eval text --out` has written: the harness's tasks by their names."""
    from deeptalk.evaluation.benchmarks.paper_suite import Ours
    from deeptalk.evaluation.benchmarks.paper_tables import SETS, text_drop
    from deeptalk.evaluation.benchmarks.text_results import read_text_results
    from deeptalk.model.identity import model_hash

    if given.text is None:
        reason = "no --text F.json, which `deeptalk eval text --task ... --out` writes"
        filled.not_run |= {f"{name}/score": reason for name in (*SETS, "mean")} | {"drop": reason}
        return
    with filled.tried("text"):
        results = read_text_results(given.text, model=model_hash(loaded.model))
        for name, one in results.model.items():
            filled.ours[f"{name}/score"] = Ours(
                value=one.value,
                count=one.count,
                total=one.total,
                low=one.low,
                high=one.high,
                about={"protocol": results.protocols[name], "backbone": results.backbone[name].value},
            )
        values = {name: one.value for name, one in results.model.items()}
        if len(values) == len(SETS):
            filled.ours["mean/score"] = Ours(value=sum(values.values()) / len(values))
        lacking = [name for name in SETS if name not in values]
        if lacking:
            filled.not_run["mean/score"] = f"not all twelve sets were run; lacking: {', '.join(lacking)}"
        backbone = {name: one.value for name, one in results.backbone.items()}
        if values and all(backbone.values()):
            drop = text_drop(values, backbone)
            filled.ours["drop/of_means"] = Ours(
                value=drop.of_means,
                about={"protocol": f"of {drop.num_sets} sets", "mean_of_set_drops": drop.mean_of_sets},
            )
    if "text" in filled.not_run:
        filled.not_run |= {f"{name}/score": filled.not_run["text"] for name in (*SETS, "mean")}
        filled.not_run["drop"] = filled.not_run["text"]
    for name in SETS:
        if f"{name}/score" not in filled.ours:
            filled.not_run.setdefault(f"{name}/score", "--text F.json has no task of it")
    filled.not_run.setdefault("drop", "the backbone has nothing right in one of the sets")


def fill_latency(given: Given, loaded: "LoadedModel", filled: Filled) -> None:
    """The latency, from what `eval latency --out` has written, else measured here, without a server."""
    import json

    from deeptalk.cli.idle import MOST_BUSY, busy_cores
    from deeptalk.cli.latency import measure
    from deeptalk.cli.progress import bars
    from deeptalk.evaluation.benchmarks.paper_suite import Ours
    from deeptalk.model.identity import model_hash

    with filled.tried("latency"):
        if given.latency is not None:
            try:
                figures = json.loads(given.latency.read_text(encoding="utf-8"))
                rows, of, is_valid = figures["rows"], figures["about"]["model"], figures["valid"]
                split = figures["engine"]
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise DataError(
                    f"{given.latency}: not what `eval latency --out` writes ({reason(error)})."
                ) from error
            if of != model_hash(loaded.model):
                raise DataError(f"{given.latency}: of another model than --model; measure it anew.")
        else:
            busy = [busy_cores()]
            with bars() as show:
                figures = measure(
                    None,
                    model=given.work.model,
                    device=(given.work.devices or ["cpu"])[0],
                    voice=given.work.voice,
                    turns=given.turns,
                    frames=2,
                    max_frames=given.work.max_frames or 360,
                    concurrency=[],
                    url=None,
                    key=None,
                    is_hurried=False,
                    progress=show,
                )
            busy.append(busy_cores())
            is_valid = all(cores is None or cores <= MOST_BUSY for cores in busy)
            rows, split = figures["rows"], figures["engine"]
        protocol = "mean" if is_valid else "mean, not valid: other processes were busy"
        counts = {
            "first_chunk": split["first_chunk_ms"]["n"],
            "step": split["step_ms"]["both"]["n"],
            "real_time_factor": split["real_time_factor"]["n"],
        }
        for row in rows:
            name = f"latency/{row['figure']}"
            if row["ours"] is None:
                filled.not_run[name] = (
                    "no server was asked: `eval latency --sessions 1 --out`, then --latency"
                )
                continue
            n = counts.get(row["figure"])
            filled.ours[name] = Ours(value=row["ours"], count=n, total=n, about={"protocol": protocol})
        filled.extra["latency"] = split


def _run(given: Given, loaded: "LoadedModel", asks: Sequence[Any], folder: Path, *, mode: str) -> None:
    """The work of one set, in its own folder; what nobody could speak is not listened to."""
    spoken = mode == "speaker"
    work = replace(
        given.work,
        out=folder,
        mode=mode,
        voice=given.work.voice if spoken else None,
        recogniser=given.work.recogniser if spoken else None,
    )
    work.run(list(asks)[: given.limit], loaded=loaded)


def _judge(
    judge: "LlmJudge",
    filled: Filled,
    name: str,
    items: "Sequence[QaItem]",
    answers: Mapping[str, str],
    data: str,
) -> None:
    """The judge's share beside the rules', in no cell of the paper's; a judge that refuses is told."""
    from deeptalk.evaluation.benchmarks.scoring import score_questions

    try:
        scored = score_questions(items, answers, rules=(), data=data, judge=judge)
    except DeepTalkError as error:
        filled.failed.append(f"{name}/llm-judge: {error}")
        return
    (score,) = scored.scores
    told = {"judge": scored.rules[score.name], "num_unjudged": scored.num_unjudged}
    filled.extra[f"{name}/llm-judge"] = score.to_dict() | told
    filled.num_unjudged += scored.num_unjudged


def _note_texts(filled: Filled, texts: Mapping[str, tuple[Any, str]]) -> None:
    """What was asked and would have been right, beside the items noted last; of recordings the name."""
    for item in filled.items[-len(texts) :]:
        asked, right = texts[item["id"]]
        item.update(asked=asked.name if isinstance(asked, Path) else asked, right=right)


def _about_run(answers: Path, name: str, answer_field: str) -> dict[str, Any]:
    from deeptalk.evaluation.benchmarks.scoring import about_answers

    return about_answers(answers, set_name=name, field=answer_field)


def _keep(
    given: Given, filled: Filled, name: str, key: str, report: Any, score: "Score", protocol: str
) -> None:
    """A cell from a scored set, whose report is written for `eval compare`."""
    from deeptalk.cli.evaluation import write_json
    from deeptalk.evaluation.benchmarks.paper_suite import Ours

    write_json(given.work.out / name / f"{key}.scores.json", report.to_dict(has_items=True))
    filled.ours[f"{name}/{key}"] = Ours(
        value=score.value,
        count=score.count,
        total=score.total,
        low=score.low,
        high=score.high,
        num_missing=report.num_missing,
        about=dict(report.about)
        | {"data": report.data, "protocol": protocol, "version": report.rules[score.name]},
    )
    filled.items += [{"set": name, "figure": key, **asdict(item)} for item in report.items]


def _absent(given: Given, name: str) -> str:
    return "no --data DIR" if given.data is None else f"--data has no {name}"
