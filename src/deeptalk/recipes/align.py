"""Stage 1: adapter and rows of the new streams learn to hear; encoder and backbone stay as they are."""

from deeptalk.audio import MelSpec
from deeptalk.experts import Routing
from deeptalk.model.adapter import AdapterConfig
from deeptalk.streams import StreamLayout
from deeptalk.streams.layout import PAPER_TEMPLATE
from deeptalk.training.optim import AdamW
from deeptalk.training.parts import DialoguePart
from deeptalk.training.recipe import Recipe, Source
from deeptalk.training.schedule import Cosine
from deeptalk.training.supervised import Supervised

ALIGN = Recipe(
    name="align",
    paper="section 3.3, stage 1; tables 5 and 6",
    starts_from=("whisper-medium", "deepseek-v2-lite", "snac-24khz"),
    model=DialoguePart(
        # section 4.1 says MLP, section 3.1 convolution and further downsampling: an MLP with a stride is both
        adapter=AdapterConfig(kind="gated_mlp", stride=4, in_width=1_024, hidden=7_168, out_width=2_048),
        layout=StreamLayout(
            vocab_size=102_400,
            codebook_size=4_096,
            num_specials=64,
            bos_id=100_000,
            eos_id=100_001,
            speakers={"M29": 0, "F10": 1},
            template=PAPER_TEMPLATE,
        ),
        mel=MelSpec(),
        fusion="mean8",  # eq. 3 as the authors' code reads it
    ),
    routing=Routing(text="all", audio="all"),
    # the paper doesn't say whether new rows train here; without them nobody could ask for a transcript
    trains=("adapter.*", "embedding.*", "heads.codec.*"),
    mixture=(Source(manifest="wenetspeech", task="asr"),),
    objective=Supervised(text_weight=1 / 8, codec_weight=1 / 8, text_chunk=1_024),
    # betas from section 4.1; weight decay, warm-up, epochs, positions, seed from the authors' scripts
    optim=AdamW(lr=2e-5, betas=(0.9, 0.95), weight_decay=0.0),
    schedule=Cosine(warmup_fraction=0.03),
    epochs=1,
    batch_size=16 * 500,  # 16 dialogues per GPU, table 6
    max_positions=500,
    precision="bf16",
    weights="bf16",
    recompute="layers",
    max_bad_steps=10,
    max_bad_fraction=0.01,
    seed=42,
)
