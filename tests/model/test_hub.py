"""The Auto classes open a model, and what is written for the hub opens again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, AutoTokenizer

from deeptalk.codec import SineCodec, save_codec
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model import hub
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.hub import DeepTalkForConditionalGeneration
from deeptalk.model.weights import load, save
from deeptalk.streams import Batch

PROVENANCE = {
    "recipe": {"name": "joint", "paper": "section 3.3, stage 3"},
    "recipe_hash": "abc123",
    "manifests": {"dialogues": "f00d"},
    "starts_from": {"align": "beef"},
}
SCORES = {
    "scores": {
        "facts|spoken": {"value": 81.25, "unit": "%", "total": 16, "low": 57.0, "high": 93.4},
        "first_audio": {"value": None, "unit": "ms"},
    }
}


@pytest.fixture
def folder(tmp_path: Path, build: Callable[..., DeepTalk]) -> Path:
    """A divided model with codec, history and evaluation, as a stage leaves it."""
    tokenizer = Tokenizer(
        models.BPE(vocab={b: n for n, b in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    tokenizer.save(str(tmp_path / "tokens.json"))
    model = build()
    model.split(torch.arange(8).expand(2, 8) < 3)
    save(model, tmp_path / "model", tokenizer_path=tmp_path / "tokens.json", provenance=PROVENANCE)
    save_codec(SineCodec(), tmp_path / "model" / "codec")
    (tmp_path / "model" / "evaluation.json").write_text(json.dumps(SCORES))
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n\nIt says hello.\n")
    return tmp_path / "model"


def check_same(ours: DeepTalk, expected: DeepTalk) -> None:
    assert ours.config == expected.config
    state = ours.state_dict()
    assert state.keys() == expected.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())


def test_auto_classes_open_it_without_code_of_its_own(folder: Path, text_batch: Batch) -> None:
    config = AutoConfig.from_pretrained(folder)
    assert config.deeptalk == load(folder).config
    opened = AutoModel.from_pretrained(folder, local_files_only=True)
    assert isinstance(opened, DeepTalkForConditionalGeneration)
    assert (opened.folder, type(opened.codec)) == (folder, SineCodec)
    assert not opened.training
    check_same(opened.model, load(folder))
    with torch.no_grad():
        expected = load(folder)(text_batch).logits
        assert torch.equal(opened(text_batch).logits.codec, expected.codec)
    drawn = AutoModel.from_config(config)
    assert drawn.model.config == opened.model.config


def test_weights_come_in_the_dtype_that_is_asked_for(folder: Path) -> None:
    half = DeepTalkForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.model.text_table.dtype == torch.bfloat16
    half.save_pretrained(folder.parent / "half")
    for asked, expected in (("auto", torch.bfloat16), (None, torch.float32), ("float16", torch.float16)):
        again = DeepTalkForConditionalGeneration.from_pretrained(folder.parent / "half", dtype=asked)
        assert again.model.text_table.dtype == expected
    with pytest.raises(ConfigError, match=r"dtype must be auto or one of .* got 'int8'"):
        DeepTalkForConditionalGeneration.from_pretrained(folder, dtype="int8")


def test_what_is_saved_opens_again_with_all_that_belongs_to_it(folder: Path) -> None:
    DeepTalkForConditionalGeneration.from_pretrained(folder).save_pretrained(folder.parent / "out")
    out = folder.parent / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "chat_template.jinja", "codec", "config.json", "evaluation.json"),
        *("model.safetensors", "provenance.json", "tokenizer.json", "tokenizer_config.json"),
    ]
    check_same(load(out), load(folder))
    assert json.loads((out / "provenance.json").read_text()) == PROVENANCE
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer("hi", add_special_tokens=False)["input_ids"] == load(out).tokenizer.encode("hi")  # type: ignore[union-attr]
    assert (
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False
        )
        == "<bos>User: hi\nAssistant:"
    )
    config = json.loads((out / "config.json").read_text())
    assert config["audio_experts"] == [[0, 1, 2], [0, 1, 2]]
    assert config["layout"]["speakers"] == {"rms": 0, "slt": 1}


def test_the_card_tells_licence_data_recipe_and_evaluation(folder: Path) -> None:
    model, out = DeepTalkForConditionalGeneration.from_pretrained(folder), folder.parent / "out"
    model.save_pretrained(out)
    card = (out / "README.md").read_text()
    header, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert 'license: "mit"' in header
    assert 'pipeline_tag: "audio-to-audio"' in header
    for line in (
        "| recipe | joint |",
        "| paper | section 3.3, stage 3 |",
        "| starts from | align (beef) |",
        "| dialogues | f00d |",
        "| facts\\|spoken | 81.25 % | 57 to 93.4 | 16 |",
        "| first_audio | not stated |  |  |",
        "| audio experts | 3, 3 in its layers |",
        "| voices | rms, slt |",
        "## Licence\n\nmit",
    ):
        assert line in body
    assert body.count("It says hello.") == 1
    again = DeepTalkForConditionalGeneration.from_pretrained(out)
    again.save_pretrained(out, licence="apache-2.0")
    assert (out / "README.md").read_text() == card.replace("mit", "apache-2.0")


def test_what_nobody_stated_is_said_to_be_unknown(folder: Path) -> None:
    for name in ("README.md", "evaluation.json", "provenance.json"):
        (folder / name).unlink()
    DeepTalkForConditionalGeneration.from_pretrained(folder).save_pretrained(folder.parent / "out")
    card = (folder.parent / "out" / "README.md").read_text()
    assert "license:" not in card
    for title in ("Recipe", "Data", "Evaluation", "Licence"):
        assert f"## {title}\n\nnot stated\n" in card


class FakeHub:
    """Repositories are folders; what was asked for is noted."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, []

    def __call__(self, token: str | None) -> "FakeHub":
        self.asked.append(token)
        return self

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> None:
        assert exist_ok
        self.asked.append((repo_id, private))

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, revision: str | None, commit_message: str
    ) -> str:
        self.asked.append((revision, commit_message))
        shutil.copytree(folder_path, self.root / repo_id)
        return f"https://hub/{repo_id}/commit/1"

    def download(self, repo_id: str, *, allow_patterns: list[str], **options: object) -> str:
        self.asked.append((allow_patterns, options))
        return str(self.root / repo_id)


