"""Our class against the harness's own: for stock models (the untouched backbone) and for servers.

Needs lm-evaluation-harness, an extra; skipped where it is not installed.
"""

import json
from pathlib import Path
from typing import Any

import harness_parity
import pytest
import torch
from stock_backbone import another_backbone, stock_tokenizer
from tokenizers import Tokenizer, processors
from transformers import AutoModelForCausalLM

from deeptalk.cli.served import served
from deeptalk.codec import SineCodec, save_codec
from deeptalk.decoding import LoadedModel, load
from deeptalk.errors import ConfigError
from deeptalk.evaluation.benchmarks import lm_harness
from deeptalk.evaluation.benchmarks.text_model import TextModel, text_backbone
from deeptalk.model import save

pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own

CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
WRITE = """
task: tiny_write
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 3, do_sample: false}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("lm_eval")
    for name, value in (("HF_HOME", str(tmp_path)), ("HF_DATASETS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    docs = [
        {
            "question": "question " + "abc"[: i % 4] * (i + 1),
            "choices": [" yes", " no, never", " x" * (1 + i % 3)],
            "label": i % 3,
            "answer": "ab",
        }
        for i in range(8)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    for name, text in (("choice", CHOICE), ("write", WRITE)):
        (tmp_path / f"{name}.yaml").write_text(text % (tmp_path / "data.jsonl"))
    return tmp_path


def test_the_backbone_through_our_class_is_the_stock_model(
    tasks: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    folder = another_backbone(loaded, tasks / "backbone")
    ours = lm_harness.register()(TextModel(text_backbone(loaded, folder).engine, batch_size=3))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    stock = HFLM(pretrained=model, tokenizer=stock_tokenizer(), device="cpu", batch_size=3, max_length=128)
    manager = TaskManager(include_path=str(tasks))
    found: list[Any] = [
        simple_evaluate(
            model=lm, tasks=["tiny_choice", "tiny_write"], bootstrap_iters=0, task_manager=manager
        )
        for lm in (ours, stock)
    ]
    for task, metric in (("tiny_choice", "acc"), ("tiny_choice", "acc_norm"), ("tiny_write", "exact_match")):
        left, right = (result["results"][task][f"{metric},none"] for result in found)
        assert left == right
    likelihoods, texts = [], []
    for result in found:
        samples = result["samples"]
        likelihoods.append([r[0] for s in samples["tiny_choice"] for one in s["resps"] for r in one])
        texts.append([one for s in samples["tiny_write"] for r in s["resps"] for one in r])
    assert len(likelihoods[0]) == 24
    assert [float(one) for one in likelihoods[0]] == pytest.approx(
        [float(one) for one in likelihoods[1]], abs=1e-3
    )
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1
    changed = TextModel(loaded.engine, batch_size=3)
    pairs = [("question a", " yes")]
    assert abs(changed.log_likelihoods(pairs)[0][0] - ours.text_model.log_likelihoods(pairs)[0][0]) > 1e-3


def test_tasks_give_the_score_of_every_item(tasks: Path, loaded: LoadedModel) -> None:
    model = TextModel(loaded.engine, batch_size=3)
    cache = tasks / "kept"
    scores = lm_harness.run_tasks(model, ["tiny_choice", "tiny_write"], folder=tasks, cache=cache)
    assert {name: len(values) for name, values in scores.items()} == {
        **{"tiny_choice/acc": 8, "tiny_choice/acc_norm": 8, "tiny_write/exact_match": 8}
    }
    chats = lm_harness.run_tasks(model, ["tiny_write"], folder=tasks, is_chat=True)
    assert len(chats["tiny_write/exact_match"]) == 8
    best = [
        max(
            range(3),
            key=[
                s for s, _ in model.log_likelihoods([(doc["question"], c) for c in doc["choices"]])
            ].__getitem__,
        )
        for doc in map(json.loads, (tasks / "data.jsonl").read_text().splitlines())
    ]
    assert scores["tiny_choice/acc"] == [float(choice == i % 3) for i, choice in enumerate(best)]
    model.log_likelihoods = lambda pairs: pytest.fail("asked again")  # pyright: ignore
    assert lm_harness.run_tasks(model, ["tiny_choice"], folder=tasks, cache=cache) == {
        name: values for name, values in scores.items() if name.startswith("tiny_choice")
    }
    with pytest.raises(ConfigError, match="has no task tiny_chance, other;"):
        lm_harness.run_tasks(model, ["tiny_chance", "tiny_choice", "other"], folder=tasks)


def test_the_class_and_the_server_give_the_same(tasks: Path, loaded: LoadedModel) -> None:
    """``local-completions`` of the harness against ``/v1/completions`` of a server with the same model."""
    from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.models.openai_completions import (  # pyright: ignore[reportMissingImports]
        LocalCompletionsAPI,
    )
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    pytest.importorskip("uvicorn", reason="the server needs deeptalk[serve]")
    folder, words, stock = tasks / "model", tasks / "words.json", stock_tokenizer()
    plain = Tokenizer.from_str(stock.backend_tokenizer.to_str())
    plain.post_processor = processors.Sequence([])  # pyright: ignore
    plain.save(str(words))
    stock.save_pretrained(tasks / "tokenizer")
    save(loaded.model, folder, tokenizer_path=words, provenance={"recipe": "none"})
    save_codec(SineCodec(), folder / "codec")
    opened = load(folder)
    ours = lm_harness.register()(TextModel(opened.engine, batch_size=3))
    manager = TaskManager(include_path=str(tasks))
    found: list[Any] = []
    with served("--no-ui", "--model", str(folder)) as url:
        base = url.replace("ws://", "http://").removesuffix("/realtime")
        over_http = LocalCompletionsAPI(
            base_url=f"{base}/completions",
            model="model",
            tokenizer=str(tasks / "tokenizer"),
            tokenizer_backend="huggingface",
            add_bos_token=True,
            batch_size=4,
            max_length=128,
        )
        for lm in (ours, over_http):
            found.append(
                simple_evaluate(
                    model=lm, tasks=["tiny_choice", "tiny_write"], bootstrap_iters=0, task_manager=manager
                )
            )
    for task, metric in (("tiny_choice", "acc"), ("tiny_choice", "acc_norm"), ("tiny_write", "exact_match")):
        left, right = (result["results"][task][f"{metric},none"] for result in found)
        assert left == right
    likelihoods = [
        [float(r[0]) for s in result["samples"]["tiny_choice"] for one in s["resps"] for r in one]
        for result in found
    ]
    assert len(likelihoods[0]) == 24
    assert likelihoods[0] == pytest.approx(likelihoods[1], abs=1e-3)
    texts = [
        [one for s in result["samples"]["tiny_write"] for r in s["resps"] for one in r] for result in found
    ]
    assert texts[0] == texts[1]


@pytest.mark.weights
def test_the_pocket_model_is_the_same_through_the_class_stock_models_and_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few of the 440 questions of ``benchmarks/results/lm-harness.json``."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("uvicorn", reason="the server needs deeptalk[serve]")
    for name, value in (("HF_HOME", str(tmp_path)), ("HF_DATASETS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name, pair in harness_parity.measure(tmp_path, limit=2)["pairs"].items():
        assert all(ours == theirs for ours, theirs in pair["scores"].values()), name
        assert pair["same_texts"] == pair["num_texts"] == 10
        assert (pair["largest_difference"] or 0.0) < 1e-3
