"""Several processes on the devices that were named give what one gives; a run outlives one that dies."""

import os
import signal
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from deeptalk.codec import SineCodec, save_codec
from deeptalk.decoding import DecodingOptions, Limits, load
from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.generation import Ask, generate
from deeptalk.evaluation.benchmarks.workers import Plan, Workers, check_device
from deeptalk.model import DeepTalk, DeepTalkConfig, save

SETTINGS = {"model": "m1"}
ASKS = [Ask(id=f"q{n}", audio=None, text="ab" * (n % 5 + 1) + str(n)) for n in range(20)]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("model")
    vocab = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.save(str(folder / "made.json"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DeepTalk(DeepTalkConfig.tiny())
    save(model, folder / "tiny", tokenizer_path=folder / "made.json", provenance={"recipe": "none"})
    save_codec(SineCodec(), folder / "tiny" / "codec")
    return Plan(
        model=str(folder / "tiny"),
        mode="speaker:rms",
        longest_seconds=2.0,
        options=DecodingOptions(limits=Limits(max_frames=3, max_text_tokens=4)),
    )


@pytest.mark.slow
def test_two_processes_give_what_one_gives_and_what_was_answered_outlives_them(
    plan: Plan, tmp_path: Path
) -> None:
    alone = plan.generator(load(plan.model))
    expected = generate(ASKS, alone, tmp_path / "one", settings=SETTINGS)
    assert expected is not None
    killed = tmp_path / "killed"
    with Workers(plan, ["cpu", "cpu"], sample_rate=alone.sample_rate) as workers:
        found = generate(ASKS, workers, tmp_path / "two", settings=SETTINGS)
        generate(ASKS[:5], alone, killed, settings=SETTINGS)
        for process in list(workers._pool._processes.values()):
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(DataError, match="goes on from what was answered"):
            generate(ASKS, workers, killed, settings=SETTINGS)
    assert found == expected
    spoken = [one.audio for one in expected if one.audio]
    assert spoken
    for name in spoken:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    seen: list[int] = []
    generate(ASKS, alone, killed, settings=SETTINGS, progress=lambda name, done, total: seen.append(done))
    assert seen[0] == 5


def test_a_device_that_is_not_here() -> None:
    assert check_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match=r"no device 'gpu' here .*; there are: cpu"):
        check_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no device 'cuda:3' here"):
            check_device("cuda:3")
