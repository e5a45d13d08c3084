"""The pocket pipeline with tiny models, every stage for two steps, from text and sound to a whole model."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from deeptalk.codec import PocketCodec, SineCodec, load_codec, save_codec
from deeptalk.errors import CheckpointError, ConfigError, DeepTalkError
from deeptalk.experts import random_partition, write_partition
from deeptalk.model.encoder import SpeechEncoder
from deeptalk.model.weights import load, save_encoder
from deeptalk.recipes import RECIPES
from deeptalk.training.metrics import read_metrics
from deeptalk.training.override import override
from deeptalk.training.recipe import AtRandom, Recipe, Source
from deeptalk.training.run import is_finished, open_stage, run_stage
from deeptalk.training.stage import Places, silent
from deeptalk.training.stage_dialogue import HEARD, SPOKEN

STAGES = ("pocket-align", "pocket-audio-experts", "pocket-text-experts", "pocket-joint")
Complete = Callable[[Recipe], Path]


def tiny(name: str) -> Recipe:
    return dataclasses.replace(RECIPES[name].tiny(), precision="fp32")


def of_all_kinds(mixture: tuple[Source, ...]) -> tuple[Source, ...]:
    """Sources that take all their records: those of the tests have no categories."""
    return tuple(dataclasses.replace(source, only=()) for source in mixture)


def dialogue(name: str) -> Recipe:
    recipe = dataclasses.replace(tiny(name), average=None, encoded_passes=1)
    recipe = dataclasses.replace(recipe, mixture=of_all_kinds(recipe.mixture))
    if recipe.partition is not None:
        partition = dataclasses.replace(recipe.partition, num_audio_experts=3, num_batches=2)
        recipe = dataclasses.replace(recipe, partition=partition)
    return recipe


def pretrain(complete: Complete, root: Path) -> None:
    """A language model by its recipe, and a random encoder in place of a trained one."""
    hearing, text, _ = RECIPES["pocket-align"].starts_from
    complete(dataclasses.replace(tiny(text), starts_from=()))
    encoder = SpeechEncoder(RECIPES[hearing].model.tiny().encoder)
    save_encoder(encoder, root / hearing / "model", provenance={})


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def moved(before: Path, after: Path) -> set[str]:
    old, new = tensors(before), tensors(after)
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_from_nothing_to_a_model_that_loads(complete: Complete, root: Path):
    pretrain(complete, root)
    results = [complete(dialogue(name)) for name in STAGES]
    align, audio, text, joint = results

    assert {name.split(".")[0] for name in moved(align, audio)} <= {"backbone", "embedding", "heads"}
    for before, after, bank in ((align, audio, "audio"), (audio, text, "text")):
        table = load(after).is_audio()
        for name in moved(before, after) & {n for n in tensors(after) if n.startswith("backbone")}:
            assert ".mlp.experts." in name
            layer = int(name.split("layers.")[1].split(".")[0]) - 1  # the first layer is dense
            changed = (tensors(before)[name] != tensors(after)[name]).flatten(1).any(1)
            assert not (changed & (~table[layer] if bank == "audio" else table[layer])).any()
            assert changed.any()
    assert not any(name.startswith(("encoder", "adapter", "embedding")) for name in moved(audio, text))
    assert any("self_attn" in name for name in moved(text, joint))
    assert not any(name.startswith("encoder") for name in moved(text, joint))

    model = load(joint)
    assert model.config.audio_experts is not None
    assert load_codec(joint / "codec").codebook_size == model.layout.codebook_size
    assert json.loads((joint / "recipe.json").read_text())["starts_from"]["pocket-text-experts"] is not None
    assert json.loads((root / "pocket-audio-experts" / "run" / "partition.json").read_text())["load"]
    steps = read_metrics(root / "pocket-joint" / "run" / "metrics.jsonl")
    assert [line["step"] for line in steps] == [1, 2]
    assert "exact_text" in steps[-1]["evaluation"]

    steps += read_metrics(root / "pocket-audio-experts" / "run" / "metrics.jsonl")
    assert {"heard", "words", "phones"} <= {name for line in steps for name in line["losses"]}
    assert not any(name.startswith("alignment.") for name in tensors(joint))  # they only help training
    assert {"adapter.level", "hearing.log_scale"} <= tensors(joint).keys()


def test_a_finished_recipe_yields_nothing_and_another_of_its_name_is_refused(
    complete: Complete, root: Path, data: Path
):
    recipe = tiny("pocket-text")
    complete(recipe)
    assert list(run_stage(recipe, root=root, data=data)) == []
    with pytest.raises(ConfigError, match="another recipe"):
        list(run_stage(override(recipe, "seed=1"), root=root, data=data))


def test_a_result_from_before_a_setting_existed_is_finished(root: Path):
    places = Places(root=root, data=root)
    recipe = dataclasses.replace(RECIPES["pocket-text"], num_steps=None, epochs=2)
    values = dataclasses.replace(recipe, num_steps=7, epochs=None).to_dict()
    del values["max_bad_steps"]
    note = places.result(recipe.name) / "recipe.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"recipe": values, "asked_hash": "of then", "asked_epochs": 2}))
    assert is_finished(recipe, places)
    with pytest.raises(ConfigError, match="another recipe"):
        is_finished(dataclasses.replace(recipe, epochs=3), places)


@pytest.mark.parametrize("name", ["pocket-text", "pocket-joint"])
def test_an_interrupted_stage_ends_as_if_it_had_not_been(
    name: str, complete: Complete, root: Path, data: Path
):
    recipe = dataclasses.replace(tiny(name), num_steps=4, average=0.9)
    if name == "pocket-joint":  # Muon, codes of chance, words and phones
        pretrain(complete, root)
        complete(dialogue("pocket-align"))
        mixture = of_all_kinds(recipe.mixture)
        with_codes = tuple(source for source in mixture if source.task == "speech_to_speech")
        recipe = dataclasses.replace(recipe, starts_from=("pocket-align",), mixture=with_codes)
    straight = complete(dataclasses.replace(recipe, name="straight"))
    torch.manual_seed(0)
    first = run_stage(recipe, root=root, data=data)
    next(first)
    next(first)
    first.close()
    torch.manual_seed(5)
    assert [report.step for report in run_stage(recipe, root=root, data=data)] == [3, 4]
    assert not moved(straight, root / recipe.name / "model")


def test_a_run_begun_anew_forgets_the_old_one(complete: Complete, root: Path, data: Path):
    recipe = tiny("pocket-text")
    complete(dataclasses.replace(recipe, num_steps=3))
    torch.manual_seed(0)
    steps = [report.step for report in run_stage(recipe, root=root, data=data, resume=False)]
    assert steps == [1, 2]
    folder = root / recipe.name / "run"
    assert [path.name for path in sorted(folder.glob("step-*"))] == ["step-00000001", "step-00000002"]
    assert [line["step"] for line in read_metrics(folder / "metrics.jsonl")] == [1, 2]


def interrupt(recipe: Recipe, root: Path, data: Path, **options: bool) -> None:
    """Leaves a run after its first step."""
    stopped = run_stage(recipe, root=root, data=data, **options)
    next(stopped)
    stopped.close()


def kept(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_anew_deletes_an_interrupted_run(root: Path, data: Path):
    recipe = tiny("pocket-text")
    interrupt(recipe, root, data)
    folder = root / recipe.name
    before = kept(folder)
    with pytest.raises(ConfigError, match=r"interrupted after step 1; .*--resume.*--anew"):
        list(run_stage(recipe, root=root, data=data, resume=False))
    with pytest.raises(ConfigError, match="give one of them"):
        list(run_stage(recipe, root=root, data=data, anew=True))
    assert kept(folder) == before
    reports = run_stage(recipe, root=root, data=data, resume=False, anew=True)
    assert [report.step for report in reports] == [1, 2]
    assert [path.name for path in sorted(folder.iterdir())] == ["model", "run"]


def test_a_stage_that_cannot_open_deletes_nothing(root: Path, data: Path, tmp_path: Path):
    recipe = tiny("pocket-text")
    interrupt(recipe, root, data)
    before = kept(root / recipe.name)
    (half := tmp_path / "half").mkdir()
    shutil.copyfile(data / "tokenizer.json", half / "tokenizer.json")
    cases = (
        (recipe, tmp_path / "nothing", "no such tokenizer; make the data first"),
        (recipe, half, "no such manifest"),
        (override(recipe, "trains=nothing"), data, "matches no parameter"),
    )
    for broken, folder, reason in cases:
        with pytest.raises(DeepTalkError, match=reason):
            list(run_stage(broken, root=root, data=folder, resume=False, anew=True))
        assert kept(root / recipe.name) == before


def test_a_finished_stage_trains_again_and_goes_on_after_an_interruption(
    complete: Complete, root: Path, data: Path
):
    recipe = tiny("pocket-text")
    complete(recipe)
    interrupt(recipe, root, data, resume=False)
    places = Places(root=root, data=data)
    assert not is_finished(recipe, places)  # the result is that of the run before
    with pytest.raises(ConfigError, match="unfinished run"):
        list(run_stage(recipe, root=root, data=data, resume=False))
    assert [report.step for report in run_stage(recipe, root=root, data=data)] == [2]
    assert is_finished(recipe, places)


def test_stage_2_1_without_the_masked_experts_gives_the_same_checkpoint(
    complete: Complete, root: Path, data: Path
):
    pretrain(complete, root)
    align = complete(dialogue("pocket-align"))
    recipe = dialogue("pocket-audio-experts")
    recipe = dataclasses.replace(recipe, partition=dataclasses.replace(recipe.partition, num_audio_experts=2))
    masked = complete(recipe)
    places = Places(root=root, data=data)
    fresh = open_stage(dataclasses.replace(recipe, name="fresh"), places, dense=True)
    names = {name for name, _ in fresh.model.named_parameters() if ".experts." in name}
    assert names
    assert all(".experts.audio." in name for name in names)

    # checkpoints of both forms hold the same tensors, so that one goes on where the other stopped
    changing = dataclasses.replace(recipe, name="changing")
    stopped = run_stage(changing, root=root, data=data)
    next(stopped)
    stopped.close()
    assert [report.step for report in run_stage(changing, root=root, data=data, dense=True)] == [2]

    result = places.result("changing")
    assert sorted(path.name for path in result.iterdir()) == sorted(path.name for path in masked.iterdir())
    table = load(result).is_audio()
    assert torch.equal(table, load(masked).is_audio())
    assert moved(align, result) == moved(align, masked)
    expected, before = tensors(masked), tensors(align)
    for name, tensor in tensors(result).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4)
        if ".mlp.experts." in name:
            members = table[int(name.split("layers.")[1].split(".")[0]) - 1]
            assert torch.equal((tensor != before[name]).flatten(1).any(1), members)


@pytest.mark.parametrize("name", ["pocket-align", "pocket-text-experts", "pocket-text"])
def test_other_stages_need_all_experts(name: str, root: Path, data: Path):
    with pytest.raises(ConfigError, match=r"only stage 2\.1 trains without"):
        list(run_stage(dialogue(name), root=root, data=data, dense=True))
    assert not (root / name).exists()


def test_a_stage_asks_for_the_one_before(root: Path, data: Path):
    with pytest.raises(CheckpointError, match="train the recipe 'pocket-align' first"):
        list(run_stage(dialogue("pocket-audio-experts"), root=root, data=data))


def test_what_is_encoded_before_the_first_step_is_told(
    complete: Complete, root: Path, data: Path, tmp_path: Path
):
    pretrain(complete, root)
    fresh = tmp_path / "fresh"
    shutil.copytree(data, fresh, ignore=shutil.ignore_patterns("codes", "encoded"))
    told: dict[str, list[tuple[int, int]]] = {}

    def tell(name: str, done: int, total: int) -> None:
        told.setdefault(name, []).append((done, total))

    places = Places(root=root, data=fresh)
    open_stage(dialogue("pocket-align"), places, progress=tell)
    assert list(told) == [f"codes of {part}" for part in SPOKEN] + [f"encoding {part}" for part in HEARD]
    assert all(steps[-1][0] == steps[-1][1] for steps in told.values())
    told.clear()
    open_stage(dialogue("pocket-align"), places, progress=tell)
    assert not told


@pytest.mark.parametrize("is_main", [True, False])
def test_the_main_process_alone_tells_what_it_encodes(
    is_main: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given: list[object] = []

    def stop(*_: object, progress: object, **__: object) -> None:
        given.append(progress)
        raise ConfigError("enough")

    def tell(name: str, done: int, total: int) -> None: ...

    accelerator: Any = SimpleNamespace(
        is_main_process=is_main,
        num_processes=2,
        process_index=0 if is_main else 1,
        wait_for_everyone=lambda: None,
        main_process_first=nullcontext,
        device=torch.device("cpu"),
    )
    monkeypatch.setattr("deeptalk.training.run.open_stage", stop)
    with pytest.raises(ConfigError, match="enough"):
        list(run_stage(tiny("pocket-text"), root=tmp_path, accelerator=accelerator, progress=tell))
    assert given == [tell if is_main else silent]


def test_experts_by_lot_stay_the_same_when_resumed(complete: Complete, root: Path, data: Path):
    pretrain(complete, root)
    complete(dialogue("pocket-align"))
    recipe = dataclasses.replace(
        dialogue("pocket-audio-experts"), partition=AtRandom(num_audio_experts=3, seed=4)
    )
    stopped = run_stage(recipe, root=root, data=data)
    next(stopped)
    stopped.close()
    before = (root / recipe.name / "run" / "partition.json").read_bytes()
    list(run_stage(recipe, root=root, data=data))
    assert (root / recipe.name / "run" / "partition.json").read_bytes() == before


def test_a_partition_of_another_backbone_is_refused(complete: Complete, root: Path, data: Path):
    pretrain(complete, root)
    complete(dialogue("pocket-align"))
    recipe, places = dialogue("pocket-audio-experts"), Places(root=root, data=data)
    foreign = random_partition(0, num_layers=7, num_experts=9, num_audio_experts=4, experts_per_token=3)
    path = places.run(recipe.name) / "partition.json"
    write_partition(path, foreign, options={}, provenance={})
    with pytest.raises(ConfigError, match=r"another backbone's experts \(7 layers of 9 experts, 3 a token;"):
        open_stage(recipe, places)


def test_a_codec_of_other_codes_and_a_stage_of_two_others_are_refused(complete: Complete, root: Path):
    pretrain(complete, root)
    align = dialogue("pocket-align")
    save_codec(SineCodec(num_codebooks=7, codebook_size=64), root / "small-codec" / "model")
    small = dataclasses.replace(align, starts_from=(*align.starts_from[:2], "small-codec"))
    with pytest.raises(ConfigError, match="7 codebooks of 512 codes, the codec has 7 of 64"):
        complete(small)
    joint = dataclasses.replace(dialogue("pocket-joint"), starts_from=("pocket-align", "small-codec"))
    with pytest.raises(ConfigError, match="one earlier stage"):
        complete(joint)


def test_the_codec_trains_and_opens(complete: Complete, tmp_path: Path):
    recipe = override(tiny("pocket-codec-ahead"), "max_positions=4", "batch_size=20000")
    codec = load_codec(complete(dataclasses.replace(recipe, name="other-codec")))
    assert isinstance(codec, PocketCodec)
    assert codec.encode(torch.zeros(1, 4 * codec.samples_per_frame)).shape[1] == 7


def test_a_codec_goes_on_from_another_and_its_decoder_alone_leaves_the_codes(complete: Complete):
    recipe = override(tiny("pocket-codec-ahead"), "max_positions=4", "batch_size=20000")
    first = complete(dataclasses.replace(recipe, name="first-codec"))
    more = dataclasses.replace(
        recipe, name="second-codec", starts_from=("first-codec",), trains=("decoder.*",), num_steps=1
    )
    changed = moved(first, complete(more))
    assert changed
    assert all(name.startswith("decoder") for name in changed)
    other = dataclasses.replace(more, name="third-codec", model=RECIPES["pocket-codec-ahead"].model)
    with pytest.raises(ConfigError, match="different shape"):
        complete(other)


def test_micro_batches_that_cannot_be_shared_evenly_are_refused(data: Path, tmp_path: Path):
    class Three:
        num_processes = 3
        process_index = 0
        is_main_process = True

    recipe = dataclasses.replace(tiny("pocket-text"), accumulate=4)
    with pytest.raises(ConfigError, match="3 processes can't share the 4 micro-batches"):
        list(run_stage(recipe, root=tmp_path, data=data, shared=True, accelerator=Three()))  # type: ignore
