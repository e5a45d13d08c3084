"""OpenCompass's requests in, answers out, on a stand-in for its base class."""

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from stock_backbone import another_backbone, stock_tokenizer

from deeptalk.decoding import LoadedModel
from deeptalk.errors import ConfigError
from deeptalk.evaluation.benchmarks.text_model import Continuation, TextModel

NAME = "deeptalk.evaluation.benchmarks.opencompass_model"
BOS = 256


class BaseModel:
    """As much of the real one as the class touches."""

    def __init__(
        self,
        path: str,
        max_seq_len: int = 2048,
        tokenizer_only: bool = False,
        meta_template: dict[str, Any] | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        sync_rank: bool = False,
    ) -> None:
        self.path, self.max_seq_len, self.generation_kwargs = path, max_seq_len, generation_kwargs


@pytest.fixture
def module(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    for name in ("opencompass", "opencompass.models", "opencompass.models.base"):
        stand_in = ModuleType(name)
        stand_in.BaseModel = BaseModel  # pyright: ignore
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    made = importlib.import_module(NAME)
    monkeypatch.setattr(made, "load", lambda name: loaded)
    yield made
    sys.modules.pop(NAME, None)


@torch.inference_mode()
def stock_losses(loaded: LoadedModel, text: str) -> torch.Tensor:
    """The loss of every token behind BOS, by the stock model."""
    ids = torch.tensor([BOS, *text.encode()])
    logits = loaded.model.backbone.model(input_ids=ids[None]).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")


def test_losses_are_counted_as_opencompass_does(module, loaded) -> None:
    model = module.DeepTalkModel("DIR")
    texts = ["hello world", "a", "abc"]
    losses = [stock_losses(loaded, text) for text in texts]
    whole = [float(loss.sum()) / (len(loss) + 1) for loss in losses]
    assert model.get_ppl(texts) == pytest.approx(whole, abs=1e-4)
    masked = [float(losses[0][4:].sum()) / (len(losses[0]) + 1 - 5), whole[1], float(losses[2][1:].sum()) / 2]
    assert model.get_ppl(texts, mask_length=[5, 0, 2]) == pytest.approx(masked, abs=1e-4)
    assert [model.get_token_len(text) for text in texts] == [12, 2, 4]


def test_generations_end_where_they_should(module, loaded) -> None:
    plain = TextModel(loaded.engine)
    found = plain.continue_texts(["a", "hello"], Continuation(max_tokens=6))
    end = next(text for text in found if len(text) > 2)[1:3]
    model = module.DeepTalkModel("DIR", generation_kwargs={"do_sample": False}, stop_words=[end])
    assert model.generate(["a", "hello"], 6) == [text.split(end)[0] for text in found]
    plain_model = module.DeepTalkModel("DIR")
    assert plain_model.generate(["a", "hello"], 6) == found
    first = found[0][:1]
    assert plain_model.generate(["a"], 6, stopping_criteria=[first]) == [""]
    with pytest.raises(ConfigError, match="can't generate with min_out_len, num_beams"):
        model.generate(["a"], 6, min_out_len=2, num_beams=4)


def test_a_long_text_loses_its_beginning(module, loaded) -> None:
    model = module.DeepTalkModel("DIR", max_seq_len=6)
    ids = [BOS, *b"abcdefghi"][-6:]
    scores = TextModel(loaded.engine).score_ids([(ids[:1], ids[1:])])
    assert model.get_ppl(["abcdefghi"]) == pytest.approx([-scores[0][0] / 6], abs=1e-4)
    # Four of ten tokens are lost; of a mask of seven, three are left, and three are scored.
    ((score, _),) = TextModel(loaded.engine).score_ids([(ids[:3], ids[3:])])
    assert model.get_ppl(["abcdefghi"], mask_length=[7]) == pytest.approx([-score / 3], abs=1e-4)
    assert model.get_ppl(["abcdefghi"], mask_length=[2]) == pytest.approx([-scores[0][0] / 6], abs=1e-4)


def test_a_baseline_takes_the_place_of_the_backbone(module, loaded, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        module, "text_backbone", lambda model, folder: asked.append((model, str(folder))) or model
    )
    moved = []
    monkeypatch.setattr(loaded.model, "to", moved.append)
    module.DeepTalkModel("DIR", backbone="BASE", device="cpu")
    assert asked == [(loaded, "BASE")]
    assert moved == ["cpu"]


def test_without_opencompass_the_module_says_what_it_is_for(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "opencompass", None)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    with pytest.raises(ConfigError, match="pip install opencompass"):
        importlib.import_module(NAME)


@pytest.mark.filterwarnings("ignore")  # OpenCompass's own
def test_the_backbone_is_what_opencompass_itself_makes_of_it(loaded, tmp_path) -> None:
    pytest.importorskip("opencompass", reason="OpenCompass is installed apart")
    from opencompass.models.huggingface import (  # pyright: ignore[reportMissingImports]
        HuggingFaceCausalLM,
    )

    folder, tokenizer = another_backbone(loaded, tmp_path / "backbone"), stock_tokenizer()
    tokenizer.pad_token = "<eos>"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    stock = HuggingFaceCausalLM(
        path=str(folder),
        tokenizer_path=str(tmp_path / "tokenizer"),
        model_kwargs={"torch_dtype": torch.float32},
        max_seq_len=128,
    )
    sys.modules.pop(NAME, None)
    module = importlib.import_module(NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load", lambda name: loaded)
        ours = module.DeepTalkModel("DIR", backbone=str(folder), max_seq_len=128)
    texts = ["hello world", "a", "question abc", "12 + 7 ="]
    assert ours.get_ppl(texts) == pytest.approx(list(stock.get_ppl(texts)), abs=1e-3)
    assert ours.generate(texts, 5) == stock.generate(texts, 5)
    assert [ours.get_token_len(text) for text in texts] == [stock.get_token_len(text) for text in texts]
