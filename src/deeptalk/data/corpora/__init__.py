"""Published corpora as manifests: from the layout in which each is published, with its licence."""

from deeptalk.data.corpora.contamination import KnownQuestions
from deeptalk.data.corpora.corpus import Corpus, Prepared, prepare_records
from deeptalk.data.corpora.folder import read_folder
from deeptalk.data.corpora.speech import AISHELL, LIBRISPEECH, WENETSPEECH
from deeptalk.data.corpora.spoken_dialogue import AUDIO_QA
from deeptalk.data.corpora.text import CAMEL_AI_MATH, DOLLY, MATH_INSTRUCT

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (WENETSPEECH, AUDIO_QA, MATH_INSTRUCT, CAMEL_AI_MATH, DOLLY, LIBRISPEECH, AISHELL)
}

__all__ = ["CORPORA", "Corpus", "KnownQuestions", "Prepared", "prepare_records", "read_folder"]
