"""Language models of words: estimated from transcripts, read from files, asked word by word."""

from otoscope.evaluation.language.arpa import read_arpa, write_arpa
from otoscope.evaluation.language.kenlm_model import KenlmModel
from otoscope.evaluation.language.kneser_ney import kneser_ney
from otoscope.evaluation.language.model import LanguageModel, sentence_score
from otoscope.evaluation.language.ngram import NGram
from otoscope.evaluation.language.perplexity import Perplexity, perplexity_of
from otoscope.evaluation.language.reading import read_language_model
from otoscope.evaluation.language.spelling import Spelling

__all__ = [
    "KenlmModel",
    "LanguageModel",
    "NGram",
    "Perplexity",
    "Spelling",
    "kneser_ney",
    "perplexity_of",
    "read_arpa",
    "read_language_model",
    "sentence_score",
    "write_arpa",
]
