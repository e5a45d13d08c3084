"""Copies of experts on disk: a lossless model is a backbone and a delta; what is copied is copied once."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deeptalk.backbone import open_backbone
from deeptalk.backbone.extra import ExtraExperts, ExtraRouting, is_extra_name
from deeptalk.backbone.stock import save_stock, stock_hash
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.weights import load, save
from deeptalk.streams import Batch

Build = Callable[..., DeepTalk]
SOURCES = ((1, 4, 6), (0, 2, 7))


@pytest.fixture
def trained(build: Build) -> Callable[[ExtraRouting], DeepTalk]:
    """A model whose copies have been made and moved, and all that is not the backbone's."""

    def make(routing: ExtraRouting) -> DeepTalk:
        model = build()
        model.add_experts(ExtraExperts(sources=SOURCES, routing=routing))
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if not name.startswith("backbone.") or is_extra_name(name):
                    tensor.mul_(1.25)
        return model

    return make


def file_hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def logits(model: DeepTalk, batch: Batch) -> list[torch.Tensor]:
    with torch.no_grad():
        found = model(batch).logits
    return [found.text, found.codec]


@pytest.mark.parametrize("routing", ["overlay", "union", "append"])
def test_all_weights_come_back_and_no_copy_is_made_again(
    tmp_path: Path,
    tokenizer_path: Path,
    trained: Callable[..., DeepTalk],
    speech_batch: Batch,
    routing: ExtraRouting,
) -> None:
    model = trained(routing)
    for number in range(2):  # the released MoExtend copies at every launch, over what was trained
        save(model, tmp_path / str(number), tokenizer_path=tokenizer_path, provenance={})
        loaded = load(tmp_path / str(number), split=bool(number))
        assert loaded.config == model.config
        state, expected = loaded.state_dict(), model.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
        pairs = zip(logits(loaded, speech_batch), logits(model, speech_batch), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
        with pytest.raises(ConfigError, match="copies are made once"):
            loaded.add_experts(ExtraExperts(sources=SOURCES, routing=routing))
        model = loaded


@pytest.mark.parametrize("routing", ["overlay", "union"])
def test_without_the_delta_the_backbone_is_there_file_by_file(
    tmp_path: Path,
    tokenizer_path: Path,
    build: Build,
    trained: Callable[..., DeepTalk],
    text_batch: Batch,
    routing: ExtraRouting,
) -> None:
    before = build()
    save_stock(before.backbone, tmp_path / "stock")
    model = trained(routing)
    save(model, tmp_path / "model", tokenizer_path=tokenizer_path, provenance={})
    own = load_file(tmp_path / "model" / "model.safetensors")
    assert not [name for name in own if name.startswith("backbone.") and not is_extra_name(name)]
    assert any(".experts.extra." in name for name in own)
    assert file_hashes(tmp_path / "model" / "backbone") == file_hashes(tmp_path / "stock")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["backbone_hash"] == stock_hash(tmp_path / "stock")
    assert config["extra_experts"] == {"sources": [[1, 4, 6], [0, 2, 7]], "routing": routing}
    opened = open_backbone(tmp_path / "model" / "backbone").eval()
    ids = text_batch.grid[:1, 0, :9]
    with torch.no_grad():
        assert torch.equal(opened.model(input_ids=ids).logits, before.backbone.model(input_ids=ids).logits)


def test_half_precision_and_saving_over_another_model(
    tmp_path: Path, tokenizer_path: Path, build: Build, trained: Callable[..., DeepTalk]
) -> None:
    folder = tmp_path / "model"
    save(build(), folder, tokenizer_path=tokenizer_path, provenance={})
    model = trained("overlay")
    save(model, folder, tokenizer_path=tokenizer_path, provenance={}, dtype=torch.float16)
    assert {t.dtype for t in load_file(folder / "backbone" / "model.safetensors").values()} == {torch.float16}
    for name, tensor in load(folder).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].half().float()), name
    with torch.no_grad():
        model.text_table[0, 0] = 1e6
    with pytest.raises(CheckpointError, match="too large"):
        save(model, folder, tokenizer_path=tokenizer_path, provenance={}, dtype=torch.float16)


def spoil(folder: Path) -> None:
    stock = open_backbone(folder)
    torch.nn.init.zeros_(stock.lm_head.weight)
    save_stock(stock, folder)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another backbone": (lambda f: spoil(f / "backbone"), "has the hash .* was trained with"),
    "no backbone": (
        lambda f: (f / "backbone").rename(f / "gone"),
        "backbone is missing: the backbone of hash",
    ),
    "an edited backbone": (lambda f: edit(f / "backbone", rope_theta=1.0), "has the hash"),
    "no hash": (lambda f: edit(f, backbone_hash=None), "was trained with None"),
    "other copies": (lambda f: edit(f, extra_experts={"sources": [[1], [2]], "routing": "overlay"}), "shape"),
    "no such experts": (
        lambda f: edit(f, extra_experts={"sources": [[8], [2]], "routing": "overlay"}),
        "experts 0 to 7",
    ),
    "no such routing": (lambda f: edit(f, extra_experts={"sources": [[1], [2]], "routing": "x"}), "'x'"),
    "not a mapping": (lambda f: edit(f, extra_experts=3), "key that doesn't fit"),
    "copies and a partition": (lambda f: edit(f, audio_experts=[[1], [2]]), "not both"),
    "text elsewhere": (lambda f: edit(f, routing={"text": "all", "audio": "all"}), "text routed to 'text'"),
    "another fusion": (lambda f: edit(f, fusion="mean8"), "fusion 'sum'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_delta_without_its_backbone_is_refused(
    tmp_path: Path, tokenizer_path: Path, trained: Callable[..., DeepTalk], damage: str
) -> None:
    save(trained("overlay"), tmp_path / "model", tokenizer_path=tokenizer_path, provenance={})
    apply, reason = DAMAGES[damage]
    apply(tmp_path / "model")
    with pytest.raises(CheckpointError, match=reason):
        load(tmp_path / "model")


def test_a_model_without_copies_says_nothing_of_them(build: Build) -> None:
    assert "extra_experts" not in build().config.to_dict()
    assert not build().config.is_lossless


def test_copies_need_undivided_experts_and_the_sum(build: Build) -> None:
    divided = build()
    divided.split(torch.eye(2, 8, dtype=torch.bool))
    extra = ExtraExperts(sources=SOURCES)
    with pytest.raises(ConfigError, match="copies are made once"):
        divided.add_experts(extra)
    means = build("mean8")
    with pytest.raises(ConfigError, match="fusion 'sum'"):
        means.add_experts(extra)
    assert means.backbone.layers.num_experts == 8
    means.add_experts(ExtraExperts(sources=SOURCES, routing="append"))
    model = build()
    model.add_experts(extra)
    with pytest.raises(ConfigError, match="already"):
        model.split(torch.eye(2, 11, dtype=torch.bool))
    assert model.is_audio().tolist() == [[False] * 8 + [True] * 3] * 2
    assert DeepTalkConfig.from_dict(model.config.to_dict()) == model.config
