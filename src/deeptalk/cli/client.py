"""``deeptalk client``: questions to a server that runs somewhere, answers back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deeptalk.cli.arguments import Json, Recordings, Voice
from deeptalk.errors import AudioError, ConfigError, ProtocolError

if TYPE_CHECKING:
    from deeptalk.serving.calling import Call, Received
    from deeptalk.shapes import Tensor

DEFAULT_URL = "ws://127.0.0.1:8000/v1/realtime"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What is asked: recordings, then texts, then what is said into the microphone."""

    files: tuple[Path, ...]
    texts: tuple[str, ...]
    mic: bool


def client(
    files: Recordings = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="TEXT", help="A typed question, asked after the files; repeatable."),
    ] = None,
    mic: Annotated[bool, typer.Option("--mic", help="Ask through the microphone as well.")] = False,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="The server's Realtime address.")
    ] = DEFAULT_URL,
    key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="DEEPTALK_API_KEY",
            metavar="KEY",
            help="The server's key; better given by the environment.",
            show_default=False,
        ),
    ] = None,
    turns: Annotated[
        Literal["manual", "server_vad", "semantic_vad"],
        typer.Option("--turns", help="Who ends a spoken turn: this client, or the server."),
    ] = "manual",
    paced: Annotated[
        bool, typer.Option("--paced", help="Send recordings as fast as they were spoken, not at once.")
    ] = False,
    voice: Voice = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the spoken answers.")] = Path(
        "out"
    ),
    play: Annotated[bool, typer.Option("--play", help="Play each answer while it comes.")] = False,
    json: Json = False,
) -> None:
    """Ask a server of the OpenAI Realtime protocol, all in one conversation.

    What can't be used is named on standard error with the reason; the others are still asked, and the exit
    status is 2, as where the server fails to answer.
    """
    if not files and not text and not mic:
        raise typer.BadParameter("nothing to ask: give a FILE, --text or --mic.")
    inputs = Inputs(files=tuple(files or ()), texts=tuple(text or ()), mic=mic)
    try:
        from deeptalk.serving.calling import call
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'deeptalk[serve]'.") from error
    from deeptalk.cli.output import complain, free_path

    async def ask_all() -> bool:
        """Whether something could not be asked or answered."""
        has_failed, taken = False, set[Path]()
        with _playing(play) as on_sound:
            async with call(url, turns=turns, key=key, voice=voice, on_sound=on_sound) as calling:
                async for name, stem, question in _questions(inputs):
                    try:
                        asked = question() if callable(question) else question
                        answer = await _ask(calling, asked, is_paced=paced)
                        _tell(name, answer, free_path(out, f"{stem}-answer", taken), is_json=json)
                    except (AudioError, AnswerError) as error:
                        complain(error)
                        has_failed = True
        return has_failed

    if asyncio.run(ask_all()):
        raise typer.Exit(2)


class AnswerError(ProtocolError):
    """A server has not answered one question; the next may be asked."""


async def _questions(inputs: Inputs) -> AsyncIterator[tuple[str, str, "str | Callable[[], Tensor]"]]:
    """A name, the stem of a file for the answer, and a text or what gives the samples at 24 kHz."""
    from functools import partial

    from deeptalk.audio import check_waveform, load_waveform, resample
    from deeptalk.serving.calling import RATE

    for path in inputs.files:
        yield str(path), path.stem, partial(load_waveform, path, sample_rate=RATE)
    for text in inputs.texts:
        yield text, "text", text
    if not inputs.mic:
        return
    from deeptalk.cli.sound import HEARD_RATE, record_turns

    turns = record_turns()
    while (said := await asyncio.to_thread(next, turns, None)) is not None:  # the socket lives on meanwhile

        def spoken(samples: "Tensor" = said) -> "Tensor":
            check_waveform(samples, name="microphone")
            return resample(samples, source_rate=HEARD_RATE, target_rate=RATE)

        yield "microphone", "microphone", spoken


async def _ask(calling: "Call", question: "str | Tensor", *, is_paced: bool) -> "Received":
    """One question and its answer; AnswerError where there is none."""
    if isinstance(question, str):
        if not question.strip():
            raise AudioError("--text: the question is empty.")
        answer = await calling.write(question)
    else:
        answer = await calling.say(question, is_paced=is_paced)
    if answer.status in ("failed", "cancelled"):
        raise AnswerError(f"No answer ({answer.status}): {answer.trouble}".rstrip(": "))
    return answer


def _tell(name: str, answer: "Received", path: Path, *, is_json: bool) -> None:
    """One answer: its sound in a file, its figures as one JSON object or as lines for people."""
    from deeptalk.audio import save_waveform
    from deeptalk.cli.output import console, print_json
    from deeptalk.serving.audio_formats import decode_pcm
    from deeptalk.serving.calling import RATE, play

    first = answer.first_audio_seconds
    if answer.sound:
        save_waveform(path, decode_pcm(answer.sound), sample_rate=RATE)
    figures = {
        "input": name,
        "text": answer.text,
        "audio": str(path) if answer.sound else None,
        "status": answer.status,
        "first_audio_ms": None if first is None else round(1000 * first, 1),
        "seconds_of_audio": round(answer.seconds, 3),
        "underruns": play(answer.arrivals).num_gaps,
    }
    if is_json:
        print_json(figures)
        return
    screen = console()
    screen.print(name, style="bold")
    screen.print(f"  answer  {answer.text}")
    heard = "no speech" if first is None else f"first audio after {1000 * first:.0f} ms · {path}"
    screen.print(f"  {heard} · {answer.status}", style="dim")


@contextmanager
def _playing(wanted: bool) -> Iterator[Callable[[bytes], None]]:
    """What takes the pieces of an answer: the loudspeaker, beside the conversation, or nothing."""
    if not wanted:
        yield lambda data: None
        return
    from deeptalk.cli.sound import open_speaker
    from deeptalk.serving.audio_formats import decode_pcm
    from deeptalk.serving.calling import RATE

    with open_speaker() as speaker:
        pieces: list[Future[None]] = []
        with ThreadPoolExecutor(max_workers=1) as beside:

            def hand_over(data: bytes) -> None:
                pieces.append(beside.submit(speaker.play, decode_pcm(data), sample_rate=RATE))

            yield hand_over
        for piece in pieces:
            piece.result()  # what kept the loudspeaker from playing is told
