"""``deeptalk eval converse`` and ``score-duplex``: Full-Duplex-Bench with a model that takes turns."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deeptalk.cli.arguments import Json, Model, Voice
from deeptalk.cli.score import (
    AllowMissing,
    BootstrapSeed,
    JudgeKey,
    JudgeModel,
    JudgeReplies,
    JudgeUrl,
    open_judge,
)


def converse(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A task of the bench: ID/input.wav.")],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder of the run; one that was interrupted goes on."),
    ],
    model: Model = "pocket",
    voice: Voice = None,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Talk to every sample of Full-Duplex-Bench: DIR/ID gets its files, output.wav and output.json.

    Not full duplex: a turn ends after half a second of silence, the reply begins when its first sound was
    made, as measured, and ends where it is spoken into. Words are spread evenly over what was heard.
    """
    import shutil
    import sys

    from deeptalk.audio import load_waveform, save_waveform
    from deeptalk.cli.evaluation import about_model, check_place
    from deeptalk.cli.half_duplex import RATE, mix, take_turns, words_of
    from deeptalk.cli.opening import open_model
    from deeptalk.cli.output import console, print_json
    from deeptalk.cli.progress import bars
    from deeptalk.errors import AudioError, ConfigError
    from deeptalk.evaluation.benchmarks.duplex import (
        OUTPUT,
        TIMING,
        sample_folders,
        samples_digest,
        write_words,
    )
    from deeptalk.evaluation.benchmarks.generation import claim_folder
    from deeptalk.evaluation.benchmarks.records import SETTINGS
    from deeptalk.model.weights import model_folder
    from deeptalk.serving.detector import TurnDetector
    from deeptalk.serving.settings import TurnDetection
    from deeptalk.training.interruption import Interruption

    sources = sample_folders(folder)
    if out.resolve() == folder.resolve():
        raise ConfigError(f"{out}: the bench's own folder is only read; name another one with --out.")
    check_place(out / SETTINGS)
    loaded = open_model(model)
    opened = loaded.conversation(voice=voice)
    about = about_model(loaded, model_folder(model)) | {
        "batch_size": 1,
        "template": "chat",
        "rows": "T S",
        "decoding": "greedy",
        "voice": voice or loaded.voices[0],
        "words": "even",
        "silence_ms": TurnDetection().silence_duration_ms,
        "samples": samples_digest(sources),
    }
    claim_folder(out / SETTINGS, about)
    longest = loaded.model.config.longest_clip_seconds
    failed: dict[str, str] = {}
    with bars() as show, Interruption() as interruption:
        for number, source in enumerate(sources):
            show("samples", number, len(sources), source.name)
            if interruption.requested:
                print(f"interrupted; the same command goes on with {out}", file=sys.stderr)
                raise typer.Exit(130)
            target = out / source.name
            for prefix in ("clean_", ""):
                sound = source / f"{prefix}input.wav"
                if not sound.is_file() or (target / f"{prefix}{OUTPUT}").is_file():
                    continue
                target.mkdir(parents=True, exist_ok=True)
                for path in source.iterdir():
                    name = path.name.removeprefix("clean_")
                    if path.is_file() and not name.startswith("output.") and name != TIMING:
                        shutil.copyfile(path, target / path.name)
                try:
                    samples = load_waveform(sound)
                except AudioError as error:
                    failed[source.name] = str(error).replace(str(sound), sound.name)
                    continue
                said = take_turns(
                    samples,
                    loaded.conversation(voice=voice),
                    TurnDetector(TurnDetection(), longest_seconds=longest),
                )
                mixed = mix(said, seconds=len(samples) / RATE, rate=opened.sample_rate)
                save_waveform(target / f"{prefix}output.wav", mixed, sample_rate=opened.sample_rate)
                write_words(target / f"{prefix}{OUTPUT}", words_of(said))
        show("samples", len(sources), len(sources))
    if json:
        print_json(
            {"folder": str(out), "num_items": len(sources), "num_missing": len(failed), "settings": about}
        )
    else:
        console().print(f"{out}: samples {len(sources)}  missing {len(failed)}")
    for name, complaint in failed.items():
        print(f"{name}: {complaint}", file=sys.stderr)
    if failed and not allow_missing:
        raise typer.Exit(1)


