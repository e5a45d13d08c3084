"""The pocket model's recipes, from nothing to an answering model; two cores suffice."""

from dataclasses import replace

from deeptalk.audio import MelSpec
from deeptalk.codec import PocketCodecConfig
from deeptalk.data.augment import Augmentation
from deeptalk.experts import Routing
from deeptalk.model.adapter import AdapterConfig
from deeptalk.model.encoder import EncoderConfig
from deeptalk.streams import StreamLayout
from deeptalk.training.codec import CodecTraining
from deeptalk.training.ctc import Ctc
from deeptalk.training.masking import Masking
from deeptalk.training.optim import AdamW, Muon
from deeptalk.training.parts import CodecPart, DialoguePart, EncoderPart, TextPart
from deeptalk.training.recipe import ByLoad, Recipe, Source
from deeptalk.training.schedule import Cosine
from deeptalk.training.supervised import Alignment, Supervised
from deeptalk.training.text import TextLm

POCKET_LAYOUT = StreamLayout(
    vocab_size=2_912, codebook_size=512, num_specials=9, bos_id=0, eos_id=1, speakers={"slt": 0, "rms": 1}
)

# DeepSeek-V2 in small: latent attention, a dense first layer, shared and routed experts
POCKET_BACKBONE = {
    "model_type": "deepseek_v2",
    "vocab_size": 2_912,
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "first_k_dense_replace": 1,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 64,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 48,
    "n_routed_experts": 32,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 64,
    "n_shared_experts": 1,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "max_position_embeddings": 2_048,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

POCKET_TEXT = Recipe(
    name="pocket-text",
    paper="section 3.1: stands for the pretrained language model that the paper starts from",
    model=TextPart(backbone=POCKET_BACKBONE, layout=POCKET_LAYOUT),
    trains=("*",),
    mixture=(
        Source(manifest="text_train", task="text_to_text", weight=0.68),
        Source(manifest="text_more", task="text_to_text", weight=0.24),
        Source(manifest="reading_train", task="repeat", weight=0.08),
    ),
    evaluation=(Source(manifest="text_eval", task="text_to_text"),),
    objective=TextLm(balance_weight=0.003),
    optim=Muon(lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05, matrices=("*layers.*", "!*.gate.weight")),
    schedule=Cosine(warmup_fraction=0.03, final_fraction=0.02),
    batch_size=2_048,
    num_steps=4_800,
    max_positions=256,
    average=0.998,
    eval_every=1_000,
    save_every=200,
    seed=42,
)

POCKET_MEL = MelSpec(reference="fixed")

POCKET_SENTENCE_SECONDS = 4.0
"""Half of its questions are shorter than 2.3 to 2.8 s, 99 of 100 than 4 to 6.3 s, by part of the data."""

POCKET_HEARING = EncoderPart(
    encoder=EncoderConfig(
        mode="chunked", chunk_frames=16, d_model=192, layers=5, heads=4, ffn=768, dropout=0.05
    ),
    mel=POCKET_MEL,
    augmentation=Augmentation(
        clean=0.3, level=(-20.0, 0.0), noise=0.5, noise_ratio=(10.0, 40.0), room=0.25, telephone=0.2
    ),
)

POCKET_ROOMS = Augmentation(
    clean=0.5, level=(-20.0, 0.0), noise=0.4, noise_ratio=(10.0, 40.0), room=0.15, telephone=0.2
)

POCKET_ENCODER_START = Recipe(
    name="pocket-encoder-start",
    paper="section 3.1: stands for the pretrained speech encoder; frames labelled by average durations",
    model=replace(POCKET_HEARING, augmentation=None),
    trains=("*",),
    mixture=(
        Source(manifest="reading", task="transcribe", weight=0.5),
        Source(manifest="questions", task="transcribe", weight=0.5),
    ),
    objective=Ctc(token_weight=0.0, phone_weight=0.1, phone_layer=3, aligned=1.0),
    optim=AdamW(lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01),
    schedule=Cosine(warmup_fraction=0.08, final_fraction=0.6),
    batch_size=2_000,
    num_steps=350,
    max_positions=3_000,
    precision="bf16",
    seed=42,
)

POCKET_ENCODER = Recipe(
    name="pocket-encoder",
    paper="section 3.1: stands for the pretrained speech encoder; block-causal, to run while one speaks",
    model=replace(POCKET_HEARING, augmentation=None),
    starts_from=("pocket-encoder-start",),
    trains=("*",),
    mixture=(
        Source(manifest="reading", task="transcribe", weight=0.45),
        Source(manifest="questions", task="transcribe", weight=0.55),
    ),
    objective=Ctc(token_weight=0.5, phone_weight=1.0, phone_layer=3),
    optim=AdamW(lr=8e-4, betas=(0.9, 0.98), weight_decay=0.01),
    schedule=Cosine(warmup_fraction=0.03, final_fraction=0.5),
    batch_size=2_000,
    num_steps=3_000,
    max_positions=3_000,
    precision="bf16",
    seed=44,
)

POCKET_ENCODER_ROOMS = Recipe(
    name="pocket-encoder-rooms",
    paper="section 3.1: stands for the pretrained speech encoder; two of three clips in ever new rooms",
    model=POCKET_HEARING,
    starts_from=("pocket-encoder",),
    trains=("*",),
    mixture=(
        Source(manifest="reading", task="transcribe", weight=0.45),
        Source(manifest="questions", task="transcribe", weight=0.55),
    ),
    objective=Ctc(token_weight=1.0, phone_weight=0.5, phone_layer=3),
    optim=AdamW(lr=7e-4, betas=(0.9, 0.98), weight_decay=0.01),
    schedule=Cosine(warmup_fraction=0.02, final_fraction=0.02),
    batch_size=2_000,
    num_steps=9_000,
    max_positions=3_000,
    average=0.998,
    precision="bf16",
    seed=45,
)

POCKET_ENCODER_MORE = replace(
    POCKET_ENCODER_ROOMS,
    name="pocket-encoder-more",
    paper="section 3.1: stands for the pretrained speech encoder; half of the clips in ever new rooms",
    model=replace(POCKET_HEARING, augmentation=POCKET_ROOMS),
    starts_from=("pocket-encoder-rooms",),
    optim=Muon(lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01),
    batch_size=4_000,
    num_steps=3_700,
    seed=50,
)

POCKET_ENCODER_WIDE = replace(
    POCKET_ENCODER_MORE,
    name="pocket-encoder-wide",
    paper="section 3.1: stands for the pretrained speech encoder; twice the clips, and words without sense",
    starts_from=("pocket-encoder-more",),
    mixture=(
        Source(manifest="reading", task="transcribe", weight=0.20),
        Source(manifest="questions", task="transcribe", weight=0.15),
        Source(manifest="questions_more", task="transcribe", weight=0.17),
        Source(manifest="questions_rest", task="transcribe", weight=0.15),
        Source(manifest="mixed", task="transcribe", weight=0.05),
        Source(manifest="drills", task="transcribe", weight=0.28),
    ),
    num_steps=1_900,
    seed=54,
)

POCKET_FAR = replace(
    POCKET_ROOMS,
    clean=0.35,
    formants=(0.8, 1.25),
    speed=(0.8, 1.2),
    telephone=0.35,
    tight=0.4,
    room=0.2,
)

POCKET_ENCODER_FAR = replace(
    POCKET_ENCODER_WIDE,
    name="pocket-encoder-far",
    paper="section 3.1: stands for the pretrained speech encoder; voices far from those that training knows",
    model=replace(POCKET_HEARING, augmentation=POCKET_FAR),
    starts_from=("pocket-encoder-wide",),
    mixture=(
        Source(manifest="reading", task="transcribe", weight=0.24),
        Source(manifest="questions", task="transcribe", weight=0.13),
        Source(manifest="questions_more", task="transcribe", weight=0.15),
        Source(manifest="questions_rest", task="transcribe", weight=0.13),
        Source(manifest="mixed", task="transcribe", weight=0.05),
        Source(manifest="drills", task="transcribe", weight=0.30),
    ),
    objective=Ctc(
        token_weight=1.0,
        phone_weight=0.5,
        phone_layer=3,
        masking=Masking(bands=2, band_width=10, stretches=2, time_width=8),
    ),
    seed=62,
)

POCKET_CODEC_AHEAD = Recipe(
    name="pocket-codec-ahead",
    paper="section 3.1: stands for the pretrained codec, with SNAC's clock and shape; sees a frame ahead",
    model=CodecPart(codec=PocketCodecConfig(look_ahead_frames=1)),
    trains=("*",),
    mixture=(
        Source(manifest="aloud", task="sound", weight=0.4),
        Source(manifest="answers", task="sound", weight=0.6),
    ),
    objective=CodecTraining(),
    optim=Muon(
        lr=2e-3,
        betas=(0.9, 0.99),
        matrices=("*.grow.weight", "*.shrink.weight", "*.enter.weight", "*.refine.weight"),
    ),
    schedule=Cosine(warmup_fraction=0.04, final_fraction=0.05),
    batch_size=8 * 16 * 2_048,
    num_steps=7_000,
    max_positions=16,
    seed=56,
)

POCKET_CODEC_PHONES = replace(
    POCKET_CODEC_AHEAD,
    name="pocket-codec-phones",
    paper="section 3.1: stands for the pretrained codec, with SNAC's clock and shape; codes tell phones",
    starts_from=("pocket-codec-ahead",),
    mixture=(
        Source(manifest="aloud", task="sound", weight=0.1),
        Source(manifest="answers", task="sound", weight=0.25),
        Source(manifest="answers_more", task="sound", weight=0.2),
        Source(manifest="aloud_more", task="sound", weight=0.15),
        Source(manifest="aloud_drills", task="sound", weight=0.3),
    ),
    objective=CodecTraining(phone_weight=0.3),
    num_steps=5_000,
    seed=66,
)

POCKET_ALIGN = Recipe(
    name="pocket-align",
    # the paper aligns by transcription alone; questions that the text model can answer align what is meant.
    # Frames carry the text embeddings of the words that they are like, in half of the clips alone
    paper="section 3.3, stage 1",
    starts_from=("pocket-encoder-far", "pocket-text", "pocket-codec-phones"),
    model=DialoguePart(
        adapter=AdapterConfig(
            kind="gated_mlp",
            stride=4,
            in_width=192,
            hidden=112,
            out_width=192,
            levelled=True,
            worded=True,
            dropout=0.1,
        ),
        layout=POCKET_LAYOUT,
        mel=POCKET_MEL,
        fusion="sum",
    ),
    routing=Routing(text="all", audio="all"),
    trains=("adapter.*", "embedding.*", "heads.codec.*", "hearing.*"),
    mixture=(
        Source(manifest="speech_train", task="speech_to_text", weight=0.36),
        Source(manifest="reading", task="asr", weight=0.18),
        Source(manifest="questions", task="asr", weight=0.08),
        Source(manifest="questions_more", task="asr", weight=0.10),
        Source(manifest="questions_rest", task="asr", weight=0.10),
        Source(manifest="drills", task="asr", weight=0.18),
    ),
    objective=Supervised(text_weight=1 / 8, codec_weight=1 / 8, hearing_weight=1.0, words_alone=0.5),
    optim=Muon(lr=2e-3, betas=(0.9, 0.95), matrices=("adapter.*",)),
    schedule=Cosine(warmup_fraction=0.03, final_fraction=0.05),
    batch_size=3_000,
    accumulate=2,
    num_steps=600,
    encoded_passes=2,
    max_positions=400,
    save_every=100,
    seed=45,
)

# which word and which phone an answer is saying
_SAID = Alignment(word_weight=0.5, phone_weight=1.0, word_layer=3, phone_layer=4)

POCKET_AUDIO_EXPERTS = Recipe(
    name="pocket-audio-experts",
    paper="section 3.3, stage 2.1; algorithm 1, steps 1 and 2",
    starts_from=("pocket-align",),
    partition=ByLoad(
        num_audio_experts=8,
        num_batches=24,
        audio=(Source(manifest="speech_train", task="speech_to_speech"),),
        text=(Source(manifest="speech_train", task="text_to_speech"),),
    ),
    routing=Routing(text="audio", audio="audio"),
    trains=("backbone.*.experts.audio.*", "embedding.*", "heads.codec.*", "alignment.*"),
    mixture=(
        Source(manifest="speech_train", task="speech_to_speech", weight=0.20),
        Source(manifest="speech_train", task="text_to_speech", weight=0.15),
        Source(manifest="answers_more", task="recite", weight=0.15),
        Source(manifest="aloud_more", task="recite", weight=0.15),
        Source(manifest="aloud_drills", task="recite", weight=0.15),
        Source(manifest="aloud_drills", task="read_aloud", weight=0.20),
    ),
    # codes of chance among those that an answer goes on from: a model that learnt to go on from its own past
    # alone drifts away from the text
    objective=Supervised(
        text_weight=1 / 8, codec_weight=1 / 8, code_noise=0.4, words_alone=0.5, alignment=_SAID
    ),
    optim=Muon(lr=2e-3, betas=(0.9, 0.95)),
    schedule=Cosine(warmup_fraction=0.02, final_fraction=0.1),
    batch_size=3_000,
    accumulate=2,
    num_steps=800,
    encoded_passes=2,
    max_positions=400,
    save_every=100,
    seed=46,
)

POCKET_TEXT_EXPERTS = Recipe(
    name="pocket-text-experts",
    paper="section 3.3, stage 2.2; algorithm 1, step 3",
    starts_from=("pocket-audio-experts",),
    routing=Routing(text="text", audio="text"),
    trains=("backbone.*.experts.text.*",),
    mixture=(Source(manifest="text_train", task="text_to_text"),),
    evaluation=(Source(manifest="text_eval", task="text_to_text"),),
    objective=Supervised(text_weight=1 / 8, codec_weight=1 / 8, balance_weight=0.0005),
    optim=AdamW(lr=5e-4, betas=(0.9, 0.95)),
    schedule=Cosine(warmup_fraction=0.05, final_fraction=0.05),
    batch_size=2_048,
    num_steps=100,
    max_positions=400,
    seed=47,
)

POCKET_JOINT = Recipe(
    name="pocket-joint",
    paper="section 3.3, stage 3; algorithm 1, step 4",
    starts_from=("pocket-text-experts",),
    routing=Routing(text="all", audio="all"),
    # unlike the paper's stage 3 the adapter goes on learning, as stage 1 of so small a model leaves it raw,
    # and text weighs more than an eighth: seven streams of unlearnt codes would drown its gradient
    trains=("adapter.*", "backbone.*", "embedding.*", "heads.codec.*", "alignment.*", "hearing.*"),
    # what is heard or said often is learnt by heart: questions and statements without sense, and words in a
    # row by lot, teach to listen and to read. What an answer says stands in its own text stream alone: that
    # is practised on all that is read aloud. What text has taught is asked as if it had been heard so, too
    mixture=(
        Source(manifest="speech_train", task="speech_to_speech", weight=0.10),
        Source(manifest="speech_train", task="speech_to_speech", weight=0.05, only=("facts", "smalltalk")),
        Source(manifest="speech_train", task="speech_to_speech", weight=0.02, only=("reasoning",)),
        Source(manifest="speech_train", task="speech_to_text", weight=0.08),
        Source(manifest="speech_train", task="speech_to_text", weight=0.03, only=("facts", "smalltalk")),
        Source(manifest="speech_train", task="speech_to_text", weight=0.01, only=("days_later",)),
        Source(manifest="speech_train", task="speech_to_text", weight=0.01, only=("reasoning",)),
        Source(manifest="speech_train", task="text_to_speech", weight=0.02),
        Source(manifest="answers", task="recite", weight=0.02),
        Source(manifest="answers_more", task="recite", weight=0.05),
        Source(manifest="aloud_more", task="recite", weight=0.03),
        Source(manifest="aloud_drills", task="recite", weight=0.10),
        Source(manifest="answers_more", task="read_aloud", weight=0.01),
        Source(manifest="aloud_more", task="read_aloud", weight=0.02),
        Source(manifest="aloud_drills", task="read_aloud", weight=0.04),
        Source(manifest="reading", task="asr", weight=0.04),
        Source(manifest="reading", task="asr", weight=0.04, only=("digit",)),
        Source(manifest="questions", task="asr", weight=0.01),
        Source(manifest="questions_more", task="asr", weight=0.02),
        Source(manifest="questions_rest", task="asr", weight=0.02),
        Source(manifest="mixed", task="asr", weight=0.01),
        Source(manifest="drills", task="asr", weight=0.04),
        Source(manifest="text_train", task="text_as_heard", weight=0.08),
        Source(manifest="text_train", task="text_as_heard", weight=0.04, only=("facts",)),
        Source(manifest="text_more", task="text_as_heard", weight=0.03),
        Source(manifest="text_train", task="text_to_text", weight=0.04),
        Source(manifest="text_train", task="text_to_text", weight=0.01, only=("days_later",)),
        Source(manifest="text_more", task="text_to_text", weight=0.02),
        Source(manifest="reading_train", task="repeat", weight=0.01),
    ),
    evaluation=(Source(manifest="text_eval", task="text_to_text"),),
    objective=Supervised(
        text_weight=1.0,
        codec_weight=1 / 8,
        balance_weight=0.0005,
        code_noise=0.4,
        hearing_weight=0.1,
        words_alone=0.5,
        alignment=_SAID,
    ),
    optim=Muon(
        lr=1.5e-3,
        betas=(0.9, 0.95),
        weight_decay=0.02,
        matrices=("*layers.*", "adapter.*", "!*.gate.weight"),
    ),
    # 315 steps up, along a cosine of 10,500 to step 3,150, then straight down
    schedule=Cosine(warmup_fraction=0.05625, final_fraction=0.02, horizon=1.875, cooldown_fraction=0.4375),
    batch_size=3_000,
    accumulate=4,
    num_steps=5_600,
    encoded_passes=2,
    max_positions=400,
    average=0.998,
    eval_every=1_000,
    save_every=250,
    seed=80,
)

_PUZZLES = ("chain", "compare", "pair", "possession", "extreme", "contains")

POCKET_JOINT_MORE = replace(
    POCKET_JOINT,
    name="pocket-joint-more",
    # more that is asked and answered aloud, more puzzles in text
    starts_from=("pocket-joint",),
    mixture=(
        Source(manifest="speech_train", task="speech_to_speech", weight=0.12),
        Source(manifest="speech_train", task="speech_to_speech", weight=0.06, only=("facts", "smalltalk")),
        Source(manifest="speech_train", task="speech_to_speech", weight=0.03, only=("reasoning",)),
        Source(manifest="speech_train", task="speech_to_text", weight=0.05),
        Source(manifest="speech_train", task="speech_to_text", weight=0.02, only=("facts", "smalltalk")),
        Source(manifest="speech_train", task="speech_to_text", weight=0.01, only=("days_later",)),
        Source(manifest="speech_train", task="speech_to_text", weight=0.02, only=("reasoning", "strings")),
        Source(manifest="speech_train", task="speech_to_text", weight=0.01, only=("refusal",)),
        Source(manifest="speech_train", task="text_to_speech", weight=0.02),
        Source(manifest="answers", task="recite", weight=0.03),
        Source(manifest="answers_more", task="recite", weight=0.06),
        Source(manifest="aloud_more", task="recite", weight=0.03),
        Source(manifest="aloud_drills", task="recite", weight=0.06),
        Source(manifest="answers_more", task="read_aloud", weight=0.01),
        Source(manifest="aloud_more", task="read_aloud", weight=0.01),
        Source(manifest="aloud_drills", task="read_aloud", weight=0.03),
        Source(manifest="reading", task="asr", weight=0.03),
        Source(manifest="reading", task="asr", weight=0.03, only=("digit",)),
        Source(manifest="questions", task="asr", weight=0.01),
        Source(manifest="questions_more", task="asr", weight=0.02),
        Source(manifest="questions_rest", task="asr", weight=0.02),
        Source(manifest="mixed", task="asr", weight=0.01),
        Source(manifest="drills", task="asr", weight=0.03),
        Source(manifest="text_train", task="text_as_heard", weight=0.07),
        Source(manifest="text_train", task="text_as_heard", weight=0.05, only=("facts",)),
        Source(manifest="text_more", task="text_as_heard", weight=0.03),
        Source(manifest="text_train", task="text_to_text", weight=0.05),
        Source(manifest="text_train", task="text_to_text", weight=0.01, only=("days_later",)),
        Source(manifest="text_more", task="text_to_text", weight=0.04),
        Source(manifest="text_more", task="text_to_text", weight=0.02, only=("reasoning",)),
        Source(manifest="reading_train", task="repeat", weight=0.01),
    ),
    optim=replace(POCKET_JOINT.optim, lr=1.0e-3),
    schedule=Cosine(warmup_fraction=0.03, final_fraction=0.02),
    num_steps=2_000,
    average=0.997,
    eval_every=500,
    seed=82,
)

POCKET_JOINT_PUZZLES = replace(
    POCKET_JOINT_MORE,
    name="pocket-joint-puzzles",
    # who has what, who is taller, which number is the smallest: what text still gets wrong, a quarter of all
    starts_from=("pocket-joint-more",),
    mixture=(
        Source(manifest="speech_train", task="speech_to_speech", weight=0.11),
        Source(manifest="speech_train", task="speech_to_speech", weight=0.05, only=("facts", "smalltalk")),
        Source(manifest="speech_train", task="speech_to_speech", weight=0.02, only=("reasoning",)),
        Source(manifest="speech_train", task="speech_to_text", weight=0.04),
        Source(manifest="speech_train", task="speech_to_text", weight=0.03, only=("facts", "smalltalk")),
        Source(manifest="speech_train", task="speech_to_text", weight=0.01, only=("days_later",)),
        Source(manifest="speech_train", task="speech_to_text", weight=0.01, only=("reasoning", "strings")),
        Source(manifest="speech_train", task="speech_to_text", weight=0.01, only=("refusal",)),
        Source(manifest="speech_train", task="text_to_speech", weight=0.01),
        Source(manifest="answers", task="recite", weight=0.02),
        Source(manifest="answers_more", task="recite", weight=0.04),
        Source(manifest="aloud_more", task="recite", weight=0.02),
        Source(manifest="aloud_drills", task="recite", weight=0.05),
        Source(manifest="answers_more", task="read_aloud", weight=0.01),
        Source(manifest="aloud_drills", task="read_aloud", weight=0.03),
        Source(manifest="reading", task="asr", weight=0.02),
        Source(manifest="reading", task="asr", weight=0.03, only=("digit",)),
        Source(manifest="questions", task="asr", weight=0.01),
        Source(manifest="questions_more", task="asr", weight=0.02),
        Source(manifest="questions_rest", task="asr", weight=0.01),
        Source(manifest="mixed", task="asr", weight=0.01),
        Source(manifest="drills", task="asr", weight=0.02),
        Source(manifest="text_train", task="text_as_heard", weight=0.04),
        Source(manifest="text_train", task="text_as_heard", weight=0.03, only=("facts",)),
        Source(manifest="text_more", task="text_as_heard", weight=0.05, only=_PUZZLES),
        Source(manifest="text_train", task="text_to_text", weight=0.05),
        Source(manifest="text_train", task="text_to_text", weight=0.01, only=("days_later",)),
        Source(manifest="text_more", task="text_to_text", weight=0.04),
        Source(manifest="text_more", task="text_to_text", weight=0.19, only=_PUZZLES),
        Source(manifest="reading_train", task="repeat", weight=0.01),
    ),
    num_steps=1_400,
    average=0.995,
    start_share=0.5,
    eval_every=350,
    seed=84,
)

POCKET_PIPELINE = (
    POCKET_CODEC_AHEAD,
    POCKET_CODEC_PHONES,
    POCKET_TEXT,
    POCKET_ENCODER_START,
    POCKET_ENCODER,
    POCKET_ENCODER_ROOMS,
    POCKET_ENCODER_MORE,
    POCKET_ENCODER_WIDE,
    POCKET_ENCODER_FAR,
    POCKET_ALIGN,
    POCKET_AUDIO_EXPERTS,
    POCKET_TEXT_EXPERTS,
    POCKET_JOINT,
    POCKET_JOINT_MORE,
    POCKET_JOINT_PUZZLES,
)
