"""The authors' checkpoints become ours and go back, and ours computes what their formulas say."""

import json
from pathlib import Path

import pytest
import torch
from released_formulas import AUD, SETTINGS, logits, make_tensors, write_checkpoint
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from deeptalk.backbone import RouterMask
from deeptalk.cli import app
from deeptalk.errors import CheckpointError, DeepTalkError
from deeptalk.model.released import from_released, to_released
from deeptalk.model.weights import load, save
from deeptalk.streams import Turn, collate, encode_dialogue
from deeptalk.streams.layout import TEXT
from deeptalk.streams.text import ByteTokenizer

AUDIO_EXPERTS = [[1, 4, 6], [0, 2, 7]]


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return make_tensors()


@pytest.mark.parametrize("is_masked", [False, True])
def test_logits_of_all_streams_are_those_of_the_formulas(
    tmp_path: Path, tensors: dict[str, torch.Tensor], is_masked: bool
) -> None:
    source = write_checkpoint(tmp_path / "theirs", tensors, freeze_text_experts=is_masked)
    (tmp_path / "experts.json").write_text(json.dumps(AUDIO_EXPERTS))
    from_released(source, tmp_path / "ours", audio_experts=tmp_path / "experts.json")
    model, generator = load(tmp_path / "ours"), torch.Generator().manual_seed(2)
    layout = model.layout
    mel = torch.randn(8, 32, generator=generator)  # the whole window of the encoder
    codes = torch.randint(32, (3, 7), generator=generator)
    example = encode_dialogue(
        [Turn(role="user", num_speech_frames=16), Turn(role="assistant", text="", codes=codes)],
        tokenizer=Words(),
        layout=layout,
        mode="speaker:F10",
    )
    batch = collate([example], [[mel]], layout=layout, is_encoded=False, stride=1)
    text = torch.tensor([{48: 40, 49: 41, 50: AUD}.get(id_, id_) for id_ in batch.grid[0, TEXT].tolist()])
    frames_at = int((batch.speech_at[0] >= 0).nonzero()[0])
    assert {40, 41, AUD} & set(text.tolist()) == {41, AUD}
    assert int(batch.grid[0, 1].max()) == 40  # F10, the last id that is used
    table = torch.zeros(1, 2, 8, dtype=torch.bool)
    for layer, members in enumerate(AUDIO_EXPERTS):
        table[0, layer, members] = True
    mask = RouterMask(table=table) if is_masked else None
    groups = torch.zeros_like(batch.speech_at) if is_masked else None
    assert model.config.routing == dict.fromkeys(("text", "audio"), "audio" if is_masked else "all")
    assert torch.equal(model.is_audio(), table[0])
    with torch.no_grad():
        ours = model(batch, router_mask=mask, groups=groups).logits
        theirs = logits(
            tensors,
            text,
            batch.grid[0, 1:],
            mel=mel,
            frames_at=frames_at,
            audio_experts=AUDIO_EXPERTS if is_masked else None,
        )
    torch.testing.assert_close(ours.text[0], theirs[0], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(ours.codec[0], theirs[1], atol=2e-5, rtol=1e-5)


class Words(ByteTokenizer):
    """Ids of the tiny vocabulary, whatever the text."""

    def encode(self, text: str) -> list[int]:
        return [10 + ord(letter) % 29 for letter in text]


def test_the_way_back_gives_equal_tensors_and_settings(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    source = write_checkpoint(tmp_path / "theirs", tensors)
    there = from_released(source, tmp_path / "ours")
    back = to_released(tmp_path / "ours", tmp_path / "back")
    again = load_file(tmp_path / "back" / "model.safetensors")
    assert there.num_tensors == back.num_tensors == len(tensors) == len(again)
    assert there.num_parameters == back.num_parameters
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor), name
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    ]