def score_duplex(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A task of the bench, with its outputs.")],
    task: Annotated[
        str, typer.Option("--task", metavar="NAME", help="pause, backchannel, turn_taking or interruption.")
    ],
    has_timing: Annotated[
        bool,
        typer.Option("--timing", help="Stop and response latency; writes ID/latency_intervals.json."),
    ] = False,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_replies: JudgeReplies = None,
    judge_key: JudgeKey = None,
    allow_missing: AllowMissing = False,
    seed: BootstrapSeed = 0,
    json: Json = False,
) -> None:
    """Who takes the turn in Full-Duplex-Bench, and how fast, by the bench's own rules.

    A sample without a reply counts as a failure. A judge rates replies to interruptions from 0 to 5.
    """
    import sys

    from deeptalk.cli.evaluation import write_json
    from deeptalk.cli.half_duplex import speech_intervals
    from deeptalk.cli.output import console, finite, print_json
    from deeptalk.errors import ConfigError
    from deeptalk.evaluation.benchmarks.duplex import (
        TIMING,
        read_samples,
        sample_folders,
        samples_digest,
        score_samples,
        timing,
        timing_scores,
    )
    from deeptalk.evaluation.benchmarks.relevance import (
        PROMPT_HASH,
        RATING,
        rate,
        rating_score,
        read_interrupted,
    )
    from deeptalk.evaluation.benchmarks.report_schema import DUPLEX, check_report
    from deeptalk.evaluation.benchmarks.scoring import about_folder

    judge = open_judge(judge_url, judge_model, None, judge_replies, judge_key)
    if judge is not None and task != "interruption":
        raise ConfigError("a judge rates the replies to interruptions; give it with --task interruption.")
    report = score_samples(read_samples(folder, task), task, seed=seed)
    scores = [report.take_over, *([] if report.latency is None else [report.latency])]
    folders = sample_folders(folder)
    values: dict[str, Any] = report.to_dict() | {
        "data": samples_digest(folders),
        "about": about_folder(folder),
        **dict.fromkeys(("stop_latency", "response_latency", "relevance", "detector")),
    }
    if has_timing:
        timings = []
        for path in folders:
            reply = path / "output.wav"
            said = speech_intervals(reply) if reply.is_file() else []
            timings.append(timing(speech_intervals(path / "input.wav"), said))
            write_json(path / TIMING, timings[-1])
        for score in timing_scores(timings, seed=seed):
            scores.append(score)
            values[score.name] = score.to_dict()
        values["detector"] = "energy"
    num_unjudged = 0
    if judge is not None:
        ratings = [rate(sample, judge) for sample in read_interrupted(folder)]
        for one in ratings:
            write_json(folder / one.id / RATING, {"rating": one.value, "reason": one.reason})
        scores.append(rating_score(ratings, seed=seed))
        num_unjudged = sum(one.reason in ("no reply", "unreadable") for one in ratings)
        values["relevance"] = scores[-1].to_dict() | {
            "judge": f"{judge.settings.model}, prompt {PROMPT_HASH}",
            "num_unjudged": num_unjudged,
        }
    check_report(finite(values), DUPLEX)
    if json:
        print_json(values)
    else:
        screen = console()
        screen.print(f"{task}, not full duplex; take-over should be {values['goal']}")
        for score in scores:
            shown = f"{score.value:>8.2f} {score.unit:<3}{f'{score.count} of {score.total}':>14}"
            screen.print(f"{score.name:<20}{shown}  [{score.low:.2f}, {score.high:.2f}]")
    if (report.num_missing or num_unjudged) and not allow_missing:
        print(
            f"{report.num_missing} of {report.take_over.total} samples have no reply and {num_unjudged} were "
            "not judged; they count as failures (with --allow-missing this is no failure).",
            file=sys.stderr,
        )
        raise typer.Exit(1)
