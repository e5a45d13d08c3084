import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deeptalk.backbone.banks import fused_state_dict
from deeptalk.backbone.tiny import FAMILIES
from deeptalk.errors import CheckpointError
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.embedding import root_mean_square
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.model.identity import model_hash
from deeptalk.model.weights import load, load_encoder, save, save_encoder
from deeptalk.streams import Batch

Build = Callable[..., DeepTalk]


@pytest.fixture
def folder(tmp_path: Path, build: Build, tokenizer_path: Path) -> Path:
    folder = tmp_path / "model"
    save(build(), folder, tokenizer_path=tokenizer_path, provenance={"recipe": "none"})
    return folder


def test_hashes_are_those_that_files_keep(build: Build) -> None:
    model = build()
    digest = sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for part in ("encoder", "adapter", "backbone", "embedding", "heads"):
        module = getattr(model, part)
        tensors = fused_state_dict(module) if part == "backbone" else module.state_dict()
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    assert model_hash(model) == digest.hexdigest()[:16]


def test_round_trip_is_bit_equal(folder: Path, build: Build, speech_batch: Batch) -> None:
    model, loaded = build(), load(folder)
    assert loaded.config == model.config
    expected, state = model.state_dict(), loaded.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[n], expected[n]) for n in expected)
    with torch.no_grad():
        assert torch.equal(loaded(speech_batch).logits.codec, model(speech_batch).logits.codec)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.encode("there") == [1]
    assert not loaded.training


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_comes_back_from_disk(
    name: str, tmp_path: Path, tokenizer_path: Path, text_batch: Batch
) -> None:
    tiny = DeepTalkConfig.tiny()
    ids = {"vocab_size": tiny.layout.vocab_size, "bos_token_id": 256, "eos_token_id": 257}
    torch.manual_seed(0)
    model = DeepTalk(replace(tiny, backbone={**FAMILIES[name], **ids})).eval()
    for key, buffer in model.named_buffers():
        if key.endswith("e_score_correction_bias"):
            buffer.normal_(std=0.3)
    save(model, tmp_path / "model", tokenizer_path=tokenizer_path, provenance={})
    loaded = load(tmp_path / "model")
    for tensors in ("named_parameters", "named_buffers"):
        expected, found = (dict(getattr(one, tensors)()) for one in (model, loaded))
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())
        assert all(tensor.dtype == expected[key].dtype for key, tensor in found.items())
        assert all(tensor.requires_grad == expected[key].requires_grad for key, tensor in found.items())
    with torch.no_grad():
        assert torch.equal(loaded(text_batch).logits.text, model(text_batch).logits.text)


def test_heads_of_the_alignment_are_not_saved(tmp_path: Path, build: Build, tokenizer_path: Path) -> None:
    model = build()
    plain = model.state_dict().keys()
    model.learn_alignment(word_layer=1, phone_layer=1, num_phones=3, phones_per_frame=2)
    assert model.state_dict().keys() != plain
    save(model, tmp_path, tokenizer_path=tokenizer_path, provenance={})
    assert load(tmp_path).state_dict().keys() == plain


def test_folder_has_hugging_face_layout(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "model.safetensors", "provenance.json", "tokenizer.json"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "deeptalk"
    assert config["architectures"] == ["DeepTalk"]
    assert config["format_version"] == 1
    assert config["dtype"] == "float32"
    tensors = load_file(folder / "model.safetensors")
    assert tensors["backbone.model.layers.1.mlp.experts.gate_up_proj"].shape == (8, 32, 32)
    assert tensors["backbone.lm_head.weight"].shape == (300, 32)


def test_loading_leaves_the_random_numbers_alone(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(folder)
    assert torch.equal(torch.rand(3), expected)


def test_banks_are_stored_in_stock_order(tmp_path: Path, build: Build, tokenizer_path: Path) -> None:
    model = build()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    is_audio = torch.zeros(2, 8, dtype=torch.bool)
    is_audio[:, [6, 2]] = True
    model.split(is_audio)
    save(model, tmp_path / "split", tokenizer_path=tokenizer_path, provenance={})
    whole, banks = load(tmp_path / "split"), load(tmp_path / "split", split=True)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in whole.state_dict().items())
    assert whole.config.audio_experts == ((2, 6), (2, 6))
    for name, tensor in banks.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_how_long_a_sentence_is_stands_in_the_config(folder: Path) -> None:
    assert "sentence_seconds" not in json.loads((folder / "config.json").read_text())
    plain = DeepTalkConfig.tiny()  # hears 1.28 s at a time
    assert (plain.longest_part_seconds(9.0), plain.is_one_sentence(9.0)) == (1.28, True)
    config = replace(plain, sentence_seconds=0.8)
    assert DeepTalkConfig.from_dict(config.to_dict()) == config
    assert [config.longest_part_seconds(seconds) for seconds in (1.2, 1.21)] == [1.28, 0.8]
    long = replace(config, encoder=replace(plain.encoder, max_positions=4_000), sentence_seconds=50.0)
    assert [long.longest_part_seconds(seconds) for seconds in (75.0, 75.1)] == [30.0, 30.0]


def test_half_precision_on_disk(tmp_path: Path, build: Build, tokenizer_path: Path) -> None:
    model = build()
    save(model, tmp_path / "half", tokenizer_path=tokenizer_path, provenance={}, dtype=torch.float16)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = load(tmp_path / "half").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor.half().float()), name
    with torch.no_grad():
        model.text_table[0, 0] = 1e6
    with pytest.raises(CheckpointError, match="too large"):
        save(model, tmp_path / "half", tokenizer_path=tokenizer_path, provenance={}, dtype=torch.float16)
    load(tmp_path / "half")


