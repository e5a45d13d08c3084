"""``deeptalk bench latency``, ``sessions`` and ``crowd``: what the users of a server would hear."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeptalk.cli.arguments import Json, Model, Recordings
from deeptalk.errors import ConfigError

if TYPE_CHECKING:
    from deeptalk.serving.load import Load
    from deeptalk.shapes import Tensor

PAPER = {"first_chunk_ms": 341.7, "step_ms": 20.5, "network_ms": 106.2, "first_audio_ms": 436.2}
"""On an 80 GB GPU, the turns ended by the client; the parts don't add up to the whole, as printed there."""

BUSY = 3
"""The exit status of a measurement on a machine that was not idle."""

NUM_QUESTIONS = 20

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="A server that runs, as ws://127.0.0.1:8000/v1/realtime; else one is started for it.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="DEEPTALK_API_KEY", metavar="KEY", help="The server's key.", show_default=False
    ),
]
AllowBusy = Annotated[
    bool,
    typer.Option(
        "--allow-busy", help="Exit with 0 although other processes were busy; the figures are not valid."
    ),
]
Hurried = Annotated[
    bool, typer.Option("--hurried", help="Speak and listen in no time, to try a measurement out.")
]


def latency(
    files: Recordings = None,
    turns: Annotated[int, typer.Option("--turns", metavar="N", help="Turns of each session.", min=1)] = 100,
    sessions: Annotated[
        int, typer.Option("--sessions", metavar="N", help="Sessions at the same time.", min=1)
    ] = 1,
    url: Url = None,
    key: Key = None,
    model: Model = "pocket",
    hurried: Hurried = False,
    allow_busy: AllowBusy = False,
    json: Json = False,
) -> None:
    """How long a user waits for the first sound after the end of a turn, and whether the sound has gaps.

    Spoken questions (the evaluation set's, or each FILE) are asked over a socket, the turns ended by the
    client as in the paper, whose split of the time is printed beside this server's.
    """
    load = _load(files, num_sessions=sessions, num_turns=turns, is_hurried=hurried)
    with _measured(url, options=_slots(sessions), model=model) as (address, busy):
        figures = asyncio.run(_measure(address, load, key=key))
    first = figures.pop("mean_first_audio_ms")
    server = figures.pop("server")
    known = first is not None and server["first_chunk_ms"] is not None
    split = server | {"network_ms": first - server["first_chunk_ms"] if known else None}
    about = {"sessions": sessions, **figures, "split": split, "paper": PAPER}
    _tell("latency", about, busy, model=model if url is None else None, is_json=json)
    _leave(figures, busy, allow_busy=allow_busy)


def sessions(
    files: Recordings = None,
    counts: Annotated[
        list[int] | None,
        typer.Option("--n", metavar="N", help="Sessions at the same time; repeatable.", min=1),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="How long each number talks.", min=0.1)
    ] = 60.0,
    pause: Annotated[
        float,
        typer.Option("--pause", metavar="S", help="Mean pause before a turn; how long is drawn.", min=0),
    ] = 2.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Draws the same pauses again.")] = 0,
    url: Url = None,
    key: Key = None,
    model: Model = "pocket",
    hurried: Hurried = False,
    allow_busy: AllowBusy = False,
    json: Json = False,
) -> None:
    """How many sessions at a time a server keeps in real time.

    Each speaks, listens and pauses. A session is in real time when every answer has sound and 99 % of its
    pieces come before the sound before them has been played.
    """
    wanted = counts or [1, 2, 4]
    load = _load(files, num_sessions=1, seconds=seconds, pause_seconds=pause, seed=seed, is_hurried=hurried)
    all_figures: list[dict[str, Any]] = []
    with _measured(url, options=_slots(max(wanted)), model=model) as (address, busy):
        for count in wanted:
            figures = asyncio.run(_measure(address, replace(load, num_sessions=count), key=key))
            figures = {"sessions": count, **figures, "step_ms": figures["server"]["step_ms"]}
            all_figures.append(
                {name: figures[name] for name in figures if name not in ("server", "mean_first_audio_ms")}
            )
    for figures in all_figures:
        _tell("sessions", figures, busy, model=model if url is None else None, is_json=json)
    _leave({"silent": sum(figures["silent"] for figures in all_figures)}, busy, allow_busy=allow_busy)