def test_a_pushed_model_comes_back_from_the_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(hub, "HfApi", fake)
    monkeypatch.setattr(hub, "snapshot_download", fake.download)
    model = DeepTalkForConditionalGeneration.from_pretrained(folder)
    address = model.push_to_hub(
        "me/mine", licence="mit", private=True, token="secret", commit_message="first"
    )
    assert address == "https://hub/me/mine/commit/1"
    assert fake.asked == ["secret", ("me/mine", True), (None, "first")]
    assert "\n# mine\n" in (tmp_path / "hub" / "me" / "mine" / "README.md").read_text()
    back = DeepTalkForConditionalGeneration.from_pretrained("me/mine", revision="1", local_files_only=True)
    check_same(back.model, load(folder))
    patterns, options = fake.asked[-1]
    assert options == {"revision": "1", "local_files_only": True}
    assert patterns == ["*.json", "*.safetensors", "*.jinja", "*.md"]


def test_what_cannot_be_opened_or_saved_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[..., DeepTalk]
) -> None:
    opened = DeepTalkForConditionalGeneration.from_pretrained
    with pytest.raises(ConfigError, match=r"takes cache_dir, revision, .* got load_in_8bit"):
        opened(folder, load_in_8bit=True)
    with pytest.raises(CheckpointError, match="can't be downloaded"):
        opened("me/not there")
    bare = DeepTalkForConditionalGeneration(AutoConfig.from_pretrained(folder), model=build())
    with pytest.raises(CheckpointError, match=r"with its tokenizer\.json"):
        bare.save_pretrained(folder.parent / "out")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(CheckpointError, match="auto_map"):
        AutoModel.from_pretrained(folder, trust_remote_code=False)
