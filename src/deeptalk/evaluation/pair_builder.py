"""Makes pairs: a model says its own text several times, a recogniser listens, the model scores what is kept.

Everything that decides a pair is written beside it; a run that is interrupted goes on where it was.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from deeptalk.data.manifest import Record, write_lines, write_manifest
from deeptalk.data.preference import Pair, PairAnswer, collate_pairs, encode_pair
from deeptalk.decoding import DecodingOptions, Generated, Limits, LoadedModel, Sampling
from deeptalk.errors import ConfigError, DataError, reason
from deeptalk.evaluation.answers import Answered
from deeptalk.evaluation.pairs import (
    INSTRUCTIONS,
    PairReport,
    PairSettings,
    Sample,
    check_text,
    choose_pair,
    summarise,
    word_error_rate,
)
from deeptalk.evaluation.pocket import sound_of
from deeptalk.evaluation.recognisers import Recogniser
from deeptalk.files import write_text
from deeptalk.model.identity import model_hash
from deeptalk.streams import Turn, encode_prompt
from deeptalk.training.preference import check_experts, reference_log_probs

Entry = dict[str, Any]
"""What became of a prompt, as `summarise` takes it."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Chosen:
    """A pair with what was understood of it."""

    pair: Pair
    win: Sample
    lose: Sample


class PairBuilder:
    """Makes pairs with one model and one recogniser."""

    def __init__(
        self,
        loaded: LoadedModel,
        recogniser: Recogniser,
        settings: PairSettings | None = None,
        *,
        voice: str | None = None,
    ) -> None:
        """`voice` is one of the model's, its first by default; `ConfigError` where it has no such voice, or
        limits who may use which expert."""
        if loaded.model.tokenizer is None:
            raise ConfigError("the model has no tokenizer; load it from its folder.")
        check_experts(loaded.model)
        self.loaded, self.recogniser, self.settings = loaded, recogniser, settings or PairSettings()
        self.speaker = voice or next(iter(loaded.voices), None)
        self.mode = f"speaker:{self.speaker}" if self.speaker else "answer"
        self._layout, self._tokenizer = loaded.model.layout, loaded.model.tokenizer
        self._layout.mode_id(self.mode)
        self._options = DecodingOptions(
            codec=Sampling(temperature=self.settings.temperature, top_k=self.settings.top_k),
            limits=Limits(max_frames=self.settings.max_frames, max_text_tokens=self.settings.max_text_tokens),
        )
        self._model_hash = model_hash(loaded.model)

    @property
    def made_from(self) -> dict[str, Any]:
        """All but the prompts that decides which pairs are made, as plain values."""
        recogniser = {"name": self.recogniser.name, "hash": self.recogniser.hash}
        settings = asdict(self.settings)
        return settings | {"speaker": self.speaker, "model": self._model_hash, "recogniser": recogniser}

    def build(self, records: Sequence[Record]) -> list[Entry]:
        """An entry for each record, whose `text` is what shall be said."""
        entries: list[Entry] = [{"id": r["id"], "frames": [], "reason": None, "pair": None} for r in records]
        spoken: dict[int, tuple[str, list[Generated]]] = {}
        for i, (record, answers) in enumerate(zip(records, self.sample(records), strict=True)):
            try:
                spoken[i] = self._own_text(record, answers), answers
            except DataError as error:
                entries[i]["reason"] = str(error)
        chosen: dict[int, _Chosen] = {}
        for i, samples in self._listen(records, spoken).items():
            entries[i]["frames"] = [len(sample.codes) for sample in samples]
            try:
                win, lose = choose_pair(samples, self.settings)
            except DataError as error:
                entries[i]["reason"] = str(error)
                continue
            pair = Pair(
                prompt=self._prompt_of(records[i]),
                text=spoken[i][0],
                win=PairAnswer(codes=win.codes),
                lose=PairAnswer(codes=lose.codes, is_cut=not lose.has_ended),
                speaker=self.speaker,
            )
            chosen[i] = _Chosen(pair=pair, win=win, lose=lose)
        for i, reference in self._scored(chosen).items():
            entries[i]["pair"] = self._record_of(records[i]["id"], chosen[i], reference)
        return entries

    def sample(self, records: Sequence[Record]) -> list[list[Generated]]:
        """Several answers to each record, of one text, each by a seed of its own."""
        count = self.settings.num_samples
        prompts = [
            encode_prompt(
                [Turn(role="user", text=self._prompt_of(record))],
                tokenizer=self._tokenizer,
                layout=self._layout,
                mode=self.mode,
            )
            for record in records
            for _ in range(count)
        ]
        seeds = [_seed(self.settings.seed, record["id"], k) for record in records for k in range(count)]
        found = self.loaded.engine.generate(prompts, options=self._options, seeds=seeds)
        return [found[at : at + count] for at in range(0, len(found), count)]

    def _prompt_of(self, record: Record) -> str:
        return INSTRUCTIONS[self.settings.instruction].format(text=record["text"])

    def _own_text(self, record: Record, answers: Sequence[Generated]) -> str:
        """The text of all answers; `DataError` with a countable reason where pairs can't be made with it."""
        ids = answers[0].text_ids
        if len(ids) >= self.settings.max_text_tokens:
            raise DataError("own text does not end")
        text = self._tokenizer.decode(list(ids)).strip()
        check_text(text, record["text"], self.settings)
        # training reads the text as the tokenizer writes it
        written = tuple(self._tokenizer.encode(self._layout.template.lead + text))
        if any(answer.text_ids != written for answer in answers):
            raise DataError("own text in unusual tokens")
        return text

    def _listen(
        self, records: Sequence[Record], spoken: Mapping[int, tuple[str, list[Generated]]]
    ) -> dict[int, list[Sample]]:
        """What is understood of every answer."""
        codec, settings = self.loaded.codec, self.settings
        flat = [(i, text, answer) for i, (text, answers) in spoken.items() for answer in answers]
        sounds = [
            sound_of(Answered(text=text, codes=a.codes, finish_reason=a.finish_reason), codec)
            for _, text, a in flat
        ]
        transcripts = self.recogniser.transcribe(sounds, sample_rate=codec.sample_rate)
        samples: dict[int, list[Sample]] = {i: [] for i in spoken}
        for (i, text, answer), transcript in zip(flat, transcripts, strict=True):
            reference = text if settings.reference == "own" else records[i]["text"]
            samples[i].append(
                Sample(
                    codes=answer.codes,
                    has_ended=answer.finish_reason == "stop",
                    transcript=transcript,
                    wer=word_error_rate(transcript, reference),
                )
            )
        return samples

    def _scored(self, chosen: Mapping[int, _Chosen]) -> dict[int, tuple[float, float]]:
        """Log-probabilities of winner and loser under the model itself."""
        if not chosen:
            return {}
        encoded = [
            encode_pair(one.pair, tokenizer=self._tokenizer, layout=self._layout) for one in chosen.values()
        ]
        batch = collate_pairs(encoded, layout=self._layout).to(self.loaded.model.device)
        scores = reference_log_probs(self.loaded.model, batch, precision=self.settings.precision)
        return {i: (win, lose) for i, (win, lose) in zip(chosen, scores.T.tolist(), strict=True)}

    def _record_of(self, id: str, one: _Chosen, reference: tuple[float, float]) -> Record:
        """The pair as a line of a manifest, with all that it was made from."""
        answers = {
            side: {"codes": sample.codes.tolist(), "order": "breadth"}
            | {"wer": sample.wer, "transcript": sample.transcript, "is_cut": not sample.has_ended}
            for side, sample in (("win", one.win), ("lose", one.lose))
        }
        scores = {"win": reference[0], "lose": reference[1], "model": self._model_hash}
        return {
            "id": id,
            "prompt": one.pair.prompt,
            "text": one.pair.text,
            "speaker": self.speaker,
            **answers,
            "sampler": self.made_from,
            "ref_logp": scores | {"precision": self.settings.precision},
        }


