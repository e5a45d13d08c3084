"""Stage RL of the built-in model, for the DPO rows of table 1: prompts, pairs, training, reading aloud.

    python -m deeptalk.cli.preferred ROOT RESULTS

The reward is the closed unigram's word error rate against the model's own text; prompts are answers of the
training data, and words in rows and statements without sense, half of each. What is finished is passed over.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from itertools import chain
from pathlib import Path

from deeptalk.cli.aloud import VOICE, add_rows
from deeptalk.cli.evaluation import QUESTIONS, write_json
from deeptalk.cli.opening import open_model
from deeptalk.cli.progress import bars
from deeptalk.cli.shipped import lay_out_shipped
from deeptalk.cli.times import Times
from deeptalk.cli.training import train_stage
from deeptalk.cli.varied import PROCESSOR
from deeptalk.data.domain import build_domain
from deeptalk.data.pocket import SpeechSizes, reading_texts, speech_jobs
from deeptalk.evaluation.aloud import answer_texts, hard_texts
from deeptalk.evaluation.pair_builder import PairBuilder, build_pairs
from deeptalk.evaluation.pairs import PairSettings
from deeptalk.evaluation.questions import EvalSet
from deeptalk.evaluation.recognisers import JudgeRecogniser
from deeptalk.recipes.preference import POCKET_PREFERENCE_ALOUD, SHIPPED_MODEL
from deeptalk.training.interruption import Interruption
from deeptalk.training.metrics import read_metrics
from deeptalk.training.run import METRICS
from deeptalk.training.stage import Places

NUM_PROMPTS, NUM_HELD_OUT = 1_200, 100
_INTERRUPTED = 130


def prompts() -> list[dict[str, str]]:
    """Texts to read aloud, none of which table 1 asks: an answer and a drill in turns."""
    items = build_domain(seed=0)
    reading = reading_texts(items, seed=0)
    asked = {*answer_texts(EvalSet(QUESTIONS)), *hard_texts()}
    parts = ("answers", "aloud_drills")
    answers, drills = (
        [job.text for job in speech_jobs(part, items, reading, seed=0, sizes=SpeechSizes())] for part in parts
    )
    texts = dict.fromkeys(text for text in chain(*zip(answers, drills, strict=False)) if text not in asked)
    return [{"id": f"aloud-prompt-{i}", "text": text} for i, text in enumerate(texts)]


def run(root: Path, results: Path) -> bool:
    """Make pairs, train, and measure before and after; False when interrupted."""
    places, table = Places(root=root, data=root / "data"), results / "table-1.json"
    times, started = Times(root / POCKET_PREFERENCE_ALOUD.name / "times.json"), time.process_time()
    lay_out_shipped(places)
    start = str(places.need(SHIPPED_MODEL))
    loaded = open_model(start)
    judge = JudgeRecogniser(Path(str(files("deeptalk"))) / "assets" / "evaluation")
    builder = PairBuilder(loaded, judge, PairSettings(num_samples=4), voice=VOICE)
    texts, reports = prompts(), {}
    (training,), (evaluation,) = POCKET_PREFERENCE_ALOUD.mixture, POCKET_PREFERENCE_ALOUD.evaluation
    shares = {
        evaluation.manifest: texts[:NUM_HELD_OUT],
        training.manifest: texts[NUM_HELD_OUT : NUM_HELD_OUT + NUM_PROMPTS],
    }
    with bars() as show, Interruption() as interruption:
        for name, records in shares.items():
            report = build_pairs(
                builder,
                records,
                places.data / f"{name}.jsonl",
                progress=lambda done, total, name=name: show(name, done, total),
                should_stop=lambda: interruption.requested,
            )
            if report is None:
                times.add(PROCESSOR, time.process_time() - started)
                return False
            reports[name] = asdict(report)
    last = train_stage(POCKET_PREFERENCE_ALOUD, root=root, data=places.data, resume=True)
    times.add(PROCESSOR, time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if last is not None and last.is_interrupted:
        return False
    if not table.is_file() or "shipped top-k 1" not in json.loads(table.read_text())["rows"]:
        add_rows(start, "shipped", table)
    add_rows(str(places.need(POCKET_PREFERENCE_ALOUD.name)), "dpo", table)
    metrics = read_metrics(places.run(POCKET_PREFERENCE_ALOUD.name) / METRICS)
    about = {
        "pairs": reports,
        "recipe": POCKET_PREFERENCE_ALOUD.name,
        "recipe_hash": POCKET_PREFERENCE_ALOUD.hash,
        "num_steps": len(metrics),
        "processor_minutes": round(times.seconds[PROCESSOR] / 60, 2),
        "peak_memory_mb": round(peak),
        "loss": [line["loss"] for line in metrics],
        "held_out": [line["evaluation"] for line in metrics if line["evaluation"]],
    }
    write_json(table, json.loads(table.read_text()) | {"preference": about})
    return True


def main(arguments: Sequence[str]) -> None:
    """Run; the arguments are the two folders."""
    root, results = arguments
    if not run(Path(root), Path(results)):
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main(sys.argv[1:])
