"""Models for the Auto classes of ``transformers`` and the Hugging Face Hub, without remote code.

Importing this module registers them: ``AutoModel.from_pretrained(folder or hub id)`` gives a
`DeepTalkForConditionalGeneration`. To talk with it, give its ``folder`` to ``deeptalk.load``.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from deeptalk.codec import Codec, load_codec, save_codec
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.card import licence_of, model_card, notes_of
from deeptalk.model.chat import write_chat_files
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk, DeepTalkOutput
from deeptalk.model.folder import PROVENANCE, read_json
from deeptalk.model.text_side import DTYPES
from deeptalk.model.weights import MODEL_TYPE, PACKAGED, load, model_folder, save
from deeptalk.streams import Batch
from deeptalk.streams.text import TextTokenizer

CARD, EVALUATION, CODEC = "README.md", "evaluation.json", "codec"
TRAVELS = (EVALUATION, "stages.json")
"""What is copied along, where a model has it."""

_FILES = ("*.json", "*.safetensors", "*.jinja", "*.md")
_HUB_OPTIONS = ("cache_dir", "revision", "token", "local_files_only", "force_download")
_IGNORED = ("_from_auto", "_commit_hash", "adapter_kwargs", "trust_remote_code")


class DeepTalkHubConfig(PreTrainedConfig):
    """The config.json of a model as ``transformers`` holds it; ``deeptalk`` gives it as ours."""

    model_type = MODEL_TYPE

    @property
    def deeptalk(self) -> DeepTalkConfig:
        """The same settings, checked; `ConfigError` where they don't fit."""
        return DeepTalkConfig.from_dict(self.to_dict())


class DeepTalkForConditionalGeneration(nn.Module):
    """A `DeepTalk` model with its codec, and where it came from, as the Auto classes want it.

    ``folder`` is where it was loaded from, None for a model of random weights.
    """

    config_class = DeepTalkHubConfig

    def __init__(
        self,
        config: DeepTalkHubConfig,
        *,
        model: DeepTalk | None = None,
        codec: Codec | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.model = DeepTalk(config.deeptalk) if model is None else model
        self.codec, self.folder = codec, folder

    def forward(self, batch: Batch) -> DeepTalkOutput:
        """Logits of every stream at every position of a batch."""
        return self.model(batch)

    @classmethod
    def _from_config(cls, config: DeepTalkHubConfig, **_: Any) -> "DeepTalkForConditionalGeneration":
        """What ``AutoModel.from_config`` calls: a model of random weights."""
        return cls(config)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> "DeepTalkForConditionalGeneration":
        """Open a folder, a packaged model or a repository of the hub.

        ``dtype`` is float32 unless given; ``auto`` is what the weights are stored in. ``options`` are those
        of a download (``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``).

        Raises:
            CheckpointError: there is no such model, or it is damaged, unsafe or of another format.
            ConfigError: an option is not one of these.
        """
        unknown = sorted(options.keys() - {*_HUB_OPTIONS, *_IGNORED})
        if unknown:
            raise ConfigError(f"from_pretrained takes {', '.join(_HUB_OPTIONS)}, got {', '.join(unknown)}.")
        hub = {name: value for name, value in options.items() if name in _HUB_OPTIONS}
        folder = local_folder(name_or_path, **hub)
        own = DeepTalkHubConfig.from_pretrained(folder)
        model = load(folder, dtype=_dtype(dtype, own), device=device)
        codec = load_codec(folder / CODEC) if (folder / CODEC).is_dir() else None
        return cls(own, model=model, codec=codec, folder=folder).eval()

    def save_pretrained(
        self, folder: str | Path, *, licence: str | None = None, notes: str | None = None
    ) -> None:
        """Write weights, config, tokenizer, chat template, codec and model card; load it from there again.

        ``licence`` is one of the hub's identifiers, ``notes`` are words for the card; by default they are
        those of the card that came with the model. Weights get the dtype that they have now.
        """
        folder, tokenizer = Path(folder), self.model.tokenizer
        if not isinstance(tokenizer, TextTokenizer):
            raise CheckpointError(
                "A model is saved with its tokenizer.json: load it from a folder that has one."
            )
        provenance = self._read(PROVENANCE) or {}
        save(
            self.model,
            folder,
            tokenizer_path=tokenizer.path,
            provenance=provenance,
            dtype=self.model.text_table.dtype,
        )
        if self.codec is not None:
            save_codec(self.codec, folder / CODEC)
        longest = int(self.model.config.backbone.get("max_position_embeddings", 0))
        write_chat_files(folder, tokenizer=tokenizer, layout=self.model.layout, longest=longest)
        for name in TRAVELS:
            if self.folder is not None and (self.folder / name).is_file():
                (folder / name).write_bytes((self.folder / name).read_bytes())
        card = model_card(
            self.model.config,
            name=folder.resolve().name,
            num_parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            licence=licence or licence_of(self._card()),
            provenance=provenance,
            evaluation=self._read(EVALUATION),
            notes=notes or notes_of(self._card()),
        )
        (folder / CARD).write_text(card, encoding="utf-8")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        licence: str | None = None,
        notes: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
    ) -> str:
        """Write the folder of `save_pretrained` into a repository, made if there is none; its address."""
        api = HfApi(token=token)
        with TemporaryDirectory() as scratch:
            folder = Path(scratch) / repo_id.rpartition("/")[2]
            self.save_pretrained(folder, licence=licence, notes=notes)
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
                )
            except (HfHubHTTPError, HFValidationError) as error:
                raise CheckpointError(
                    f"{repo_id} can't be written: {' '.join(str(error).split())}"
                ) from error
        return str(commit)

    def _card(self) -> str:
        path = None if self.folder is None else self.folder / CARD
        return path.read_text(encoding="utf-8") if path is not None and path.is_file() else ""

    def _read(self, name: str) -> dict[str, Any] | None:
        path = None if self.folder is None else self.folder / name
        return read_json(path) if path is not None and path.is_file() else None


def local_folder(name_or_path: str | Path, **hub: Any) -> Path:
    """The folder of a model, downloaded from the hub where it is neither a folder nor packaged.

    Nothing that could run code is downloaded. Raises `CheckpointError` for what isn't there.
    """
    if Path(name_or_path).exists() or str(name_or_path) in PACKAGED:
        return model_folder(name_or_path)
    try:
        return Path(snapshot_download(str(name_or_path), allow_patterns=list(_FILES), **hub))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{name_or_path} is no folder and can't be downloaded: {reason}") from error


def _dtype(given: torch.dtype | str | None, config: PreTrainedConfig) -> torch.dtype:
    if isinstance(given, torch.dtype):
        return given
    name = str(config.dtype).removeprefix("torch.") if given == "auto" else given or "float32"
    if name not in DTYPES:
        raise ConfigError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {name!r}.")
    return DTYPES[name]


AutoConfig.register(MODEL_TYPE, DeepTalkHubConfig, exist_ok=True)
AutoModel.register(DeepTalkHubConfig, DeepTalkForConditionalGeneration, exist_ok=True)
