"""Peak resident memory of opening a random DeepSeek-V2 of 0.7 GB, each way in a process of its own.

Run it by hand with a folder to write into; docs/checkpoints.md has what it printed.
"""

import resource
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

from deeptalk.backbone import open_backbone
from deeptalk.codec import load_codec
from deeptalk.model.assembly import assemble, open_ear
from deeptalk.model.pruned import load_pruned
from deeptalk.model.weights import load, model_folder

NUM_WORDS = 40_000
CONFIG = DeepseekV2Config(
    vocab_size=NUM_WORDS,
    hidden_size=512,
    intermediate_size=1024,
    moe_intermediate_size=1056,
    num_hidden_layers=7,
    num_attention_heads=8,
    num_key_value_heads=8,
    kv_lora_rank=128,
    q_lora_rank=None,
    qk_nope_head_dim=32,
    qk_rope_head_dim=16,
    v_head_dim=32,
    n_routed_experts=32,
    num_experts_per_tok=4,
    n_shared_experts=2,
    first_k_dense_replace=1,
    bos_token_id=0,
    eos_token_id=1,
)
KEPT = torch.zeros(6, 32, dtype=torch.bool).index_fill(1, torch.arange(4), True)
WAYS = {
    "open_backbone": lambda folder: open_backbone(folder / "stock", dtype=torch.bfloat16),
    "load": lambda folder: load(folder / "model", dtype=torch.bfloat16),
    "load_pruned": lambda folder: load_pruned(folder / "model", KEPT, dtype=torch.bfloat16),
}


def write(folder: Path) -> None:
    """A checkpoint of the stock library in shards, and a model of ours made of it, both in bf16."""
    torch.manual_seed(0)
    stock = folder / "stock"
    DeepseekV2ForCausalLM(CONFIG).to(torch.bfloat16).save_pretrained(stock, max_shard_size="200MB")
    words = {f"w{number}": number for number in range(NUM_WORDS)}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(stock / "tokenizer.json"))
    codec = load_codec(model_folder("pocket") / "codec")
    assemble(stock, folder / "model", ear=open_ear("pocket"), codec=codec, hidden=512)


def measure(folder: Path, way: str) -> str:
    """MiB of the weights, the peak of all resident memory above what was there before, and its ratio."""
    load("pocket")  # all that is imported stands before
    kilobytes = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024
    model = WAYS[way](folder)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - kilobytes) / 1024
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 2**20
    return f"{way}: {size:.0f} MiB of weights, peak {peak:.0f} MiB, {peak / size:.2f} times"


if __name__ == "__main__":
    where = Path(sys.argv[1])
    if len(sys.argv) > 2:
        print(measure(where, sys.argv[2]))
    else:
        if not (where / "model").is_dir():
            write(where)
        for name in WAYS:
            subprocess.run([sys.executable, __file__, str(where), name], check=True)