def test_saving_again_replaces_weights_and_keeps_other_files(
    folder: Path, build: Build, tokenizer_path: Path
) -> None:
    (folder / "codec").mkdir()
    (folder / "README.md").write_text("card")
    model = build()
    torch.nn.init.zeros_(model.adapter.body.down.weight)  # type: ignore[union-attr, arg-type]
    save(model, folder, tokenizer_path=folder / "tokenizer.json", provenance={"recipe": "again"})
    assert not load(folder).adapter.body.down.weight.any()  # type: ignore[union-attr, operator]
    assert (folder / "codec").is_dir()
    assert (folder / "README.md").read_text() == "card"
    assert json.loads((folder / "provenance.json").read_text()) == {"recipe": "again"}


def test_tied_tables_are_stored_once(tmp_path: Path, tokenizer_path: Path) -> None:
    config = DeepTalkConfig.tiny()
    tied = replace(config, backbone={**config.backbone, "tie_word_embeddings": True})
    model = DeepTalk(tied)
    save(model, tmp_path / "tied", tokenizer_path=tokenizer_path, provenance={})
    stored = load_file(tmp_path / "tied" / "model.safetensors")
    assert "backbone.model.embed_tokens.weight" in stored
    assert "backbone.lm_head.weight" not in stored
    loaded = load(tmp_path / "tied")
    assert loaded.backbone.lm_head.weight is loaded.text_table
    assert torch.equal(loaded.text_table, model.text_table)


def test_encoder_alone(tmp_path: Path) -> None:
    encoder = SpeechEncoder(EncoderConfig.tiny())
    save_encoder(encoder, tmp_path, provenance={"steps": 3})
    loaded = load_encoder(tmp_path)
    assert loaded.settings == encoder.settings
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in encoder.state_dict().items())
    with pytest.raises(CheckpointError, match="deeptalk_encoder"):
        load(tmp_path)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def edit_backbone(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit_config(folder, backbone=config["backbone"] | changes)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def write_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))


