"""``deeptalk eval latency``: the paper's split of the time to an answer, and what is in each figure."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeptalk.cli.arguments import Device, Json, Model, Recordings, Voice
from deeptalk.cli.bench_serving import BUSY, AllowBusy, Hurried, Key, Url

if TYPE_CHECKING:
    from deeptalk.decoding import LoadedModel
    from deeptalk.shapes import Tensor

Turns = Annotated[
    int, typer.Option("--turns", metavar="N", help="Questions, each kind of measurement.", min=2)
]


def latency(
    files: Recordings = None,
    model: Model = "pocket",
    device: Device = "cpu",
    voice: Voice = None,
    turns: Turns = 50,
    frames: Annotated[
        int, typer.Option("--frames", metavar="N", help="Frames of a chunk of sound but the first.", min=1)
    ] = 2,
    max_frames: Annotated[
        int, typer.Option("--max-frames", metavar="N", help="How long an answer may be (of 85 ms).", min=1)
    ] = 360,
    concurrency: Annotated[
        list[int] | None,
        typer.Option(
            "--sessions",
            metavar="N",
            help="Ask a server too, N conversations at a time; repeatable, as 1, 2, 4 and 8.",
            min=1,
        ),
    ] = None,
    url: Url = None,
    key: Key = None,
    hurried: Hurried = False,
    allow_busy: AllowBusy = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="F.json", help="A file for the figures.")
    ] = None,
    json: Json = False,
) -> None:
    """How long a model takes to answer: first chunk, steps, network, end to end, beside the paper's.

    Questions are the evaluation set's, or each FILE. The engine is measured in this process; a server only
    with --sessions, turns ended by hand, and once more with turns that the server finds.
    """
    from deeptalk.cli.evaluation import check_place, write_json
    from deeptalk.cli.idle import MOST_BUSY, busy_cores
    from deeptalk.cli.output import finite, print_json
    from deeptalk.cli.progress import bars
    from deeptalk.evaluation.benchmarks.report_schema import LATENCY, check_report

    if out is not None:
        check_place(out)
    busy = [busy_cores()]
    with bars() as show:
        figures = measure(
            files,
            model=model,
            device=device,
            voice=voice,
            turns=turns,
            frames=frames,
            max_frames=max_frames,
            concurrency=concurrency or [],
            url=url,
            key=key,
            is_hurried=hurried,
            progress=show,
        )
    busy.append(busy_cores())
    is_valid = all(cores is None or cores <= MOST_BUSY for cores in busy)
    figures |= {"busy_cores": busy, "valid": is_valid}
    check_report(finite(figures), LATENCY)
    if out is not None:
        write_json(out, figures)
    if json:
        print_json(finite(figures))
    else:
        _show(figures)
    if figures["num_failed"]:
        raise typer.Exit(1)
    if not is_valid and not allow_busy:
        raise typer.Exit(BUSY)


def measure(
    files: list[Path] | None,
    *,
    model: str,
    device: str,
    voice: str | None,
    turns: int,
    frames: int,
    max_frames: int,
    concurrency: Sequence[int],
    url: str | None,
    key: str | None,
    is_hurried: bool,
    progress: Callable[..., None],
) -> dict[str, Any]:
    """All figures, with what they are of and what is in them."""
    from dataclasses import asdict

    import torch

    from deeptalk.cli.evaluation import QUESTIONS, about_model
    from deeptalk.cli.opening import open_model
    from deeptalk.decoding import DecodingOptions
    from deeptalk.decoding.answer import Limits
    from deeptalk.errors import ConfigError
    from deeptalk.evaluation.benchmarks.latency import EXCLUDED, PAPER, engine_figures, time_answer
    from deeptalk.evaluation.benchmarks.records import split_of
    from deeptalk.evaluation.benchmarks.workers import check_device
    from deeptalk.files import digest_of
    from deeptalk.model.weights import model_folder

    if url is not None and not concurrency:
        raise ConfigError("--url is of a server; say with --sessions how many conversations it should hold.")
    loaded = open_model(model, device=check_device(device))
    if voice is not None and voice not in loaded.voices:
        raise ConfigError(f"No voice is called {voice!r}; this model has: {', '.join(loaded.voices)}.")
    asked, now = _questions(files, rate=16_000), _clock(loaded)
    options = DecodingOptions(limits=Limits(max_frames=max_frames))
    # The server first: what it refuses is told before anything else is measured.
    served = _serve(
        files,
        concurrency,
        model=model,
        turns=turns,
        url=url,
        key=key,
        is_hurried=is_hurried,
        progress=progress,
    )
    answers = []
    for number in range(turns + 1):
        progress("answers", number, turns + 1)
        samples = asked[number % len(asked)]
        answers.append(
            time_answer(loaded, samples, now=now, voice=voice, options=options, frames_per_chunk=frames)
        )
    progress("answers", turns + 1, turns + 1)
    engine = engine_figures(answers)
    settings = loaded.model.encoder.settings
    return {
        "kind": "latency",
        "about": about_model(loaded, model_folder(model))
        | {
            "batch_size": 1,
            "template": "chat",
            "rows": "T S",
            "decoding": "greedy",
            "limits": asdict(options.limits),
            "questions": None if files else digest_of(QUESTIONS / "questions.jsonl"),
            "split": None if files else split_of(QUESTIONS.name),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "encoder_mode": settings.mode,
            "frames_of_first_chunk": 1,
            "frames_of_a_chunk": frames,
            "turns": turns,
            "graphs": False,
        },
        "excluded": EXCLUDED,
        "engine": engine,
        "served": served,
        "paper": PAPER,
        "rows": _rows(engine, served, PAPER),
        "num_failed": engine["num_failed"] + sum(one["num_failed"] for one in served),
    }


def _rows(
    engine: dict[str, Any], served: Sequence[dict[str, Any]], paper: dict[str, float]
) -> list[dict[str, Any]]:
    """The paper's figures beside ours: means, as there; None where a server was not asked."""
    one = next((each for each in served if each["sessions"] == 1 and each["turns_by"] == "client"), None)
    ours = {
        "first_chunk": engine["first_chunk_ms"]["mean"],
        "step": engine["step_ms"]["both"]["mean"],
        "network": one and one["network_ms"],
        "end_to_end": one and one["first_audio_ms"]["mean"],
        "real_time_factor": engine["real_time_factor"]["mean"],
    }
    return [
        {
            "figure": name,
            "unit": "x" if name == "real_time_factor" else "ms",
            "paper": value,
            "ours": ours[name],
            "difference": None if ours[name] is None else ours[name] - value,
        }
        for name, value in paper.items()
    ]


