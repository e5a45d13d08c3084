"""``deeptalk talk``: spoken or typed questions in, spoken answers out."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Json, Model, Recordings, Seed, Temperature, TopK, Voice
from deeptalk.errors import AudioError

if TYPE_CHECKING:
    from deeptalk.cli.sound import Speaker
    from deeptalk.decoding import Conversation, DecodingOptions, LoadedModel
    from deeptalk.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Question:
    """What is asked, a text, a file or samples at 16 kHz, and the name of the file for the answer."""

    name: str
    stem: str
    text: str | None = None
    path: Path | None = None
    samples: "Float[Tensor, 'S'] | None" = None


class Dialogues:
    """A conversation per question, or one for all; the model is opened when the first question is ready."""

    def __init__(
        self, model: str, *, voice: str | None, seed: int, options: "DecodingOptions", is_one: bool
    ) -> None:
        self._name, self._voice, self._is_one = model, voice, is_one
        self._seed, self._options = seed, options
        self._model: LoadedModel | None = None
        self._current: Conversation | None = None

    def next(self) -> "Conversation":
        """The conversation that the next question belongs to."""
        from deeptalk.cli.opening import open_model

        self._model = self._model or open_model(self._name)
        if self._current is None or not self._is_one:
            self._current = self._model.conversation(
                voice=self._voice, seed=self._seed, options=self._options
            )
        return self._current

    def check(self, name: str, samples: "Float[Tensor, 'S']") -> None:
        """Raise AudioError for a question longer than the model can hear at a time; warn of a long one."""
        assert self._model is not None
        config = self._model.model.config
        seconds, longest = len(samples) / config.mel.sample_rate, config.longest_clip_seconds
        if seconds > longest:
            raise AudioError(f"{name}: too long, {seconds:.1f} s; this model hears at most {longest:g} s.")
        if not config.is_one_sentence(seconds):
            print(
                f"{name}: {seconds:.1f} s; this model has learnt from sentences of up to "
                f"{config.sentence_seconds:g} s and may misunderstand a longer question.",
                file=sys.stderr,
            )


def talk(
    files: Recordings = None,
    conversation: Annotated[
        bool, typer.Option("--conversation", help="The inputs are turns of one dialogue, in their order.")
    ] = False,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="TEXT", help="A typed question, asked after the files; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the spoken answers.")] = Path(
        "out"
    ),
    voice: Voice = None,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    model: Model = "pocket",
    json: Json = False,
    play: Annotated[bool, typer.Option("--play", help="Play each answer while it is spoken.")] = False,
    mic: Annotated[bool, typer.Option("--mic", help="Ask through the microphone, in one dialogue.")] = False,
) -> None:
    """Answer spoken or typed questions in speech.

    Each FILE is a question of its own, or a turn of one dialogue with --conversation. What can't be used
    is named on standard error with the reason; the others are still answered, and the exit status is 2.
    """
    if not files and not text and not mic:
        raise typer.BadParameter("nothing to answer: give a FILE, --text or --mic.")
    from deeptalk.cli.opening import drawing
    from deeptalk.cli.output import complain, free_path
    from deeptalk.cli.sound import open_speaker

    options = drawing(temperature=temperature, top_k=top_k)
    if out.exists() and not out.is_dir():
        raise AudioError(f"{out}: answers go to a folder, and this is a file.")
    dialogues = Dialogues(model, voice=voice, seed=seed, options=options, is_one=conversation or mic)
    has_failed, taken = False, set[Path]()
    with open_speaker() if play else nullcontext() as speaker:
        for question in _questions(files, text, mic=mic):
            try:
                samples = _samples(question)
                path = free_path(out, f"{question.stem}-answer", taken)
                _answer(question, samples, dialogues, path=path, is_json=json, speaker=speaker)
            except AudioError as error:
                complain(error)
                has_failed = True
    if has_failed:
        raise typer.Exit(2)


def _questions(files: list[Path] | None, texts: list[str] | None, *, mic: bool) -> Iterator[Question]:
    for path in files or []:
        yield Question(name=str(path), stem=path.stem, path=path)
    for text in texts or []:
        yield Question(name=text, stem="text", text=text)
    if mic:
        from deeptalk.cli.sound import record_turns

        for samples in record_turns():
            yield Question(name="microphone", stem="microphone", samples=samples)


def _samples(question: Question) -> "Float[Tensor, 'S'] | None":
    """What is heard at 16 kHz, checked; None for a typed question."""
    from deeptalk.audio import check_waveform, load_waveform

    if question.path is not None:
        return load_waveform(question.path)
    if question.samples is not None:
        check_waveform(question.samples, name=question.name)
    elif not (question.text or "").strip():
        raise AudioError("--text: the question is empty.")
    return question.samples


def _answer(
    question: Question,
    samples: "Float[Tensor, 'S'] | None",
    dialogues: Dialogues,
    *,
    path: Path,
    is_json: bool,
    speaker: "Speaker | None",
) -> None:
    from deeptalk.cli.output import console
    from deeptalk.cli.spoken import speak, tell

    dialogue = dialogues.next()
    if samples is not None:
        dialogues.check(question.name, samples)
    if not is_json:
        console().print(question.name, style="bold")
    if samples is None:
        dialogue.say_text(question.text or "")
    else:
        if not is_json:
            console().print(f"  heard   {dialogue.transcribe(samples)}", style="dim")
        dialogue.listen(samples)
    audio = speak(
        dialogue.reply(), path=path, sample_rate=dialogue.sample_rate, is_json=is_json, speaker=speaker
    )
    tell(question.name, audio, dialogue.last_reply, is_json=is_json)
