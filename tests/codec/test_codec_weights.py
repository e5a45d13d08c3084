import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from deeptalk.codec import PocketCodec, SineCodec, SnacCodec, load_codec, save_codec
from deeptalk.codec.losses import log_mel_error
from deeptalk.errors import CheckpointError


def read(folder):
    return json.loads((folder / "config.json").read_text())


def write(folder, config):
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["tiny_pocket", "tiny_snac"])
def test_a_saved_codec_is_the_same_codec(name, request, tmp_path):
    codec = request.getfixturevalue(name)
    save_codec(codec, tmp_path / "codec")
    files = {path.name: path.stat().st_mode for path in (tmp_path / "codec").iterdir()}
    assert set(files) == {"config.json", "model.safetensors"}
    assert len(set(files.values())) == 1  # the weights are as readable as any new file
    back = load_codec(tmp_path / "codec")
    assert type(back) is type(codec)
    assert back.config == codec.config
    codes = torch.randint(0, 32, (1, 7, 3))
    assert torch.equal(back.decode(codes), codec.decode(codes))
    wave = torch.randn(1, 5000) * 0.1
    assert torch.equal(back.encode(wave), codec.encode(wave))


def test_networks_that_tell_phones_are_not_saved(tiny_pocket, tmp_path):
    plain = tiny_pocket.state_dict().keys()
    codec = copy.deepcopy(tiny_pocket)
    codec.learn_phones(5)
    assert codec.state_dict().keys() != plain
    save_codec(codec, tmp_path)
    assert load_codec(tmp_path).state_dict().keys() == plain


def test_sine_codec_is_saved_too(tmp_path):
    save_codec(SineCodec(num_codebooks=3, codebook_size=9, samples_per_frame=64), tmp_path)
    back = load_codec(tmp_path)
    assert isinstance(back, SineCodec)
    assert (back.num_codebooks, back.codebook_size, back.samples_per_frame) == (3, 9, 64)


def test_half_precision_on_disk_loads_as_float32(tiny_pocket, tmp_path):
    save_codec(tiny_pocket, tmp_path, dtype=torch.float16)
    back = load_codec(tmp_path)
    assert isinstance(back, PocketCodec)
    assert all(p.dtype == torch.float32 for p in back.parameters())
    codes = torch.zeros(1, 7, 2, dtype=torch.long)
    error = log_mel_error(back.decode(codes), tiny_pocket.decode(codes), sample_rate=24_000)
    assert float(error) < 0.05


def test_training_statistics_are_not_saved_and_training_goes_on(tiny_pocket, tmp_path):
    save_codec(tiny_pocket, tmp_path)
    back = load_codec(tmp_path)
    assert isinstance(back, PocketCodec)
    before = back.quantiser.levels[0].vectors.clone()
    back.quantiser.step.fill_(100)
    back.train().quantiser.levels[0].rest()
    back.quantiser.levels[0].follow(before[:4], torch.arange(4), torch.Generator())
    torch.testing.assert_close(back.quantiser.levels[0].vectors[:4], before[:4])


def test_the_published_layout_of_snac_is_read_but_not_its_pickle(tiny_snac, tmp_path):
    config = {
        "sampling_rate": 24000, "encoder_dim": 2, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 16,
        "decoder_rates": [8, 8, 4, 2], "attn_window_size": None, "codebook_size": 32, "codebook_dim": 4,
        "vq_strides": [4, 2, 1], "noise": True, "depthwise": True,
    }  # fmt: skip
    write(tmp_path, config)
    torch.save(tiny_snac.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickle.*deeptalk convert"):
        load_codec(tmp_path)
    save_file(tiny_snac.model.state_dict(), tmp_path / "model.safetensors")
    codec = load_codec(tmp_path)
    assert isinstance(codec, SnacCodec)
    codes = torch.randint(0, 32, (1, 7, 3))
    assert torch.equal(codec.decode(codes), tiny_snac.decode(codes))


def test_missing_and_damaged_folders_are_refused(tiny_pocket, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_codec(tmp_path)
    save_codec(tiny_pocket, tmp_path)
    weights = tmp_path / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_codec(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_codec(tmp_path)
    torch.save(tiny_pocket.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle"):
        load_codec(tmp_path)
    (tmp_path / "config.json").write_text("not json")
    with pytest.raises(CheckpointError, match="not JSON"):
        load_codec(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format_version": 99}, "format 99"),
        ({"codec": "opus"}, "pocket, snac or sine"),
        ({"auto_map": {"x": "y"}}, "unknown settings auto_map"),
        ({"decoder_width": 32}, "shape"),
        ({"decoder_layers": 2}, "missing"),
        ({"kernel": 4}, "kernel"),
        ({"hops_per_latent": -1}, "hops_per_latent must be at least 1, got -1"),
        ({"encoder_width": 0}, "encoder_width must be at least 1, got 0"),
        ({"decoder_width": -1}, "decoder_width must be at least 1, got -1"),
        ({"fine_width": 0}, "fine_width must be at least 1, got 0"),
        ({"quantiser": {"width": -1}}, r"config\.json: .*-1"),
        ({"vocoder": {"hop": "many"}}, r"config\.json: "),
    ],
)
def test_foreign_configurations_are_refused(tiny_pocket, tmp_path, change, complaint):
    save_codec(tiny_pocket, tmp_path)
    write(tmp_path, {**read(tmp_path), **change})
    with pytest.raises(CheckpointError, match=complaint) as caught:
        load_codec(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_configuration_without_a_version_is_refused(tiny_pocket, tmp_path):
    save_codec(tiny_pocket, tmp_path)
    write(tmp_path, {key: value for key, value in read(tmp_path).items() if key != "format_version"})
    with pytest.raises(CheckpointError, match="format None is not 1"):
        load_codec(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1])
def test_weights_that_are_no_finite_floats_are_refused(tiny_pocket, tmp_path, bad):
    save_codec(tiny_pocket, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["decoder.enter.bias"] = torch.full_like(
        tensors["decoder.enter.bias"], bad, dtype=torch.tensor(bad).dtype
    )
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"decoder\.enter\.bias holds NaN, infinity or"):
        load_codec(tmp_path)


def test_weights_too_large_for_their_type_are_not_written(tiny_pocket, tmp_path):
    codec = copy.deepcopy(tiny_pocket)
    with torch.no_grad():
        codec.decoder.enter.bias[0] = 1e6
    with pytest.raises(CheckpointError, match=r"decoder\.enter\.bias can't be stored as torch\.float16"):
        save_codec(codec, tmp_path / "codec", dtype=torch.float16)
    assert not (tmp_path / "codec").exists()
    save_codec(codec, tmp_path / "codec")
    assert load_codec(tmp_path / "codec").decoder.enter.bias[0] == 1e6  # pyright: ignore[reportAttributeAccessIssue]