def _serve(
    files: list[Path] | None,
    concurrency: Sequence[int],
    *,
    model: str,
    turns: int,
    url: str | None,
    key: str | None,
    is_hurried: bool,
    progress: Callable[..., None],
) -> list[dict[str, Any]]:
    """What the clients of a server wait for: each number of sessions, then turns that the server finds."""
    import asyncio
    from contextlib import nullcontext

    from deeptalk.cli.served import served
    from deeptalk.errors import ConfigError

    if not concurrency:
        return []
    try:
        from deeptalk.serving.calling import RATE
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'deeptalk[serve]'.") from error
    asked = _questions(files, rate=RATE)
    options = ("--no-ui", "--model", model, "--max-sessions", str(max(concurrency)))
    found = []
    with nullcontext(url) if url is not None else served(*options) as address:
        _check_slots(address, max(concurrency), key=key)
        kinds = [(count, "manual") for count in concurrency] + [(1, "server_vad")]
        for number, (count, kind) in enumerate(kinds):
            progress("sessions", number, len(kinds), f"{count} at a time, {kind}")
            found.append(
                asyncio.run(
                    _ask(
                        address,
                        asked,
                        count=count,
                        kind=kind,
                        turns=math.ceil(turns / count),
                        key=key,
                        is_hurried=is_hurried,
                    )
                )
            )
        progress("sessions", len(kinds), len(kinds))
    return found


def _check_slots(url: str, count: int, *, key: str | None) -> None:
    """ConfigError where a server that tells how many conversations it holds holds fewer."""
    from deeptalk.cli.served import told
    from deeptalk.errors import ConfigError
    from deeptalk.serving.load import values_of

    slots = values_of(told(url, "/metrics", key=key) or "").get("deeptalk_sessions_limit", math.inf)
    if slots < count:
        raise ConfigError(
            f"the server holds {slots:g} conversations at a time, --sessions asks for {count}: start it with "
            f"--max-sessions {count}."
        )


async def _ask(
    url: str,
    asked: "Sequence[Tensor]",
    *,
    count: int,
    kind: str,
    turns: int,
    key: str | None,
    is_hurried: bool,
) -> dict[str, Any]:
    """Some sessions at a time, each asking question after question.

    A server tells only the sum of its waits; beside one session it is asked for it after every answer.
    """
    import asyncio

    from deeptalk.cli.served import told
    from deeptalk.serving.calling import call
    from deeptalk.serving.load import figures_of, means_between

    async def metrics() -> str:
        return await asyncio.to_thread(told, url, "/metrics", key=key) or ""

    async def talk(number: int) -> list[Any]:
        answers = []
        async with call(url, turns=kind, key=key) as calling:  # pyright: ignore[reportArgumentType]
            for turn in range(turns):
                question = asked[(number + turn) % len(asked)]
                answers.append(await calling.say(question, is_paced=not is_hurried))
                if count == 1:
                    pages.append(await metrics())
        return answers

    pages = [await metrics()]
    answers = list(await asyncio.gather(*(talk(number) for number in range(count))))
    after = await metrics()
    return served_figures(
        [answer.first_audio_seconds for session in answers for answer in session],
        heard=figures_of(answers),
        server_ms=means_between(pages[0], after).first_chunk_ms,
        server_waits=own_waits(pages) if count == 1 else None,
        count=count,
        kind=kind,
        is_hurried=is_hurried,
    )