HEAD = "heads.codec.0.weight"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle": (write_pickle, r"pytorch_model\.bin is a pickle"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
    "config not JSON": (
        lambda f: (f / "config.json").write_text("{"),
        r"config\.json is not readable as JSON",
    ),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "must hold a JSON object, got a list"),
    "tokenizer not JSON": (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer\.json is not"),
    "truncated": (truncate, r"model\.safetensors is damaged"),
    "garbage": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 64), r"model\.safetensors is damaged"),
    "code": (lambda f: edit_config(f, auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "code in the backbone": (
        lambda f: edit_config(f, backbone={"model_type": "deepseek_v2", "auto_map": {}}),
        "auto_map",
    ),
    "code deep inside": (
        lambda f: edit_backbone(f, rope_parameters={"more": [{"auto_map": {"AutoModel": "x.Y"}}]}),
        "auto_map",
    ),
    "version": (lambda f: edit_config(f, format_version=2), "format version 2, this program reads 1"),
    "foreign": (lambda f: edit_config(f, model_type="llama"), "model_type 'llama'"),
    "fusion": (lambda f: edit_config(f, fusion="max"), r"config\.json: fusion must be one of"),
    "routing to nowhere": (lambda f: edit_config(f, routing={"text": "foo", "audio": "all"}), "'foo'"),
    "routing of nobody": (lambda f: edit_config(f, routing={}), r"routing must give .* got \{\}"),
    "routing a word": (lambda f: edit_config(f, routing="foo"), r"config\.json: "),
    "key of wrong type": (lambda f: edit_config(f, mel=3), r"config\.json: "),
    "no sentence": (lambda f: edit_config(f, sentence_seconds=0), "sentence_seconds must be finite and at"),
    "sentences of words": (lambda f: edit_config(f, sentence_seconds="long"), r"config\.json: "),
    "backbone of another family": (
        lambda f: edit_config(f, backbone={"model_type": "gpt2"}),
        "'gpt2' is not supported",
    ),
    "sizes beyond all memory": (
        lambda f: edit_config(
            f,
            backbone={
                "model_type": "deepseek_v2",
                "vocab_size": 300,
                "hidden_size": 32,
                "num_experts_per_tok": 2,
            },
        ),
        r"model\.safetensors doesn't fit its config\.json",
    ),
    "negative size": (lambda f: edit_backbone(f, hidden_size=-4), r"config\.json: .*-4"),
    "more experts than there are": (
        lambda f: edit_backbone(f, num_experts_per_tok=99),
        r"config\.json: a token must use 1 to 8 experts, got 99",
    ),
    "partition": (lambda f: edit_config(f, audio_experts=[[1], [99]]), "audio_experts must name"),
    "shape": (
        lambda f: edit_tensors(f, lambda t: t.update({HEAD: torch.zeros(2, 32)})),
        r"1 of another shape \(heads\.codec\.0\.weight \[2, 32\] instead of \[48, 32\]\)",
    ),
    "missing": (lambda f: edit_tensors(f, lambda t: t.pop(HEAD)), r"1 missing \(heads\.codec\.0\.weight\)"),
    "unexpected": (
        lambda f: edit_tensors(f, lambda t: t.update(extra=torch.zeros(1))),
        r"1 not expected \(extra\)",
    ),
    "not a number": (
        lambda f: edit_tensors(f, lambda t: t[HEAD].fill_(float("nan"))),
        r"heads\.codec\.0\.weight .* not finite",
    ),
    "integers": (
        lambda f: edit_tensors(f, lambda t: t.update({HEAD: torch.zeros(48, 32, dtype=torch.int8)})),
        "finite floats",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_or_foreign_folder_is_refused(folder: Path, damage: str) -> None:
    apply, reason = DAMAGES[damage]
    apply(folder)
    with pytest.raises(CheckpointError, match=reason) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_path_that_is_no_model_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no model 'nowhere'; give pocket"):
        load("nowhere")
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a pickle"):
        load(tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="not a folder"):
        load(folder / "model.safetensors")


def test_large_models_are_sharded(folder: Path, build: Build) -> None:
    from huggingface_hub import save_torch_state_dict

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_torch_state_dict(tensors, folder, max_shard_size=40_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    expected = build().state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in load(folder).state_dict().items())
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))
    with pytest.raises(CheckpointError, match="outside its folder"):
        load(folder)


def test_a_levelled_adapter_is_saved_and_begins_at_the_size_of_text(
    tmp_path: Path, build: Build, tokenizer_path: Path, speech_batch: Batch
) -> None:
    plain = build()
    model = DeepTalk(replace(plain.config, adapter=replace(plain.config.adapter, levelled=True))).eval()
    rms = root_mean_square(model.text_table)
    with torch.no_grad():
        frames = model.speech_frames(speech_batch)
        assert frames is not None
        assert root_mean_square(frames[0, 0]) == pytest.approx(rms, rel=1e-3)
        assert model.adapter.level is not None
        model.adapter.level.mul_(torch.linspace(1, 2, len(model.adapter.level)))
    save(model, tmp_path, tokenizer_path=tokenizer_path, provenance={})
    loaded = load(tmp_path)
    assert loaded.config.adapter.levelled
    with torch.no_grad():
        assert torch.equal(loaded(speech_batch).logits.codec, model(speech_batch).logits.codec)
    fresh = DeepTalk(loaded.config)
    rms = root_mean_square(fresh.text_table)
    assert fresh.adapter.level is not None
    assert fresh.adapter.level.tolist() == pytest.approx([rms] * len(fresh.adapter.level))


def test_a_worded_adapter_keeps_what_hears_the_words(
    tmp_path: Path, build: Build, tokenizer_path: Path, speech_batch: Batch
) -> None:
    plain = build()
    config = replace(plain.config, adapter=replace(plain.config.adapter, levelled=True, worded=True))
    model = DeepTalk(config).eval()
    assert model.hearing is not None
    torch.nn.init.normal_(model.hearing.nothing.weight)
    save(model, tmp_path, tokenizer_path=tokenizer_path, provenance={})
    loaded = load(tmp_path)
    assert loaded.hearing is not None
    with torch.no_grad():
        assert torch.equal(loaded(speech_batch).logits.codec, model(speech_batch).logits.codec)
        same = model_hash(model)
        assert model_hash(loaded) == same
        loaded.hearing.log_scale.add_(1.0)
    assert model_hash(loaded) != same
