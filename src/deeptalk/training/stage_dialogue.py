"""Stages 1 to 3: the speech-dialogue model, put together once and handed from stage to stage."""

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch

from deeptalk.backbone import open_backbone
from deeptalk.backbone.backbone import config_from_dict
from deeptalk.backbone.checkpoint import check_tokenizer, first_id, read_settings
from deeptalk.backbone.extra import ExtraExperts
from deeptalk.codec import Codec, load_codec
from deeptalk.data.alignment import PHONES, PHONES_PER_FRAME
from deeptalk.data.augment import Augmentation
from deeptalk.data.dataset import DialogueBatches, load_source
from deeptalk.data.encoded import encode_answers, encode_questions
from deeptalk.data.library import AnswerLibrary, ClipLibrary, EncodedReader, MelReader, SpeechReader
from deeptalk.data.tasks import TaskContext
from deeptalk.errors import ConfigError
from deeptalk.experts import (
    ExpertLoad,
    ExpertPartition,
    Routing,
    partition_by_load,
    profile_load,
    random_partition,
    read_partition,
    router_mask,
    write_load,
    write_partition,
)
from deeptalk.experts.provenance import measured_on
from deeptalk.files import write_text
from deeptalk.model.assembly import open_ear
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.folder import TOKENIZER
from deeptalk.model.pruned import load_pruned, save_pruned
from deeptalk.model.weights import cast_weights, load, save
from deeptalk.shapes import Bool, Tensor
from deeptalk.streams import Batch, StreamLayout
from deeptalk.streams.text import TextTokenizer
from deeptalk.training.lossless import TextOfTextRows, check_frozen
from deeptalk.training.memory import holds_weights
from deeptalk.training.objective import Objective
from deeptalk.training.parts import DialoguePart
from deeptalk.training.recipe import Appended, AtRandom, ByLoad, Copies, Recipe, Source
from deeptalk.training.stage import Places, Progress, SizedBatches, silent
from deeptalk.training.stage_text import LAYOUT, read_layout
from deeptalk.training.supervised import Supervised

CODEC = "codec"
HEARD = ("questions", "reading", "questions_more", "mixed", "questions_rest", "drills")
SPOKEN = ("answers", "aloud", "answers_more", "aloud_more", "aloud_drills")
ROOMS = Augmentation(
    clean=0.5, level=(-20.0, 0.0), noise=0.4, noise_ratio=(15.0, 40.0), room=0.2, telephone=0.15
)
"""Milder than what a robust encoder was pretrained in: the stages learn what is said, not to hear."""


