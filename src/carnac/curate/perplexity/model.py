"""How well a language model of n-grams foresees a text; the model is in ARPA or KenLM's form, and KenLM queries it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carnac.core.errors import InputError
from carnac.curate.perplexity.tokens import split_sentences

EXTRA = "pip install 'carnac[perplexity]'"


@dataclass(frozen=True, slots=True)
class PerplexityModel:
    """A model that is loaded. The perplexity of a text is 10 ** (-log10 probability / tokens)."""

    model: Any

    @classmethod
    def load(cls, path: Path) -> PerplexityModel:
        """Load the model at `path`. Raises InputError where it, or the library that queries it, is not there."""
        try:
            import kenlm
        except ImportError:
            raise InputError(
                f"{path}: a language model is queried with ufal-kenlm, which is not installed; {EXTRA}"
            ) from None
        if not path.is_file():
            raise InputError(
                f"{path}: no such file. Wanted a language model in ARPA or KenLM form: a recipe of job 'perplexity' "
                "trains one (model.arpa). Without a model leave the setting out; perplexity is then not known."
            )
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            return cls(kenlm.Model(str(path), config))
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{path}: KenLM cannot read it ({' '.join(str(error).split())[:300]}). Wanted a model in ARPA or KenLM "
                "form."
            ) from None

    def score(self, text: str) -> tuple[float, int]:
        """Return (log10 probability, tokens) of a text: of each line its tokens and its end.

        Both add up over texts that begin on new lines. (0.0, 0) for a text without tokens.
        """
        probability, num_tokens = 0.0, 0
        for sentence in split_sentences(text):
            probability += self.model.score(sentence, bos=True, eos=True)
            num_tokens += sentence.count(" ") + 2
        return probability, num_tokens
