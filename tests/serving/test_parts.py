"""Parts without a model: sound formats, JSON within limits, words that were heard, slots."""

import asyncio
import tracemalloc

import pytest
import torch

from deeptalk.errors import AudioError, ConfigError
from deeptalk.serving.audio_formats import AudioFormat, SoundIn, SoundOut, encode_pcm
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.service import Admission, FullError
from deeptalk.serving.wire import ClientError, parse_json
from deeptalk.serving.words import heard_words

TONE = 0.5 * torch.sin(torch.arange(24_000) / 9)


@pytest.mark.parametrize(
    "kind", [AudioFormat(), AudioFormat("audio/pcmu", 8000), AudioFormat("audio/pcma", 8000)]
)
def test_sound_survives_each_format_in_any_pieces(kind: AudioFormat):
    whole = SoundOut(kind, sample_rate=24_000)
    data = whole.push(TONE, is_last=True)
    pieces = SoundOut(kind, sample_rate=24_000)
    parts = [pieces.push(part) for part in TONE.split(777)]
    assert b"".join([*parts, pieces.push(torch.zeros(0), is_last=True)]) == data
    heard = SoundIn(kind)
    size = 1000 * kind.bytes_per_sample
    samples = [heard.push(data[start : start + size]) for start in range(0, len(data), size)]
    got = torch.cat([*samples, heard.finish()])
    assert abs(len(got) - 16_000) <= 1
    expected = 0.5 * torch.sin(1.5 * torch.arange(16_000) / 9)
    torch.testing.assert_close(got[500:15_000], expected[500:15_000], atol=0.03, rtol=0.0)


def test_known_codes_of_g711():
    out = {name: SoundOut(AudioFormat(name, 8000), sample_rate=8000) for name in ("audio/pcmu", "audio/pcma")}
    samples = torch.tensor([0.0, 1.0, -1.0])
    assert out["audio/pcmu"].push(samples)[1:] == bytes([0x80, 0x00])
    assert out["audio/pcma"].push(samples)[1:] == bytes([0xAA, 0x2A])


def test_loud_samples_are_clipped_and_half_ones_refused():
    assert encode_pcm(torch.tensor([2.0, -2.0])) == b"\xff\x7f\x01\x80"
    with pytest.raises(AudioError, match="whole"):
        SoundIn(AudioFormat()).push(b"abc")


@pytest.mark.parametrize(
    ("cut_ms", "sound_ms", "is_whole", "kept"),
    [
        (0, 2000, True, ""),
        (2000, 2000, True, "one two three four"),
        (5000, 2000, True, "one two three four"),
        (1999, 2000, True, "one two three"),
        (1000, 2000, True, "one two"),
        (1000, 4000, True, "one"),
        (1000, 2000, False, "one two"),
        (2000, 2000, False, "one two three four"),
        (100, 2000, True, ""),
    ],
)
def test_words_that_were_heard(cut_ms: float, sound_ms: float, is_whole: bool, kept: str):
    assert heard_words("one two three four", cut_ms=cut_ms, sound_ms=sound_ms, is_whole=is_whole) == kept


def test_json_within_limits():
    assert parse_json(b'{"a": ["[[[", 1.5, "\\u00e9 \\" ["]}') == {"a": ["[[[", 1.5, 'é " [']}
    deep = '{"a":' + "[" * 62 + "]" * 62 + "}"
    assert parse_json(deep)
    for text in (
        deep.replace("[]", "[[[]]]"),
        '{"a": "' + "[" * 99,
        '{"a": -Infinity}',
        '{"a": 1e400}',
        "3",
        "",
    ):
        with pytest.raises(ClientError, match="JSON object") as refused:
            parse_json(text)
        assert refused.value.code == "invalid_json"


def test_long_strings_cost_no_more_than_a_few_copies():
    text = '{"audio": "' + "A" * 4_000_000 + '"}'
    tracemalloc.start()
    assert len(parse_json(text)["audio"]) == 4_000_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * len(text)


def test_slots_are_handed_on_in_turn():
    async def main() -> list[str]:
        admission, told = Admission(ServerLimits(max_sessions=1, max_waiting=1, waiting_seconds=60)), []

        async def wait(name: str) -> None:
            async with admission.slot(may_wait=True):
                told.append(name)

        async with admission.slot(may_wait=False):
            with pytest.raises(FullError):
                async with admission.slot(may_wait=False):
                    pass
            second = asyncio.create_task(wait("second"))
            await asyncio.sleep(0)
            with pytest.raises(FullError):
                await wait("third")
            told.append("first")
        await second
        async with admission.slot(may_wait=False):
            leaver = asyncio.create_task(wait("gone"))
            await asyncio.sleep(0)
            leaver.cancel()
            await asyncio.gather(leaver, return_exceptions=True)
        assert admission.num_active == 0
        return told

    assert asyncio.run(main()) == ["first", "second"]


def test_limits_must_make_sense():
    with pytest.raises(ConfigError, match="above 0"):
        ServerLimits(max_sessions=0)
    with pytest.raises(ConfigError, match="below out_high"):
        ServerLimits(out_low=9.0)