class DialogueStage:
    """One of the stages of the paper: align, audio experts, text experts, joint.

    `dense` trains stage 2.1 without the experts that it masks, for the same result up to rounding. They are
    loaded once, where the partition is still to be measured: on `device`, if the weights find room there.
    """

    def __init__(
        self,
        recipe: Recipe,
        places: Places,
        *,
        dense: bool = False,
        device: torch.device | None = None,
        progress: Progress = silent,
    ) -> None:
        if dense:
            _check_dense(recipe)
        self.recipe, self.places, self.device = recipe, places, device or torch.device("cpu")
        self.base = places.result(recipe.starts_from[0]) if dense else None
        if isinstance(recipe.model, DialoguePart):
            self.model, self.tokenizer_path, self.codec_folder = _assemble(recipe, recipe.model, places)
        else:
            kept = self._chosen_before() if dense else None
            self.model, self.tokenizer_path, self.codec_folder = _continued(recipe, places, kept=kept)
        prepare_caches(recipe, places, model=self.model, codec_folder=self.codec_folder, progress=progress)
        self.context = self._context()
        self._divide_experts()
        if self.model.config.is_lossless:
            check_frozen(self.model, recipe)
        self.objective = self._bound_objective()
        self._add_heads()

    def batches(self, *, rank: int, world_size: int) -> SizedBatches:
        """Batches of dialogues."""
        batches = self._stream(self.recipe.mixture, rank=rank, world_size=world_size)
        return TextOfTextRows(batches) if self.model.config.is_lossless else batches

    def held_out(self) -> Sequence[Any]:
        """The first batches of the evaluation sources."""
        sources = self.recipe.evaluation
        return list(islice(self._stream(sources), self.recipe.eval_batches)) if sources else []

    def texts(self, manifest: str) -> DialogueBatches:
        """Written questions and answers of a manifest, always in the same order."""
        return self._stream([Source(manifest=manifest, task="text_to_text")])

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """A folder of the model with tokenizer and codec, as `deeptalk.load` opens it."""
        save_speaking(
            self.model,
            folder,
            tokenizer_path=self.tokenizer_path,
            codec_folder=self.codec_folder,
            provenance=provenance,
            base=self.base,
            dtype=self.recipe.dtype,
        )

    def _context(self) -> TaskContext:
        data, model = self.places.data, self.model
        reader: SpeechReader
        if self.recipe.encoded_passes:
            reader = EncodedReader([data / "encoded" / part for part in present(HEARD, data)])
        else:
            reader = MelReader(model.mel, augmentation=ROOMS)
        return TaskContext(
            tokenizer=model.tokenizer or TextTokenizer(self.tokenizer_path),
            layout=model.layout,
            clips=ClipLibrary([data / f"{part}.jsonl" for part in present(HEARD, data)]),
            answers=AnswerLibrary(data / "codes" / f"{part}.npy" for part in present(SPOKEN, data)),
            reader=reader,
            stride=model.config.adapter.stride,
            max_positions=self.recipe.max_positions,
            max_frames=model.config.encoder.max_positions,
        )

    def _stream(self, sources: Iterable[Source], *, rank: int = 0, world_size: int = 1) -> DialogueBatches:
        return DialogueBatches(
            [load_source(source, self.places.data, self.context) for source in sources],
            self.context,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            rank=rank,
            world_size=world_size,
        )

    def _divide_experts(self) -> None:
        """Sort the experts into banks, copy some beside them, or leave all but the audio experts out."""
        if self.model.backbone.kept is not None:
            return
        how = self.recipe.partition
        if how is not None and self.model.config.extra_experts is not None:
            raise ConfigError(
                f"recipe {self.recipe.name!r} has a partition, but the model it starts from has copies of "
                "experts already; copies are made once, so take the partition out."
            )
        if isinstance(how, Copies | Appended):
            self.model.add_experts(self._extra_experts(how))
            return
        if how is not None:
            is_audio = self._partition(how).is_audio
        elif self.model.config.audio_experts is not None:
            is_audio = self.model.is_audio()
        else:
            return
        if self.base is None:
            self.model.split(is_audio)
        else:
            del self.model  # before the other is loaded
            self.model = _continued(self.recipe, self.places, kept=is_audio)[0]

    def _chosen_before(self) -> Bool[Tensor, "L E"] | None:
        """The audio experts of a run that goes on."""
        path = self._partition_path()
        return read_partition(path).is_audio if self.recipe.partition and path.is_file() else None

    def _profile(self, *sets: Iterable[Batch]) -> ExpertLoad:
        """The load; of a model whose weights are in bf16 in mixed precision."""
        before = self.model.device
        device = self.device if holds_weights(self.device, self.model) else before
        self.model.to(device)
        placed = ((batch.to(device) for batch in batches) for batches in sets)
        try:
            return profile_load(self.model, *placed, mixed=self.recipe.weights != "fp32")
        finally:
            self.model.to(before)

    def _partition_path(self) -> Path:
        return self.places.run(self.recipe.name) / "partition.json"

    def _partition(self, how: ByLoad | AtRandom) -> ExpertPartition:
        """Algorithm 1, step 1; once found it is read again, so that a resumed run has the same experts."""
        path = self._partition_path()
        if path.is_file():
            return self._fitting(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        sources = (*how.audio, *how.text) if isinstance(how, ByLoad) else ()
        note = {"recipe": self.recipe.name, "starts_from": list(self.recipe.starts_from)}
        note |= measured_on(self.model, data=self.places.data, manifests=(s.manifest for s in sources))
        measured = None
        if isinstance(how, AtRandom):
            partition = self._random_partition(how)
        else:
            sets = (islice(self._stream(sources), how.num_batches) for sources in (how.audio, how.text))
            measured = self._profile(*sets)
            write_load(path.with_name("load.json"), measured, provenance=note)
            partition = partition_by_load(
                measured,
                num_audio_experts=how.num_audio_experts,
                normalisation=how.normalisation,
                positions=how.positions,
            )
        options = self.recipe.to_dict()["partition"]
        write_partition(path, partition, options=options, provenance=note, load=measured)
        return partition

    def _fitting(self, path: Path) -> ExpertPartition:
        """The partition of a file, if it is one of this backbone's experts."""
        partition, layers = read_partition(path), self.model.backbone.layers
        given = (*partition.is_audio.shape, partition.experts_per_token)
        wanted = (layers.num_moe_layers, layers.num_experts, layers.experts_per_token)
        if given != wanted:
            told = ["{} layers of {} experts, {} a token".format(*numbers) for numbers in (given, wanted)]
            raise ConfigError(
                f"{path} divides another backbone's experts ({told[0]}; this one has {told[1]}); make it "
                "with `deeptalk profile` and `deeptalk partition` from this model, or remove it."
            )
        return partition

    def _extra_experts(self, how: Copies | Appended) -> ExtraExperts:
        if isinstance(how, Copies):
            chosen = self._partition(how.of).audio_experts
            return ExtraExperts(sources=chosen, routing=how.speech_routing)
        num_layers = self.model.backbone.layers.num_moe_layers
        return ExtraExperts(sources=(how.sources,) * num_layers, routing="append")

    def _random_partition(self, how: AtRandom) -> ExpertPartition:
        shape = self.model.backbone.layers
        return random_partition(
            how.seed,
            num_layers=shape.num_moe_layers,
            num_experts=shape.num_experts,
            num_audio_experts=how.num_audio_experts,
            experts_per_token=shape.experts_per_token,
        )

    def _add_heads(self) -> None:
        objective = self.recipe.objective
        if not isinstance(objective, Supervised):
            return
        if objective.hearing_weight:
            self.model.learn_hearing()
        settings = objective.alignment
        if settings is not None:
            self.model.learn_alignment(
                word_layer=settings.word_layer,
                phone_layer=settings.phone_layer,
                num_phones=len(PHONES),
                phones_per_frame=PHONES_PER_FRAME,
            )

    def _bound_objective(self) -> Objective:
        routing = self.recipe.routing
        if routing is None or routing.is_free:
            return self.recipe.objective
        partition = ExpertPartition(
            is_audio=self.model.is_audio(), experts_per_token=self.model.backbone.layers.experts_per_token
        )
        objective = cast(Supervised, self.recipe.objective)
        return replace(objective, router_mask=router_mask(partition, routing))


def save_speaking(
    model: DeepTalk,
    folder: Path,
    *,
    tokenizer_path: Path,
    codec_folder: Path,
    provenance: Mapping[str, Any],
    base: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model with its tokenizer and a copy of its codec; experts that it lacks are those of `base`."""
    rest: Any = {"tokenizer_path": tokenizer_path, "provenance": provenance, "dtype": dtype}
    if base is None:
        save(model, folder, **rest)
    else:
        save_pruned(model, folder, base=base, **rest)
    (folder / CODEC).mkdir()
    for path in (codec_folder / "config.json", *codec_folder.glob("*.safetensors")):
        shutil.copyfile(path, folder / CODEC / path.name)


def prepare_caches(
    recipe: Recipe, places: Places, *, model: DeepTalk, codec_folder: Path, progress: Progress = silent
) -> None:
    """Make what is missing: codes of all recorded answers, and with `encoded_passes` the encoder's output."""
    spoken = present(SPOKEN, places.data)
    files = [codec_folder / "config.json", *sorted(codec_folder.glob("*.safetensors"))]
    files += [places.data / f"{part}.jsonl" for part in spoken]
    mark = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    note = places.data / "codes" / "made_from.sha256"
    if not note.is_file() or note.read_text() != mark:
        codec = load_codec(codec_folder)
        for part in spoken:
            encode_answers(places.data, codec, parts=(part,), progress=partial(progress, f"codes of {part}"))
        write_text(note, mark)
    for part in present(HEARD, places.data) if recipe.encoded_passes else ():
        encode_questions(
            places.data,
            model.encoder,
            spec=model.mel,
            passes=recipe.encoded_passes,
            parts=(part,),
            augmentation=ROOMS,
            progress=partial(progress, f"encoding {part}"),
        )


def present(parts: Sequence[str], data: Path) -> list[str]:
    """Those of some parts of the speech that have a manifest with anything in it."""
    paths = {part: data / f"{part}.jsonl" for part in parts}
    return [part for part, path in paths.items() if path.is_file() and path.stat().st_size]


def _assemble(recipe: Recipe, part: DialoguePart, places: Places) -> tuple[DeepTalk, Path, Path]:
    """The model of stage 1 from a pretrained encoder, backbone and codec, in this order."""
    if len(recipe.starts_from) != 3:
        raise ConfigError(
            f"recipe {recipe.name!r} puts a model together: starts_from must name the recipes of encoder, "
            f"text model and codec, got {recipe.starts_from}."
        )
    encoder_folder, text_folder, codec_folder = (places.need(name) for name in recipe.starts_from)
    encoder, backbone = open_ear(encoder_folder).encoder, open_backbone(text_folder, dtype=recipe.dtype)
    _check_layout(recipe, part, text_folder, load_codec(codec_folder))
    config = DeepTalkConfig(
        encoder=encoder.settings,
        adapter=part.adapter,
        backbone=backbone.model.config.to_diff_dict() | {"model_type": backbone.model.config.model_type},
        layout=part.layout,
        mel=part.mel,
        fusion=part.fusion,
    )
    tokenizer = TextTokenizer(text_folder / TOKENIZER)
    model = DeepTalk(config, encoder=encoder, backbone=backbone, tokenizer=tokenizer)
    cast_weights(model, recipe.dtype)
    return model, text_folder / TOKENIZER, codec_folder


def _check_dense(recipe: Recipe) -> None:
    is_audio_only = recipe.routing == Routing(text="audio", audio="audio")
    if not is_audio_only or isinstance(recipe.model or recipe.partition, DialoguePart | Copies | Appended):
        raise ConfigError(
            f"recipe {recipe.name!r} uses more than audio experts; only stage 2.1 trains without the others."
        )


def _continued(
    recipe: Recipe, places: Places, *, kept: Bool[Tensor, "L E"] | None = None
) -> tuple[DeepTalk, Path, Path]:
    """The model of an earlier stage; `kept` leaves all experts out that it doesn't mark."""
    if len(recipe.starts_from) != 1:
        raise ConfigError(
            f"recipe {recipe.name!r} has no DialoguePart as its model, so starts_from must name one earlier "
            f"stage, got {recipe.starts_from}."
        )
    stage = places.need(recipe.starts_from[0])
    dtype = recipe.dtype
    model = load(stage, dtype=dtype) if kept is None else load_pruned(stage, kept, dtype=dtype)
    return model, stage / TOKENIZER, stage / CODEC


def _check_layout(recipe: Recipe, part: DialoguePart, text_folder: Path, codec: Codec) -> None:
    if (text_folder / LAYOUT).is_file():
        if read_layout(text_folder) != part.layout:
            raise ConfigError(f"recipe {recipe.name!r} and {text_folder} have different stream layouts.")
    else:  # a public checkpoint
        _check_text_ids(recipe, part, text_folder)
    _check_codec(recipe, part.layout, codec)


def _check_text_ids(recipe: Recipe, part: DialoguePart, text_folder: Path) -> None:
    stock: Any = config_from_dict(read_settings(text_folder))
    check_tokenizer(text_folder, stock)
    layout = part.layout
    given = (stock.vocab_size, first_id(stock.bos_token_id), first_id(stock.eos_token_id))
    wanted = (layout.vocab_size, layout.bos_id, layout.eos_id)
    if given != wanted:
        raise ConfigError(
            f"recipe {recipe.name!r} is for {wanted[0]:,} text ids that begin with {wanted[1]} and end with "
            f"{wanted[2]}, {text_folder} has {given[0]:,}, {given[1]} and {given[2]}; "
            "`deeptalk assemble` takes any language model."
        )


def _check_codec(recipe: Recipe, layout: StreamLayout, codec: Codec) -> None:
    given = (codec.num_codebooks, codec.codebook_size)
    wanted = (layout.num_codebooks, layout.codebook_size)
    if given != wanted:
        raise ConfigError(
            f"recipe {recipe.name!r} lays out {wanted[0]} codebooks of {wanted[1]} codes, "
            f"the codec has {given[0]} of {given[1]}."
        )
