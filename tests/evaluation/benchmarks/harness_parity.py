"""The pocket model through our class, the harness's own class for stock models, and a server: the same?

    python tests/evaluation/benchmarks/harness_parity.py --out benchmarks/results/lm-harness.json

Needs lm-evaluation-harness (``pip install 'deeptalk[lm-eval]'``). The tasks are the written questions of the
pocket domain: as a choice among answers of their category, and as texts to be written, raw and as chats. (The
harness puts no space before the choices of a chat, which stock classes take at its word; ours puts one, as in
dialogue, so choices of chats don't compare.)
"""

import json
import os
import random
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from deeptalk.cli.evaluation import QUESTIONS
from deeptalk.cli.served import served
from deeptalk.decoding import load
from deeptalk.evaluation.benchmarks import lm_harness
from deeptalk.evaluation.benchmarks.text_model import TextModel, text_backbone
from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalSet
from deeptalk.model.identity import model_hash

TASKS = {
    "pocket_choice": """
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "pocket_write": """
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 40, do_sample: false}
filter_list: [{name: strip, filter: [{function: remove_whitespace}, {function: take_first}]}]
metric_list: [{metric: exact_match, ignore_case: true, ignore_punctuation: true}]
""",
}
SHARED = """
task: %s
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
doc_to_text: "%s"
"""
RAW, CHAT = "User: {{question}}\\nAssistant:", "{{question}}"


def write_tasks(folder: Path, *, limit: int | None, seed: int = 0) -> int:
    """Tasks of the domain's written questions, raw and for chats; how many questions they have."""
    asked, rng, docs = EvalSet(QUESTIONS), random.Random(seed), []
    for category in FIVE_CATEGORIES:
        items = asked.of(category)
        answers = sorted({item.answers[-1] for item in items})
        for item in items[:limit]:
            right = item.answers[-1]
            others = rng.sample([answer for answer in answers if answer != right], 3)
            choices = rng.sample([right, *others], 4)
            docs.append(
                {
                    "question": item.turns[0].text,
                    "answer": right,
                    "choices": choices,
                    "label": choices.index(right),
                }
            )
    (folder / "data.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    for name, text in TASKS.items():
        for suffix, question in (("", RAW), ("_chat", CHAT)):
            shared = SHARED % (name + suffix, folder / "data.jsonl", question)
            (folder / f"{name}{suffix}.yaml").write_text(shared + text)
    return len(docs)


def ask(model: Any, folder: Path, *, is_chat: bool) -> dict[str, Any]:
    """The tasks' samples and scores of one model of the harness."""
    from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    found: Any = simple_evaluate(
        model=model,
        tasks=["pocket_write_chat"] if is_chat else list(TASKS),
        task_manager=TaskManager(include_path=str(folder)),
        bootstrap_iters=0,
        apply_chat_template=is_chat,
    )
    return found


def compared(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of both, and how far their log-probabilities and texts are apart."""
    scores, apart, same = {}, 0.0, 0
    num_likelihoods, num_texts = 0, 0
    for task, metrics in left["results"].items():
        for metric, value in metrics.items():
            if isinstance(value, float) and "stderr" not in metric:
                scores[f"{task}/{metric.partition(',')[0]}"] = [value, right["results"][task][metric]]
        for ours, theirs in zip(*(_replies(side["samples"][task]) for side in (left, right)), strict=True):
            if "choice" in task:
                apart = max(apart, abs(float(ours[0]) - float(theirs[0])))
                num_likelihoods += 1
            else:
                same += ours.strip() == theirs.strip()
                num_texts += 1
    return {
        "scores": scores,
        "num_log_probabilities": num_likelihoods,
        "largest_difference": apart if num_likelihoods else None,
        "same_texts": same,
        "num_texts": num_texts,
    }


def _replies(samples: Sequence[Mapping[str, Any]]) -> list[Any]:
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    return [reply for sample in ordered for replies in sample["resps"] for reply in replies]


def measure(folder: Path, *, limit: int | None = None) -> dict[str, Any]:
    """The class against the harness's own class for stock models, and against a server."""
    from importlib.metadata import version

    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]
    from lm_eval.models.openai_completions import (  # pyright: ignore[reportMissingImports]
        LocalCompletionsAPI,
    )

    from deeptalk.model.text_side import export_text_side

    num_items = write_tasks(folder, limit=limit)
    loaded = load("pocket")
    export_text_side("pocket", folder / "stock", max_shard_size="5GB")
    made = lm_harness.register()
    ours = made(TextModel(loaded.engine, batch_size=8))
    bare = made(TextModel(text_backbone(loaded, folder / "stock").engine, batch_size=8))
    stock = HFLM(
        pretrained=str(folder / "stock"), dtype="float32", device="cpu", batch_size=8, add_bos_token=True
    )
    found = {name: ask(lm, folder, is_chat=False) for name, lm in (("ours", ours), ("bare", bare))}
    pairs = {"backbone, class and hf": compared(found["bare"], ask(stock, folder, is_chat=False))}
    chats = [ask(lm, folder, is_chat=True) for lm in (bare, stock)]
    pairs["backbone as chats, class and hf"] = compared(*chats)
    with served("--no-ui", "--model", "pocket") as url:
        over_http = LocalCompletionsAPI(
            base_url=url.replace("ws://", "http://").removesuffix("/realtime") + "/completions",
            model="pocket",
            tokenizer=str(folder / "stock"),
            tokenizer_backend="huggingface",
            add_bos_token=True,
            batch_size=8,
        )
        pairs["model, class and /v1/completions"] = compared(
            found["ours"], ask(over_http, folder, is_chat=False)
        )
    return {
        "model": model_hash(loaded.model),
        "lm_eval": version("lm_eval"),
        "torch": torch.__version__,
        "num_items": num_items,
        "pairs": pairs,
    }


def main() -> None:
    """Measure and write the result."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="questions of each category")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        os.environ |= {"HF_HOME": folder, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
        found = measure(Path(folder), limit=given.limit)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