def test_a_head_that_was_not_written_is_not_written_back(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    del tensors["lm_head.weight"]
    from_released(write_checkpoint(tmp_path / "theirs", tensors), tmp_path / "ours")
    to_released(tmp_path / "ours", tmp_path / "back")
    assert load_file(tmp_path / "back" / "model.safetensors").keys() == tensors.keys()


def test_what_was_trained_has_no_way_back(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from_released(write_checkpoint(tmp_path / "theirs", tensors), tmp_path / "ours")
    model = load(tmp_path / "ours")
    with torch.no_grad():
        model.heads.codec[3].weight.add_(1)  # type: ignore[operator]
    save(model, tmp_path / "ours", tokenizer_path=tmp_path / "ours" / "tokenizer.json", provenance={})
    with pytest.raises(CheckpointError, match=r"trained since: heads\.codec\.3\.weight"):
        to_released(tmp_path / "ours", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    odd = [f"model.vision_tower.{number}.weight" for number in range(9)]
    tensors |= {name: torch.zeros(2, 3) for name in odd}
    experts = [f"model.layers.1.mlp.experts.{number}.up_proj.weight" for number in range(8)]
    for name in experts:
        del tensors[name]
    tensors["model.audio_mm_projector.fc_2.weight"] = torch.zeros(7, 64)
    tensors["model.norm.weight"] = torch.zeros(32, dtype=torch.int8)
    with pytest.raises(CheckpointError) as caught:
        from_released(write_checkpoint(tmp_path / "theirs", tensors), tmp_path / "ours")
    told = str(caught.value)
    assert "\n" not in told
    assert "9 without a place" in told
    assert all(f"{name} [2, 3]" in told for name in odd)
    assert "8 missing" in told
    assert all(f"backbone.{name} [16, 32]" in told for name in experts)
    assert "1 of another shape (model.audio_mm_projector.fc_2.weight [7, 64] instead of [20, 64])" in told
    assert "1 no floats (model.norm.weight)" in told
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("settings", "left_out", "reason"),
    [
        ({"text_vocab_size": None}, None, "text_vocab_size can't be used"),
        ({"mm_audio_num_codebook": 6}, None, "mm_audio_num_codebook can't be used"),
        ({"model_type": "lucy-gpt2"}, None, "'gpt2' is not supported"),
        ({"audio_additional_tokens": {"EOA": 33}}, None, "EOA, PAD_A, BOA, ANS_A, ASR stand elsewhere"),
        ({"text_additional_tokens": {"EOT": 40, "PAD_T": 400}}, None, r"ids below 48, got \[40, 400, 9\]"),
        ({"freeze_audio_experts": True}, None, "masks its audio experts: give the file"),
        ({"eos_token_id": None}, None, "eos_token_id can't be used"),
        ({"hidden_size": -4}, None, r"config\.json: .*-4"),
        ({"audio_additional_tokens": 3}, None, r"config\.json: "),
        ({}, "tokenizer.json", r"tokenizer\.json is missing"),
        ({}, "config.json", r"config\.json is missing"),
        ({}, "model.safetensors", "holds pickles"),
        ({}, "model.audio_encoder.conv1.weight", r"No tensor is encoder\.conv1\.weight"),
        ({}, "model.embed_tokens.weight", "lm_head isn't the table"),
    ],
)
def test_what_cannot_be_converted_is_told(
    tmp_path: Path, tensors: dict[str, torch.Tensor], settings: dict, left_out: str | None, reason: str
) -> None:
    left = tensors.pop(left_out, None) if left_out else None
    source = write_checkpoint(tmp_path / "theirs", tensors, **settings)
    if left_out and left is None:
        (source / left_out).unlink()
    with pytest.raises(DeepTalkError, match=reason) as caught:
        from_released(source, tmp_path / "ours")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_model_that_was_never_converted_has_no_way_back(
    tmp_path: Path, build, tokenizer_path: Path
) -> None:
    save(build(), tmp_path / "model", tokenizer_path=tokenizer_path, provenance={})
    with pytest.raises(CheckpointError, match="was not converted"):
        to_released(tmp_path / "model", tmp_path / "back")
    with pytest.raises(CheckpointError, match="no released checkpoint"):
        from_released(tmp_path / "model", tmp_path / "back")


def test_the_settings_are_those_of_the_release(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    yarn = {
        "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707,
        "mscale_all_dim": 0.707, "original_max_position_embeddings": 64,
    }  # fmt: skip
    source = write_checkpoint(tmp_path / "theirs", tensors, rope_scaling=yarn)
    from_released(source, tmp_path / "ours")
    model = load(tmp_path / "ours")
    rope = model.backbone.model.config.rope_parameters
    assert {name: rope[name] for name in ("rope_type", "factor", "mscale_all_dim", "rope_theta")} == {
        "rope_type": "yarn",
        "factor": 40,
        "mscale_all_dim": 0.707,
        "rope_theta": 10_000,
    }
    config = model.config
    assert (config.fusion, config.adapter.stride, config.adapter.kind) == ("mean8", 1, "gated_mlp")
    assert (config.encoder.mode, config.encoder.heads, config.encoder.layers) == ("pad30", 1, 2)
    assert (config.layout.vocab_size, config.layout.audio_rows) == (48, 48)
    assert config.layout.speakers == {"M29": 0, "F10": 1}
    assert config.layout.speaker("M29") == SETTINGS["audio_additional_tokens"]["M29"]
    assert config.audio_experts is None
    assert config.backbone["tie_word_embeddings"] is True
    assert "auto_map" not in config.backbone


def test_the_command_goes_there_and_back(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    def convert(source: Path, out: Path, *more: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["convert", str(source), "--out", str(out), *more])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    source = write_checkpoint(tmp_path / "theirs", tensors)
    there = json.loads(convert(source, tmp_path / "ours", "--json").stdout)
    back = json.loads(convert(tmp_path / "ours", tmp_path / "back", "--json").stdout)
    assert (there.pop("kind"), back.pop("kind")) == ("model", "released")
    assert there | {"folder": ""} == back | {"folder": ""}
    assert list(there) == ["folder", "num_tensors", "num_parameters"]
    assert "num_tensors" in convert(tmp_path / "ours", tmp_path / "again").stdout
    (line,) = convert(source, tmp_path / "ours", code=2).stderr.splitlines()
    assert "exists already" in line
