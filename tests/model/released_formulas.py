"""A synthetic checkpoint in the authors' layout, and its logits straight from the formulas of method.md.

Nothing of ours computes here: DeepSeek-V2 (arXiv 2405.04434, section 2) is written out, Whisper is the stock
class. Axes: T positions, D width, H heads.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

SETTINGS = {
    "architectures": ["LUCYDeepseekV2ForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekV2ForCausalLM"},
    "model_type": "lucy-deepseek_v2",
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2,
    "kv_lora_rank": 16, "q_lora_rank": None, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
    "intermediate_size": 48, "moe_intermediate_size": 16, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "n_shared_experts": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_group": 1, "topk_group": 1,
    "topk_method": "greedy", "scoring_func": "softmax", "norm_topk_prob": False, "routed_scaling_factor": 1.0,
    "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 512, "hidden_act": "silu",
    "attention_bias": False, "aux_loss_alpha": 0.001, "ep_size": 1, "torch_dtype": "float32",
    "tie_word_embeddings": True, "vocab_size": 384, "bos_token_id": 4, "eos_token_id": 5,
    "text_vocab_size": 40, "text_special_tokens": 8, "audio_vocab_size": 32, "audio_special_tokens": 16,
    "mm_audio_num_codebook": 7, "mm_audio_encoder": "/models/whisper", "mm_audio_encoder_type": "whisper",
    "text_additional_tokens": {"EOT": 40, "PAD_T": 41, "BOT": 42},
    "audio_additional_tokens": {
        "EOA": 32, "PAD_A": 33, "BOA": 34, "ANS_A": 35, "ASR": 36, "AQA": 37, "AQAA": 38,
        "M29": 39, "F10": 40, "ER": 41,
    },
    "freeze_audio_experts": False, "freeze_text_experts": False, "audio_experts_file": "/lists/audio.json",
}  # fmt: skip
TEXT_ROWS, AUDIO_ROWS, AUD = 48, 48, 9
WHISPER = WhisperConfig(
    d_model=64, encoder_layers=2, encoder_attention_heads=1, encoder_ffn_dim=32, num_mel_bins=8,
    max_source_positions=16, decoder_layers=1,
)  # fmt: skip


def make_tensors() -> dict[str, Tensor]:
    """Random tensors under the names of the authors' modules; the encoder in float32, the rest not."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 0.2) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator)).bfloat16()

    width, heads, experts, inner = 32, 2, 8, 16
    tensors = {"model.embed_tokens.weight": draw(TEXT_ROWS + 7 * AUDIO_ROWS, width, scale=1.0)}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.norm.weight"] = 1 + draw(width)
    for layer in range(3):
        at = f"model.layers.{layer}"
        attention = {
            "q_proj": (heads * 16, width), "kv_a_proj_with_mqa": (16 + 8, width),
            "kv_b_proj": (heads * (8 + 12), 16), "o_proj": (width, heads * 12),
        }  # fmt: skip
        tensors |= {f"{at}.self_attn.{name}.weight": draw(*shape) for name, shape in attention.items()}
        tensors[f"{at}.self_attn.kv_a_layernorm.weight"] = 1 + draw(16)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{norm}.weight"] = 1 + draw(width)
        mlps = {"mlp": 48}
        if layer > 0:
            tensors[f"{at}.mlp.gate.weight"] = draw(experts, width, scale=1.0)
            mlps = {f"mlp.experts.{e}": inner for e in range(experts)} | {"mlp.shared_experts": 2 * inner}
        for mlp, hidden in mlps.items():
            tensors[f"{at}.{mlp}.gate_proj.weight"] = draw(hidden, width)
            tensors[f"{at}.{mlp}.up_proj.weight"] = draw(hidden, width)
            tensors[f"{at}.{mlp}.down_proj.weight"] = draw(width, hidden)
    tensors["model.audio_mm_projector.fc_1.weight"] = draw(20, 64)
    tensors["model.audio_mm_projector.fc_2.weight"] = draw(20, 64)
    tensors["model.audio_mm_projector.proj.weight"] = draw(width, 20)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = WhisperEncoder(WHISPER)
    return tensors | {f"model.audio_encoder.{name}": t.clone() for name, t in encoder.state_dict().items()}


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], **changes: object) -> Path:
    """A folder as the authors' trainer leaves it, a pickle of its own included."""
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(SETTINGS | changes, indent=3))
    vocab = {f"w{number}": number for number in range(40)} | {"<|audio|>": AUD}
    del vocab[f"w{AUD}"]
    Tokenizer(models.WordLevel(vocab, unk_token="w0")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    (folder / "training_args.bin").write_bytes(b"\x80\x04.")
    return folder


def logits(
    tensors: dict[str, Tensor],
    text: Tensor,
    codes: Tensor,
    *,
    mel: Tensor,
    frames_at: int,
    audio_experts: list[list[int]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Text logits ``[T, V]`` and audio logits ``[7, T, C]``; ``codes`` are local ``[7, T]``.

    The frames of ``mel`` stand at positions ``frames_at`` and on. With ``audio_experts`` all other experts
    have logits of minus infinity (method.md, 6.2).
    """
    weights = {name: tensor.float() for name, tensor in tensors.items()}
    table = weights["model.embed_tokens.weight"]
    rows = [table[TEXT_ROWS + AUDIO_ROWS * i + codes[i]] for i in range(7)]
    streams = torch.stack([*rows, table[text]])  # 8 T D
    encoder = WhisperEncoder(WHISPER).eval()
    prefix = "model.audio_encoder."
    encoder.load_state_dict({n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)})
    heard = encoder(mel[None]).last_hidden_state[0]
    w1, w2, w3 = (weights[f"model.audio_mm_projector.{n}.weight"] for n in ("fc_1", "fc_2", "proj"))
    frames = (F.silu(heard @ w1.T) * (heard @ w2.T)) @ w3.T
    streams[:7, frames_at : frames_at + len(frames)] = frames
    x = streams.mean(dim=0)
    for layer in range(3):
        at = f"model.layers.{layer}."
        own = {name.removeprefix(at): t for name, t in weights.items() if name.startswith(at)}
        x = x + _attention(own, _norm(x, own["input_layernorm.weight"]))
        normed = _norm(x, own["post_attention_layernorm.weight"])
        x = x + _feed_forward(own, normed, None if audio_experts is None else audio_experts[layer - 1])
    scores = _norm(x, weights["model.norm.weight"]) @ table.T
    return scores[:, :TEXT_ROWS], scores[:, TEXT_ROWS:].unflatten(1, (7, AUDIO_ROWS)).transpose(0, 1)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x * (x.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()


def _swiglu(own: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    gate, up, down = (own[f"{name}.{part}_proj.weight"] for part in ("gate", "up", "down"))
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def _rotated(x: Tensor) -> Tensor:
    """Neighbouring pairs turned by position times 10000^(-2j/8); x ``[T, H, 8]``."""
    angles = torch.arange(len(x))[:, None] * 10000.0 ** (-torch.arange(0, 8, 2) / 8)
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous()) * torch.polar(
        torch.ones_like(angles), angles
    ).unsqueeze(1)
    return torch.view_as_real(turned).flatten(-2)


def _attention(own: dict[str, Tensor], x: Tensor) -> Tensor:
    queries = (x @ own["self_attn.q_proj.weight"].T).unflatten(-1, (2, 16))
    latent, key_turned = (x @ own["self_attn.kv_a_proj_with_mqa.weight"].T).split([16, 8], dim=-1)
    latent = _norm(latent, own["self_attn.kv_a_layernorm.weight"])
    keys, values = (
        (latent @ own["self_attn.kv_b_proj.weight"].T).unflatten(-1, (2, 20)).split([8, 12], dim=-1)
    )
    plain, turned = queries.split([8, 8], dim=-1)
    scores = torch.einsum("thd,shd->hts", plain, keys)
    scores = scores + torch.einsum("thd,sd->hts", _rotated(turned), _rotated(key_turned[:, None])[:, 0])
    future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    chosen = (scores / 16**0.5).masked_fill(future, float("-inf")).softmax(dim=-1)
    return torch.einsum("hts,shd->thd", chosen, values).flatten(1) @ own["self_attn.o_proj.weight"].T


def _feed_forward(own: dict[str, Tensor], x: Tensor, allowed: list[int] | None) -> Tensor:
    if "mlp.gate.weight" not in own:
        return _swiglu(own, "mlp", x)
    scores = x @ own["mlp.gate.weight"].T
    if allowed is not None:
        closed = torch.ones(8, dtype=torch.bool)
        closed[allowed] = False
        scores = scores.masked_fill(closed, float("-inf"))
    weights, chosen = scores.softmax(dim=-1).topk(2, dim=-1)
    routed = torch.zeros_like(x)
    for t in range(len(x)):
        for weight, expert in zip(weights[t], chosen[t].tolist(), strict=True):
            routed[t] += weight * _swiglu(own, f"mlp.experts.{expert}", x[t])
    return routed + _swiglu(own, "mlp.shared_experts", x)
