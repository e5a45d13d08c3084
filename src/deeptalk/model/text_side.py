"""The text side of a model as a stock checkpoint of ``transformers``, without anything of speech."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from deeptalk.backbone import open_backbone
from deeptalk.backbone.banks import fused_state_dict
from deeptalk.backbone.extra import is_extra_name
from deeptalk.backbone.stock import quiet
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.chat import begin_with_bos, is_chat_exact, write_chat_files
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.folder import TOKENIZER, read_config, weight_files
from deeptalk.model.fresh import check_free, fresh_folder
from deeptalk.model.weights import MODEL_TYPE, load, model_folder
from deeptalk.shapes import Float, Tensor
from deeptalk.streams.layout import TEXT
from deeptalk.streams.text import TextTokenizer

DTYPES = {str(dtype)[6:]: dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSide:
    """What was written: ``is_embedding_fused`` where the text table holds more than text rows alone,
    ``is_chat_exact`` where the chat template gives the ids of our own prompts.
    """

    folder: str
    architecture: str
    dtype: str
    num_parameters: int
    num_weight_files: int
    is_embedding_fused: bool
    is_chat_exact: bool


def export_text_side(
    name_or_path: str | Path, target: str | Path, *, max_shard_size: int | str = "5GB"
) -> TextSide:
    """Write the text side of a model for ``AutoModelForCausalLM`` and what else reads stock checkpoints.

    Tensors are those of the model's folder, bit by bit and in their dtype. Only under fusion ``mean8`` and
    ``mean2`` the text table becomes what a text position really reads: its row and the pads of the other
    streams, fused. Weights go into several files above ``max_shard_size``.

    Raises:
        CheckpointError: the model can't be opened, or ``target`` is taken or can't be written.
        ConfigError: no stock model computes what this one does with text.
    """
    source, target = model_folder(name_or_path), Path(target)
    check_free(target)
    settings = read_config(source, model_type=MODEL_TYPE)
    if settings.get("dtype") not in DTYPES:
        raise CheckpointError(
            f"{source}: dtype must be one of {', '.join(DTYPES)}, got {settings.get('dtype')!r}."
        )
    model = load(source, dtype=DTYPES[settings["dtype"]])
    _check_stock(model.config)
    tokenizer = TextTokenizer(source / TOKENIZER)
    table = text_rows(model)
    is_fused = not torch.equal(table, model.text_table)
    stock = _outline(model, is_untied=is_fused)
    state = {name: t for name, t in fused_state_dict(model.backbone).items() if not is_extra_name(name)}
    if is_fused:
        state[_name_of_table(stock)] = table
    with fresh_folder(target) as folder:
        with quiet():
            stock.save_pretrained(folder, state_dict=state, max_shard_size=max_shard_size)
        (folder / TOKENIZER).write_bytes((source / TOKENIZER).read_bytes())
        begin_with_bos(folder / TOKENIZER, layout=model.layout)
        longest = int(stock.config.max_position_embeddings)
        write_chat_files(folder, tokenizer=tokenizer, layout=model.layout, longest=longest)
        return TextSide(
            folder=str(target),
            architecture=type(stock).__name__,
            dtype=settings["dtype"],
            num_parameters=stock.num_parameters(),
            num_weight_files=len(weight_files(folder)),
            is_embedding_fused=is_fused,
            is_chat_exact=is_chat_exact(folder, tokenizer=tokenizer, layout=model.layout),
        )


@torch.no_grad()
def text_rows(model: DeepTalk) -> Float[Tensor, "V D"]:
    """What the backbone reads at a position of text alone, for every id of the text table."""
    layout = model.layout
    grid = torch.tensor(layout.pad_ids, device=model.device)[:, None].repeat(1, layout.vocab_size)
    grid[TEXT] = torch.arange(layout.vocab_size, device=model.device)
    return model.embed(grid[None])[0]


def _check_stock(config: DeepTalkConfig) -> None:
    if config.extra_experts is not None and not config.is_lossless:
        raise ConfigError(
            "Experts were appended to this model and every token may choose them: the stock model has fewer. "
            "Only lossless copies can be left out."
        )
    if config.extra_experts is None and config.routing["text"] != "all":
        raise ConfigError(
            f"Text goes to the {config.routing['text']} experts alone, as in no stock model; "
            "export the result of a stage that routes text to all."
        )


def _outline(model: DeepTalk, *, is_untied: bool) -> PreTrainedModel:
    """The stock model without its numbers."""
    settings = dict(model.config.backbone) | ({"tie_word_embeddings": False} if is_untied else {})
    with torch.device("meta"):
        return open_backbone(settings, dtype=model.text_table.dtype).model


def _name_of_table(stock: PreTrainedModel) -> str:
    table = stock.get_input_embeddings().weight
    return next(name for name, parameter in stock.named_parameters() if parameter is table)
