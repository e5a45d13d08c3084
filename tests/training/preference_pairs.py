"""Pairs of random codes, and each answer's log-probability by hand, one sequence at a time."""

import math
from pathlib import Path

import torch

from deeptalk.data.manifest import write_manifest
from deeptalk.data.preference import Pair, PairAnswer, PreferenceBatch, collate_pairs, encode_pair
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.identity import model_hash
from deeptalk.model.weights import load
from deeptalk.streams import Batch, StreamLayout, collate, encode_dialogue, encode_prompt
from deeptalk.streams.text import ByteTokenizer, TextTokenizer
from deeptalk.training.preference import reference_log_probs

LAYOUT, TOKENIZER = StreamLayout.tiny(), ByteTokenizer()


def answer(num_frames: int, *, seed: int = 0, is_cut: bool = False, ref: float = 0.0) -> PairAnswer:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, LAYOUT.codebook_size, (num_frames, 7), generator=generator)
    return PairAnswer(codes=codes, is_cut=is_cut, ref_log_prob=ref)


def pair(win: PairAnswer | None = None, lose: PairAnswer | None = None, *, speaker: str = "slt") -> Pair:
    return Pair(
        prompt="Read this aloud: Yes.",
        text="Yes.",
        win=win or answer(3, seed=1, ref=-70.0),
        lose=lose or answer(5, seed=2, ref=-120.0),
        speaker=speaker,
    )


def batch_of(*pairs: Pair) -> PreferenceBatch:
    encoded = [encode_pair(one, tokenizer=TOKENIZER, layout=LAYOUT) for one in pairs]
    return collate_pairs(encoded, layout=LAYOUT)


def alone(one: Pair, said: PairAnswer) -> Batch:
    """A batch of nothing but this answer."""
    example = encode_dialogue(one.turns(said), tokenizer=TOKENIZER, layout=LAYOUT, mode=one.mode)
    return collate([example], [[]], layout=LAYOUT, is_encoded=False, stride=1)


@torch.no_grad()
def log_prob_alone(
    model: DeepTalk, one: Pair, said: PairAnswer, *, inputs: PairAnswer | None = None
) -> float:
    """Code by code: codebook i of frame f is item f + i + 1, which position p0 + f + i + 1 predicts.

    `inputs` are the codes that the model reads instead of the answer's own.
    """
    prompt = encode_prompt(one.turns(said)[:1], tokenizer=TOKENIZER, layout=LAYOUT, mode=one.mode)
    p0 = prompt.grid.shape[1] - 1
    scores = model(alone(one, inputs or said)).logits.codec[0].log_softmax(-1)
    total = 0.0
    for i in range(7):
        ids = said.codes[:, i].tolist() + ([] if said.is_cut else [LAYOUT.eoa])
        total += sum(float(scores[i, p0 + f + i + 1, code]) for f, code in enumerate(ids))
    return total


def loss_by_hand(margin: float) -> float:
    """-log sigmoid."""
    return math.log1p(math.exp(-margin))


def write_pairs(start: Path, data: Path, *, model: str | None = None, precision: str = "fp32") -> None:
    """Two manifests of pairs that the start model has scored."""
    scorer, tokenizer = load(start), TextTokenizer(start / "tokenizer.json")
    ones = [pair(answer(3 + n, seed=n), answer(4, seed=9 + n)) for n in range(3)]
    encoded = [encode_pair(one, tokenizer=tokenizer, layout=LAYOUT) for one in ones]
    scores = reference_log_probs(scorer, collate_pairs(encoded, layout=LAYOUT)).T.tolist()
    records = []
    for number, (one, (win, lose)) in enumerate(zip(ones, scores, strict=True)):
        said = {"order": "breadth", "transcript": "yes"}
        reference = {"win": win, "lose": lose, "model": model or model_hash(scorer), "precision": precision}
        records.append(
            {"id": str(number), "prompt": one.prompt, "text": one.text, "speaker": one.speaker}
            | {"win": {"codes": one.win.codes.tolist(), "wer": 0.0, **said}}
            | {"lose": {"codes": one.lose.codes.tolist(), "wer": 0.5, **said}, "ref_logp": reference}
        )
    for name in ("preference", "preference_eval"):
        write_manifest(data / f"{name}.jsonl", records, kind="preference")