def crowd(
    files: Recordings = None,
    clients: Annotated[
        int, typer.Option("--clients", metavar="N", help="Clients that come at once.", min=1)
    ] = 50,
    turns: Annotated[
        int,
        typer.Option("--turns", metavar="N", help="Turns of somebody else, alone and beside them.", min=1),
    ] = 20,
    url: Url = None,
    key: Key = None,
    model: Model = "pocket",
    hurried: Hurried = False,
    allow_busy: AllowBusy = False,
    json: Json = False,
) -> None:
    """How soon clients are refused that find no room or have a wrong key, and cut off that never read.

    Somebody else talks meanwhile. A server that is named with --url needs a slot more than there are clients.
    """
    from deeptalk.cli.served import told
    from deeptalk.serving.crowd import Crowd, measure_crowd

    own = key if url is not None else token_hex(16)
    options = ["--max-sessions", str(clients + 1), "--api-key", str(own)]
    with _measured(url, options=options, model=model) as (address, busy):
        wanted = Crowd(
            questions=_questions(files),
            metrics=lambda: told(address, "/metrics", key=own) or "",
            num_clients=clients,
            num_turns=turns,
            is_hurried=hurried,
        )
        figures = asyncio.run(measure_crowd(address, wanted, key=own))
    _tell("crowd", figures, busy, model=model if url is None else None, is_json=json)
    let_in = [each["asked"] - each["refused"] for each in figures["refused"].values() if each is not None]
    left = figures["deaf"]["asked"] - figures["deaf"]["cut"]
    _leave({"silent": figures["silent"] + left + sum(let_in)}, busy, allow_busy=allow_busy)


async def _measure(url: str, load: "Load", *, key: str | None) -> dict[str, Any]:
    """What the users of a load have heard, and what the server tells of the same time."""
    from deeptalk.cli.served import told
    from deeptalk.serving.load import (
        figures_of,
        is_in_real_time,
        mean_first_audio_ms,
        means_between,
        put_load,
    )

    before = await asyncio.to_thread(told, url, "/metrics", key=key)
    answered = await put_load(url, load, key=key)
    after = await asyncio.to_thread(told, url, "/metrics", key=key)
    return {
        "real_time_sessions": sum(map(is_in_real_time, answered)),
        **figures_of(answered),
        "mean_first_audio_ms": mean_first_audio_ms(answered),
        "server": asdict(means_between(before or "", after or "")),
    }


def _load(files: list[Path] | None, **wanted: Any) -> "Load":
    """What is asked for, with its questions."""
    try:
        from deeptalk.serving.load import Load
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'deeptalk[serve]'.") from error
    return Load(questions=_questions(files), **wanted)


def _questions(files: list[Path] | None) -> "list[Tensor]":
    """Recordings at 24 kHz; without any, questions of the evaluation set, of each category in turn."""
    from importlib import resources

    from deeptalk.audio import load_waveform
    from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalSet
    from deeptalk.serving.calling import RATE

    if files:
        return [load_waveform(path, sample_rate=RATE) for path in files]
    spoken = EvalSet(Path(str(resources.files("deeptalk"))) / "assets" / "evaluation")
    kinds = [[item for item in spoken.of(kind) if not item.text_only] for kind in FIVE_CATEGORIES]
    items = [item for mixed in zip(*kinds, strict=False) for item in mixed][:NUM_QUESTIONS]
    return [spoken.speech(item.turns[0], sample_rate=RATE) for item in items]


@contextmanager
def _measured(
    url: str | None, *, options: Sequence[str], model: str
) -> Iterator[tuple[str, list[float | None]]]:
    """A server to measure, and how many cores others keep busy before it has come and after it has gone."""
    from deeptalk.cli.idle import busy_cores
    from deeptalk.cli.served import served

    busy = [busy_cores()]
    if url is not None:
        yield url, busy
    else:
        with served("--no-ui", "--model", model, *options) as own:
            yield own, busy
    busy.append(busy_cores())


def _slots(count: int) -> list[str]:
    return ["--max-sessions", str(count)]


def _is_valid(busy: Sequence[float | None]) -> bool:
    from deeptalk.cli.idle import MOST_BUSY

    return all(cores is None or cores <= MOST_BUSY for cores in busy)


def _tell(
    name: str, figures: dict[str, Any], busy: list[float | None], *, model: str | None, is_json: bool
) -> None:
    """One JSON object, or a line for each figure."""
    from deeptalk.cli.output import print_counts

    about = {"model": model, **figures, "busy_cores": busy, "valid": _is_valid(busy)}
    if not is_json:
        about = {key: _words(value) for key, value in about.items()}
    print_counts(name, about, is_json=is_json)


def _words(value: Any) -> Any:
    """A figure for people; one of several names in one line."""
    if isinstance(value, dict):
        return "  ".join(f"{key.removesuffix('_ms')} {_words(each)}" for key, each in value.items())
    if value is None:
        return "–"
    return f"{value:,.2f}" if isinstance(value, float) else value


def _leave(figures: dict[str, Any], busy: list[float | None], *, allow_busy: bool) -> None:
    """The exit status: 1 where something failed, as an answer without sound; 3 on a machine at work."""
    if figures["silent"]:
        raise typer.Exit(1)
    if not _is_valid(busy) and not allow_busy:
        raise typer.Exit(BUSY)
