"""``deeptalk pairs``: a model's own answers, the better ones beside the worse, for preference training."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Device, Json, Model, Voice
from deeptalk.errors import ConfigError, DataError

if TYPE_CHECKING:
    from deeptalk.decoding import LoadedModel
    from deeptalk.evaluation.pairs import PairReport
    from deeptalk.evaluation.recognisers import Recogniser


class Listener(StrEnum):
    """Who writes down what was said."""

    MODEL = "model"
    JUDGE = "judge"
    WHISPER = "whisper"


def pairs(
    prompts: Annotated[
        Path,
        typer.Argument(metavar="PROMPTS", help="A manifest whose records have a text.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="F.jsonl", help="The file for the pairs.", show_default=False)
    ],
    model: Model = "pocket",
    device: Device = "cpu",
    voice: Voice = None,
    recogniser: Annotated[
        Listener, typer.Option(help="Who listens: the model itself, the closed unigram judge, or Whisper.")
    ] = Listener.MODEL,
    whisper: Annotated[
        Path | None, typer.Option("--whisper", metavar="DIR", help="Folder of a Whisper model.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a=c", help="Change a setting, for example num_samples=5; repeatable."),
    ] = None,
    skip: Annotated[
        int, typer.Option("--skip", metavar="N", help="Leave out the first N prompts.", min=0)
    ] = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="At most so many prompts.", min=1)
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Prompts at a time.", min=1)] = 8,
    before: Annotated[
        Path | None,
        typer.Option(
            "--before", metavar="F.jsonl", help="Pairs of an earlier model: tells if answers became longer."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make pairs of spoken answers for preference training.

    Each text is said several times, as the model words it; what is understood best is paired with what is
    understood worst. A text that PROMPTS repeat is one prompt. An interrupted run goes on where it was.
    """
    from dataclasses import asdict

    import torch

    from deeptalk.cli.opening import open_model, weights_dtype
    from deeptalk.cli.output import print_json
    from deeptalk.cli.progress import bars
    from deeptalk.data.manifest import Record, read_manifest
    from deeptalk.evaluation.benchmarks.workers import check_device
    from deeptalk.evaluation.pair_builder import PairBuilder, build_pairs, read_report
    from deeptalk.evaluation.pairs import MOST_DRIFT, PairSettings, length_drift
    from deeptalk.training.interruption import Interruption
    from deeptalk.training.override import override

    precision = "bf16" if weights_dtype(model) == torch.bfloat16 else "fp32"
    chosen = override(PairSettings(precision=precision), *(settings or []))
    content = read_manifest(prompts, kind="sentence")
    by_text: dict[str, Record] = {}
    for record in content.records:
        by_text.setdefault(record["text"], record)
    records = list(by_text.values())[skip:][:limit]
    if not records:
        raise DataError(f"{prompts}: no prompts; left out: {dict(content.rejects)}, skipped: {skip}.")
    earlier = None if before is None else read_report(before)
    if before is not None and earlier is None:
        raise DataError(
            f"{before}: there is no report beside it; give a file that `deeptalk pairs` has made."
        )
    loaded = open_model(model, device=check_device(device))
    builder = PairBuilder(loaded, open_recogniser(recogniser, loaded, whisper), chosen, voice=voice)
    with bars() as show, Interruption() as interruption:
        report = build_pairs(
            builder,
            records,
            out,
            batch_size=batch,
            progress=lambda done, total: show("prompts", done, total),
            should_stop=lambda: interruption.requested,
        )
    if report is None:
        _tell_interruption(out, is_json=json)
        raise typer.Exit(130)
    drift = None if earlier is None else length_drift(report, earlier)
    is_drifting = drift is not None and abs(drift) > MOST_DRIFT
    if json:
        result = {"length_drift": drift, "is_drifting": is_drifting, "is_interrupted": False}
        print_json({"pairs": str(out), **asdict(report), **result})
    else:
        print_report(report, out, drift=drift, is_drifting=is_drifting)


def print_report(report: "PairReport", out: Path, *, drift: float | None, is_drifting: bool) -> None:
    """The figures for people; what can't be told is left out."""
    from deeptalk.cli.output import console

    screen = console()
    screen.print(f"{out} · {report.num_pairs} pairs of {report.num_prompts} prompts")
    for reason, count in sorted(report.discarded.items(), key=lambda item: -item[1]):
        screen.print(f"  {count:>7}  {reason}", style="dim")
    rows = (
        ("frames of winners", report.mean_frames_win, "{:.1f}"),
        ("frames of losers", report.mean_frames_lose, "{:.1f}"),
        ("frames of all samples", report.mean_frames, "{:.1f}"),
        ("word error rate of winners", report.mean_wer_win, "{:.3f}"),
        ("word error rate of losers", report.mean_wer_lose, "{:.3f}"),
        ("correlation of margin and length", report.margin_length_correlation, "{:+.2f}"),
        ("losers that did not end", float(report.num_cut), "{:.0f}"),
        ("change of length", drift, "{:+.1%}" + (", too much" if is_drifting else "")),
    )
    for name, value, form in rows:
        if value is not None:
            screen.print(f"  {name:<36}{form.format(value)}")


def open_recogniser(
    listener: Listener, loaded: "LoadedModel", whisper: Path | None, *, language: str | None = None
) -> "Recogniser":
    """Who listens; ConfigError for Whisper without a folder, and for a language without Whisper."""
    from importlib.resources import files

    from deeptalk.evaluation.recognisers import JudgeRecogniser, ModelRecogniser, WhisperRecogniser

    if language is not None and listener is not Listener.WHISPER:
        raise ConfigError("--language is for the recogniser whisper.")
    if listener is Listener.MODEL:
        return ModelRecogniser(loaded)
    if listener is Listener.JUDGE:
        return JudgeRecogniser(Path(str(files("deeptalk"))) / "assets" / "evaluation")
    if whisper is None:
        raise ConfigError("the recogniser whisper needs --whisper DIR, the folder of its model.")
    return WhisperRecogniser(whisper, language=language, device=loaded.model.device)


def _tell_interruption(out: Path, *, is_json: bool) -> None:
    from deeptalk.cli.output import console, print_json

    if is_json:
        print_json({"pairs": str(out), "is_interrupted": True})
    else:
        console().print(f"interrupted; the same command goes on with {out}")
