"""The paper's tables in small: which runs stand in which row, which scores in which column.

The paper's values are copied from arXiv 2506.21864; those of its table 3 stand in `paper_tables`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deeptalk.evaluation.benchmarks.latency import PAPER as PAPER_LATENCY
from deeptalk.evaluation.benchmarks.paper_tables import TABLE_3 as PAPER_TABLE_3
from deeptalk.evaluation.benchmarks.small_figures import (
    CHANGE,
    CHANGE_PERCENT,
    HEARD,
    READ_ALOUD,
    SPOKEN,
    TEXT,
)
from deeptalk.evaluation.benchmarks.small_runs import (
    CASCADE,
    FLOOR,
    LATENCY,
    SHIPPED,
    SHIPPED_BACKBONE,
    START,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A score under a name; ``stage`` ends the name of the stage that it is of, the last one unless given."""

    name: str
    score: str
    stage: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The mean of some runs; ``paper`` has the paper's values by column, ``skips`` columns it has no part in.

    ``baseline`` is the run that a change is measured against.
    """

    name: str
    runs: tuple[str, ...]
    paper: Mapping[str, float] = field(default_factory=dict)
    baseline: str = START
    skips: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Printed:
    """What the paper prints: a header, and its rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table or figure: ``name`` is what ``--only`` takes, ``note`` says what in it is not the paper's."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    printed: Printed | None = None
    note: str = ""

    @property
    def variants(self) -> tuple[str, ...]:
        """The runs that it needs, each once."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.runs))


TEXT_TO_TEXT = Column(name="text to text", score=TEXT)
SPEECH_TO_TEXT = Column(name="speech to text", score=HEARD)
SPEECH_TO_SPEECH = Column(name="speech to speech", score=SPOKEN)
SPOKEN_ERRORS = Column(name="WER of its speech", score=READ_ALOUD)
ALL_FOUR = (TEXT_TO_TEXT, SPEECH_TO_TEXT, SPEECH_TO_SPEECH, SPOKEN_ERRORS)

RANDOM = ("random-1", "random-2", "random-3")

_BACKBONE_3, _OURS_3 = PAPER_TABLE_3[0], PAPER_TABLE_3[1]
_HEARD_2 = {"speech to text": 46.9, "speech to speech": 36.8}


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


_ASKED, _ASKED_HARD = "answers: WER, text asked for", "hard list: WER, text asked for"

TABLE_1 = Table(
    name="table-1",
    title="Table 1: errors of speech, before and after DPO",
    columns=(
        *(
            Column(name=f"{words}: {name}", score=f"{part}/{score}")
            for part, words in (("answers", "answers"), ("hard", "hard list"))
            for name, score in (
                ("WER, text asked for", "target_wer/bigram"),
                ("WER, own text", "own_wer/bigram"),
                ("WER, own text, unigram", "own_wer/unigram"),
                ("frames", "mean_frames"),
            )
        ),
    ),
    rows=(
        Row(name="top-k 10", runs=("top-k 10",), paper={_ASKED: 7.34, _ASKED_HARD: 7.53}),
        Row(name="top-k 1", runs=("top-k 1",), paper={_ASKED: 6.28, _ASKED_HARD: 7.34}),
        Row(name="DPO, top-k 10", runs=("dpo top-k 10",)),
        Row(name="DPO, top-k 1", runs=("dpo top-k 1",), paper={_ASKED: 3.25, _ASKED_HARD: 7.29}),
        Row(
            name="flite's own recordings",
            runs=(FLOOR,),
            skips=tuple(
                f"{part}/{score}"
                for part in ("answers", "hard")
                for score in ("own_wer/bigram", "own_wer/unigram", "mean_frames")
            ),
        ),
    ),
    printed=Printed(
        header=("error %, Seed-TTS", "zh", "en", "hard"),
        rows=(
            ("top-k 10", "1.87", "7.34", "7.53"),
            ("top-k 1", "1.68", "6.28", "7.34"),
            ("+ DPO", "1.41", "3.25", "7.29"),
            ("Seed-TTS", "1.12", "2.25", "7.59"),
            ("CosyVoice", "3.63", "4.29", "11.75"),
            ("CosyVoice2", "1.45", "2.57", "6.83"),
            ("GLM-4-Voice", "2.91", "2.10", "–"),
            ("VITA-1.5", "8.44", "2.63", "–"),
        ),
    ),
    note="Pocket is English only. The paper's en stands beside right answers of the set, its hard list "
    "beside rows of numbers and repeated words. A frame is 85 ms.",
)

TABLE_2 = Table(
    name="table-2",
    title="Table 2: spoken questions",
    columns=(SPEECH_TO_TEXT, SPEECH_TO_SPEECH, SPOKEN_ERRORS),
    rows=(
        Row(name="shipped model, all 440 questions", runs=(SHIPPED,), paper=_HEARD_2),
        Row(name="cascade of the shipped model's parts", runs=(CASCADE,)),
        Row(name="adaptive, short budget", runs=("adaptive",), paper=_HEARD_2),
        Row(
            name="MoExtend, short budget",
            runs=("moextend",),
            paper={"speech to text": 31.1, "speech to speech": 26.5},
        ),
    ),
    printed=Printed(
        header=("S→T / S→S", "LLaMA Q.", "Web Q.", "TriviaQA", "mean"),
        rows=(
            ("MinMo 7B", "78.9 / 64.1", "55.0 / 39.9", "48.3 / 37.5", "60.7 / 47.2"),
            ("Step-Audio 130B (S→T)", "81.0", "75.1", "58.0", "71.4"),
            ("Freeze-Omni 7B (S→T)", "72.0", "44.7", "53.9", "56.9"),
            ("Moshi 7B", "62.3 / 21.0", "26.6 / 9.2", "22.8 / 7.3", "37.2 / 12.5"),
            ("GLM-4-Voice 9B", "64.7 / 50.7", "32.2 / 15.9", "39.1 / 26.5", "45.3 / 31.0"),
            ("LUCY 7B", "59.6 / 51.0", "26.6 / 18.2", "23.2 / 18.2", "36.5 / 29.1"),
            ("MoExtend 2.4B active", "54.0 / 45.3", "20.8 / 16.9", "18.5 / 17.2", "31.1 / 26.5"),
            ("DeepTalk 2.4B active", "65.0 / 59.7", "34.4 / 23.1", "41.2 / 27.5", "46.9 / 36.8"),
        ),
    ),
    note="The cascade transcribes, answers the transcript in text, and says the answer, by the same weights.",
)

TABLE_3 = Table(
    name="table-3",
    title="Table 3: what is left of the text ability",
    columns=(
        TEXT_TO_TEXT,
        Column(name="change, % of the backbone", score=CHANGE_PERCENT),
        Column(name="change, points", score=CHANGE),
    ),
    rows=(
        Row(
            name="text backbone of the variants",
            runs=(START,),
            paper={"text to text": _BACKBONE_3.mean},
            skips=(CHANGE, CHANGE_PERCENT),
        ),
        Row(
            name="adaptive",
            runs=("adaptive",),
            paper={
                "text to text": _OURS_3.mean,
                "change, % of the backbone": -5.45,
                "change, points": round(_OURS_3.mean - _BACKBONE_3.mean, 2),
            },
        ),
        Row(name="lossless", runs=("lossless",)),
        Row(name="MoExtend", runs=("moextend",)),
        Row(name="PureMoE", runs=("pure-moe",)),
        Row(name="random, mean of the draws", runs=RANDOM),
        Row(
            name="text backbone of the shipped model",
            runs=(SHIPPED_BACKBONE,),
            skips=(CHANGE, CHANGE_PERCENT),
        ),
        Row(name="shipped model", runs=(SHIPPED,), baseline=SHIPPED_BACKBONE),
    ),
    printed=Printed(
        header=("text benchmarks", "mean", "change, %"),
        rows=tuple((row.model, _percent(row.mean), _percent(row.drop)) for row in PAPER_TABLE_3),
    ),
    note="The paper's means are over twelve benchmarks, ours over written questions of the pocket domain. "
    "The shipped model has gone on learning text for long after its backbone, the variants hardly.",
)

TABLE_4 = Table(
    name="table-4",
    title="Table 4: transcription",
    columns=(
        Column(name="WER, held-out clips", score="transcription_wer"),
        Column(name="digits of real people, exact", score="real_digits/free"),
    ),
    rows=(Row(name="shipped model", runs=(SHIPPED,), paper={"WER, held-out clips": 3.25}),),
    printed=Printed(
        header=("error %", "WenetSpeech net / meeting", "AISHELL", "LibriSpeech clean / other"),
        rows=(
            ("DeepTalk", "8.98 / 10.67", "2.42", "3.25 / 8.21"),
            ("Qwen2-Audio-base", "7.64 / 8.40", "1.52", "1.74 / 4.04"),
            ("Baichuan-Audio-base", "10.13 / 13.28", "1.93", "3.02 / 6.04"),
            ("VITA", "12.15 / 16.53", "–", "8.14 / 18.41"),
            ("Step-Audio-chat", "9.47 / 10.83", "2.14", "3.19 / 10.67"),
            ("Qwen2.5-Omni", "6.04 / 7.71", "1.13", "2.37 / 4.21"),
            ("GLM-4-Voice", "–", "3.02", "2.10 / 4.90"),
        ),
    ),
    note="Held-out clips are synthesised voices and a closed domain; LibriSpeech clean stands beside them "
    "only for want of anything nearer.",
)

TABLE_7 = Table(
    name="table-7",
    title="Table 7: how many audio experts",
    columns=ALL_FOUR,
    rows=(
        Row(
            name="4 of 32 (6 of 64)",
            runs=("adaptive",),
            paper={"text to text": 57.9, "speech to speech": 36.8},
        ),
        Row(
            name="6 of 32 (12 of 64)",
            runs=("experts-6",),
            paper={"text to text": 50.0, "speech to speech": 38.6},
        ),
        Row(
            name="9 of 32 (18 of 64)",
            runs=("experts-9",),
            paper={"text to text": 44.6, "speech to speech": 40.3},
        ),
        Row(
            name="12 of 32 (24 of 64)",
            runs=("experts-12",),
            paper={"text to text": 34.5, "speech to speech": 33.7},
        ),
    ),
    printed=Printed(
        header=("T→T / S→S", "LLaMA Q.", "Web Q.", "TriviaQA", "mean"),
        rows=(
            ("6", "69.0 / 59.7", "46.6 / 23.1", "58.2 / 27.5", "57.9 / 36.8"),
            ("12", "61.0 / 60.0", "39.2 / 26.7", "49.7 / 29.1", "50.0 / 38.6"),
            ("18", "59.0 / 59.0", "32.1 / 28.3", "42.6 / 33.7", "44.6 / 40.3"),
            ("24", "48.0 / 48.0", "23.7 / 22.9", "31.9 / 30.2", "34.5 / 33.7"),
        ),
    ),
)

TABLE_8 = Table(
    name="table-8",
    title="Table 8: which experts become audio experts",
    columns=ALL_FOUR,
    rows=(
        Row(name="PureMoE", runs=("pure-moe",), paper={"speech to text": 30.2, "speech to speech": 24.7}),
        Row(
            name="random, draw 1",
            runs=("random-1",),
            paper={"speech to text": 25.5, "speech to speech": 19.4},
        ),
        Row(
            name="random, draw 2",
            runs=("random-2",),
            paper={"speech to text": 35.5, "speech to speech": 28.5},
        ),
        Row(
            name="random, draw 3",
            runs=("random-3",),
            paper={"speech to text": 35.1, "speech to speech": 29.3},
        ),
        Row(
            name="random, mean of the draws",
            runs=RANDOM,
            paper={"speech to text": 32.0, "speech to speech": 25.7},
        ),
        Row(name="adaptive", runs=("adaptive",), paper=_HEARD_2),
        Row(name="adaptive, loads by their largest", runs=("loads-max",)),
    ),
    printed=Printed(
        header=("S→T / S→S", "LLaMA Q.", "Web Q.", "TriviaQA", "mean"),
        rows=(
            ("PureMoE", "48.3 / 40.7", "20.9 / 15.7", "21.5 / 17.6", "30.2 / 24.7"),
            ("Random 1", "40.3 / 32.7", "17.3 / 10.9", "18.9 / 14.5", "25.5 / 19.4"),
            ("Random 2", "54.3 / 45.7", "25.9 / 19.8", "26.3 / 20.1", "35.5 / 28.5"),
            ("Random 3", "52.1 / 47.0", "23.3 / 17.6", "29.8 / 23.4", "35.1 / 29.3"),
            ("Adaptive", "65.0 / 59.7", "34.4 / 23.1", "41.2 / 27.5", "46.9 / 36.8"),
        ),
    ),
    note="The paper has no mean of the draws; it is arithmetic here. It says load rates and not of what: "
    "adaptive takes choices per token, the last row parts of the layer's largest, by which an expert that "
    "text uses most can't be chosen.",
)

ABLATIONS = Table(
    name="ablations",
    title="Ablations, each one change of the adaptive recipes",
    columns=ALL_FOUR,
    rows=(
        Row(name="adaptive", runs=("adaptive",)),
        Row(name="routers train in stage 2 too", runs=("router",)),
        Row(name="masked weights over the chosen experts", runs=("renorm-topk",)),
        Row(name="masked weights not normalised again", runs=("renorm-none",)),
        Row(name="two rounds of partition", runs=("rounds-2",)),
        Row(name="fusion mean8, as released", runs=("mean8",)),
        Row(name="fusion mean2, as the paper may be read", runs=("mean2",)),
        Row(name="adapter of strided convolutions", runs=("conv",)),
        Row(name="speech frames of 80 ms", runs=("stride-4",)),
    ),
    note="The paper has no figures for these. Of eight comparisons with three figures each, one is clear by "
    "chance.",
)

LOSSLESS = Table(
    name="lossless",
    title="Lossless text",
    columns=(TEXT_TO_TEXT, Column(name="change, points", score=CHANGE), *ALL_FOUR[1:]),
    rows=(
        Row(name="text backbone", runs=(START,), skips=(CHANGE, *(c.score for c in ALL_FOUR[1:]))),
        Row(name="adaptive", runs=("adaptive",)),
        Row(name="lossless", runs=("lossless",)),
    ),
    note="Ours, not the paper's.",
)

BEFORE = "align"
"""How the name of stage 1 ends: most variants have it in common, and nothing of the text has moved in it."""

STAGES = {
    "before speech": BEFORE,
    "stage 2.1": "audio-experts",
    "stage 2.2": "text-experts",
    "2.1 again": "audio-experts-again",
    "2.2 again": "text-experts-again",
    "at the end": None,
}
"""After which stages text is asked, and how the names of their recipes end; None is the last one."""

LAYERS = {"layer 0": "text/first", "middle layer": "text/middle", "last layer": "text/last"}
LOADS = Table(
    name="figures-4-6",
    title="Figures 4 to 6: load of the experts",
    columns=(
        *(Column(name=f"text, {name}", score=score) for name, score in LAYERS.items()),
        Column(name="text, all layers", score="text/all"),
        Column(name="speech, all layers", score="audio/all"),
    ),
    rows=(
        Row(name="4 by load (adaptive)", runs=("load of adaptive",)),
        *(Row(name=f"4 by lot, draw {n}", runs=(f"load of random-{n}",)) for n in (1, 2, 3)),
        Row(name="4 by lot, mean of the draws", runs=tuple(f"load of {name}" for name in RANDOM)),
        Row(name="4 by load, in parts of the largest", runs=("load of loads-max",)),
        Row(name="6 by load", runs=("load of experts-6",)),
        Row(name="9 by load", runs=("load of experts-9",)),
        Row(name="12 by load", runs=("load of experts-12",)),
        Row(name="shipped model, after all stages", runs=(f"load of {SHIPPED}",)),
    ),
    note="Per cent of the choices of text, and of speech, that go to the audio experts, in the model that "
    "stage 2.1 begins with: what stage 2.1 takes from text. By chance 4 of 32 would get 12.5 %. The paper "
    "shows pictures alone.",
)

LATENCY_TABLE = Table(
    name="latency",
    title="Latency",
    columns=(
        Column(name="first audio, ms (median, a conversation)", score="first_audio_p50"),
        Column(name="first chunk, ms (mean)", score="first_chunk"),
        Column(name="step, ms (mean)", score="step"),
        Column(name="real-time factor", score="real_time_factor_p50"),
    ),
    rows=(
        Row(
            name="shipped model",
            runs=(SHIPPED, LATENCY),
            paper={
                "first audio, ms (median, a conversation)": PAPER_LATENCY["first_chunk"],
                "first chunk, ms (mean)": PAPER_LATENCY["first_chunk"],
                "step, ms (mean)": PAPER_LATENCY["step"],
                "real-time factor": PAPER_LATENCY["real_time_factor"],
            },
        ),
    ),
    printed=Printed(
        header=("seconds", "end to end", "first chunk", "network", "step", "real-time factor"),
        rows=(("DeepTalk, one 80 GB GPU", "0.4362", "0.3417", "0.1062", "0.0205", "0.24 (arithmetic)"),),
    ),
    note="Fourteen million parameters on a core of a CPU beside 2.4 billion active ones on a GPU: only the "
    "way of measuring is the same. The paper's parts don't add up (0.4362 − 0.3417 is 0.0945).",
)


TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_7, TABLE_8, LOADS, LATENCY_TABLE, ABLATIONS, LOSSLESS)
"""All but `forgetting`, in the order of the report."""


def forgetting(names: Sequence[str]) -> Table:
    """Text to text before speech and after every stage, of all variants."""
    return Table(
        name="forgetting",
        title="Forgetting: text to text after every stage",
        columns=tuple(Column(name=name, score=TEXT, stage=end) for name, end in STAGES.items()),
        rows=tuple(Row(name=name, runs=(name,)) for name in names),
        note="Stage 1 moves nothing of the backbone, so that what it can do before any speech is measured "
        "after it. Under mean8 and mean2 a word's embedding is divided among the streams, which nothing has "
        "taught the backbone to read before it trains.",
    )