def build_pairs(
    builder: PairBuilder,
    records: Sequence[Record],
    out: Path,
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> PairReport | None:
    """Write the pairs of all records to `out` and a report beside it; None when stopped before the end.

    The same call goes on where an earlier one was stopped, and gives the report of one that is finished.

    Raises:
        ConfigError: `out` isn't named `.jsonl`.
        DataError: `out` was made of other prompts, by another model or in another way.
    """
    if out.suffix != ".jsonl":
        raise ConfigError(f"pairs are written to a file named .jsonl, got {out}.")
    made_from = builder.made_from | {"prompts": _digest([(r["id"], r["text"]) for r in records])}
    finished = read_report(out, made_from=made_from)
    if finished is not None:
        return finished
    journal = out.with_suffix(".part")
    entries = _resumed(journal, made_from, out)
    done = len(entries)
    with journal.open("a", encoding="utf-8") as file:
        for start in range(done, len(records), batch_size):
            if should_stop():
                return None
            for entry in builder.build(records[start : start + batch_size]):
                entries.append(entry)
                file.write(_line(entry) + "\n")
            file.flush()
            if progress is not None:
                progress(len(entries), len(records))
    write_manifest(out, (e["pair"] for e in entries if e["pair"] is not None), kind="preference")
    report = summarise(entries)
    write_text(report_path(out), json.dumps({"made_from": made_from, **asdict(report)}, indent=1) + "\n")
    journal.unlink()
    return report


def report_path(out: Path) -> Path:
    """Where the report on a file of pairs stands."""
    return out.with_suffix(".report.json")


def read_report(out: Path, *, made_from: Mapping[str, Any] | None = None) -> PairReport | None:
    """The report on a file of pairs, None where there is none yet.

    `DataError` where it can't be read, or is of pairs that were made from anything but `made_from`.
    """
    path = report_path(out)
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values.pop("made_from")
        report = PairReport(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: no report on pairs ({reason(error)}).") from error
    if made_from is not None and found != made_from:
        raise DataError(_other(out))
    return report


def _resumed(journal: Path, made_from: Mapping[str, Any], out: Path) -> list[Entry]:
    """The entries of a journal, which is begun where there is none; a line cut short is left out."""
    entries: list[Entry] = []
    if journal.is_file():
        header, *lines = journal.read_text(encoding="utf-8").split("\n")
        if header != _line(made_from):
            raise DataError(_other(journal))
        entries = [json.loads(line) for line in lines[:-1]]
    elif out.exists():
        raise DataError(_other(out))
    write_lines(journal, [dict(made_from), *entries])
    return entries


def _other(path: Path) -> str:
    return (
        f"{path} was made of other prompts, by another model or in another way; remove it, "
        "or write to another file."
    )


def _line(values: Mapping[str, Any]) -> str:
    """As `write_lines` writes it."""
    return json.dumps(values, ensure_ascii=False)


def _seed(seed: int, id: str, number: int) -> int:
    """The seed of a sample, whatever is sampled beside it."""
    return int.from_bytes(sha256(f"{seed} {number} {id}".encode()).digest()[:7], "big")


def _digest(values: object) -> str:
    return sha256(json.dumps(values).encode()).hexdigest()[:16]