def own_waits(pages: Sequence[str]) -> list[float] | None:
    """How long a server took to the first sound of each answer, from its metrics between the answers.

    An answer without sound waits for ever. None where the server does not tell, where others asked it too,
    or where its sum, six digits of it, no longer tells milliseconds.
    """
    from deeptalk.serving.load import values_of

    name = "deeptalk_server_ttfa_seconds"
    told = [values_of(page) for page in pages]
    if any(f"{name}_count" not in page for page in told) or told[-1][f"{name}_sum"] >= 1000:
        return None
    waits = []
    for before, after in pairwise(told):
        num_heard = after[f"{name}_count"] - before[f"{name}_count"]
        if num_heard > 1:
            return None
        waits.append(after[f"{name}_sum"] - before[f"{name}_sum"] if num_heard else math.inf)
    return waits


def served_figures(
    waits: Sequence[float | None],
    *,
    heard: dict[str, Any],
    server_ms: float | None,
    server_waits: Sequence[float] | None,
    count: int,
    kind: str,
    is_hurried: bool,
) -> dict[str, Any]:
    """Of the clients' waits; an answer without sound has failed, and its wait is infinite."""
    from deeptalk.evaluation.benchmarks.latency import summary

    figures = summary([math.inf if wait is None else wait for wait in waits])
    mean = figures["mean"]
    return {
        "sessions": count,
        "turns_by": "client" if kind == "manual" else "server",
        "first_audio_ms": figures,
        "server_first_audio_mean_ms": server_ms,
        "server_first_audio_ms": None if server_waits is None else summary(server_waits),
        "network_ms": None if mean is None or server_ms is None else mean - server_ms,
        "viability": heard["viability"],
        "underruns_per_minute": heard["underruns_per_minute"],
        "num_failed": sum(wait is None for wait in waits),
        "included": "the wait for silence, the network of this machine"
        if kind != "manual"
        else "the network of this machine; the turn is ended by the client",
        "hurried": is_hurried,
    }


def _questions(files: list[Path] | None, *, rate: int) -> "list[Tensor]":
    """Recordings; without any, spoken questions of the evaluation set, of each category in turn."""
    from deeptalk.audio import load_waveform
    from deeptalk.cli.evaluation import QUESTIONS
    from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalSet

    if files:
        return [load_waveform(path, sample_rate=rate) for path in files]
    spoken = EvalSet(QUESTIONS)
    kinds = [[item for item in spoken.of(kind) if not item.text_only] for kind in FIVE_CATEGORIES]
    items = [item for mixed in zip(*kinds, strict=False) for item in mixed]
    return [spoken.speech(item.turns[0], sample_rate=rate) for item in items[:100]]


def _clock(loaded: "LoadedModel") -> Callable[[], float]:
    """Seconds, when all that a GPU was asked for is done."""
    import time

    import torch

    device = loaded.model.device
    if device.type != "cuda":
        return time.perf_counter

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def _show(figures: dict[str, Any]) -> None:
    """The paper's figures beside ours, then percentiles and parts."""
    from deeptalk.cli.output import console

    screen, engine = console(), figures["engine"]
    screen.print(f"{'mean':<26}{'paper':>10}{'ours':>10}{'difference':>12}")
    for row in figures["rows"]:
        ours = "not run" if row["ours"] is None else f"{row['ours']:.2f}"
        apart = "" if row["difference"] is None else f"{row['difference']:+.2f}"
        screen.print(f"{row['figure']:<26}{row['paper']:>10.2f}{ours:>10}{apart:>12}  {row['unit']}")
    screen.print(f"{'':<26}{'p50':>10}{'p95':>10}{'p99':>10}{'mean':>10}{'n':>7}")
    rows = {"first chunk": engine["first_chunk_ms"]}
    rows |= {f"  {part}": values for part, values in engine["split_ms"].items()}
    rows |= {f"step, {phase}": values for phase, values in engine["step_ms"].items()}
    rows |= {"real-time factor": engine["real_time_factor"]}
    for one in figures["served"]:
        rows[f"{one['sessions']} sessions, by {one['turns_by']}"] = one["first_audio_ms"]
        if one["server_first_audio_ms"] is not None:
            rows[f"  server's, by {one['turns_by']}"] = one["server_first_audio_ms"]
    for name, values in rows.items():
        cells = [values[each] for each in ("p50", "p95", "p99", "mean")]
        shown = "".join(f"{'–' if cell is None else f'{cell:.2f}':>10}" for cell in cells)
        screen.print(f"{name:<26}{shown}{values['n']:>7}")
    cold = engine["cold_first_chunk_ms"]
    about = figures["about"]
    told = (
        f"first answer, cold: {'no sound' if cold is None else f'{cold:.1f} ms'}",
        f"weights: {about['weights'] or 'not told whether trained'}; {about['device']}, {about['dtype']}, "
        f"{about['threads']} threads; not in the engine's figures: {figures['excluded']}",
        f"failed: {figures['num_failed']}; cores that others kept busy: {figures['busy_cores']}"
        + ("" if figures["valid"] else ": NOT valid"),
    )
    for line in told:
        screen.print(line, style="dim")
