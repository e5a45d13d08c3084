import json

import pytest

from deeptalk.errors import ConfigError
from deeptalk.streams import StreamLayout, Template
from deeptalk.streams.layout import PAPER_TEMPLATE, num_encoder_frames, num_speech_frames, row_of
from deeptalk.streams.modality import Row

FULL = StreamLayout(
    vocab_size=102_400,
    codebook_size=4096,
    num_specials=64,
    eos_id=100_001,
    bos_id=100_000,
    speakers={"M29": 0, "F10": 1},
)


def test_numbers_of_the_release():
    assert (FULL.text_eot, FULL.text_pad, FULL.text_aud) == (102_400, 102_401, 102_402)
    assert (FULL.eoa, FULL.pad_audio, FULL.boa, FULL.ans, FULL.asr) == (4096, 4097, 4098, 4099, 4100)
    assert (FULL.speaker("M29"), FULL.speaker("F10")) == (4103, 4104)
    assert FULL.audio_rows == 4160
    assert FULL.num_streams == 8
    assert FULL.pad_ids == (102_401, *(4097,) * 7)


def test_modes():
    modes = ("text", "asr", "answer", "speaker:F10")
    assert [FULL.mode_id(mode) for mode in modes] == [4097, 4100, 4099, 4104]
    assert [row_of(mode) for mode in modes] == [Row.TEXT, Row.TEXT, Row.SPEECH, Row.SPEECH]
    with pytest.raises(ConfigError, match="M29"):
        FULL.mode_id("speaker:nobody")
    with pytest.raises(ConfigError, match="asr"):
        FULL.mode_id("dance")


def test_layout_survives_json():
    plain = json.loads(json.dumps(FULL.to_dict()))
    assert StreamLayout.from_dict(plain) == FULL
    plain["template"]["user"] = "Me:{text}\n"
    with pytest.raises(ConfigError, match="hash"):
        StreamLayout.from_dict(plain)
    with pytest.raises(ConfigError, match="bos_id"):
        StreamLayout.from_dict({"vocab_size": 3, "codebook_size": 3, "eos_id": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"eos_id": 300},
        {"codebook_size": 0},
        {"num_specials": 6},
        {"speakers": {"a": 9}},
        {"speakers": {"a": 1, "b": 1}},
    ],
)
def test_bad_layout(change: dict):
    good = {"vocab_size": 300, "codebook_size": 8, "eos_id": 1, "bos_id": 2}
    with pytest.raises(ConfigError):
        StreamLayout(**(good | change))


def test_template():
    assert PAPER_TEMPLATE.around("user") == ("User: ", "\n\n")
    assert PAPER_TEMPLATE.digest != Template().digest
    with pytest.raises(ConfigError, match="user"):
        Template(user="User:")
    with pytest.raises(ConfigError, match="mode token"):
        Template(assistant="{text}")


def test_frame_counts_round_up():
    assert [num_encoder_frames(n) for n in (1, 2, 3, 100)] == [1, 1, 2, 50]
    assert [num_speech_frames(n, stride=4) for n in (1, 4, 5, 50)] == [1, 1, 2, 13]
