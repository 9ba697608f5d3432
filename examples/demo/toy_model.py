"""A toy language model: a Markov chain of order 2 over one page of text."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

_TEXT = Path(__file__).parent / "toy_model_text.txt"
_WORD = re.compile(r"[a-z']+|[.,]")
_ENDS_SENTENCE = "."
_START = ("", "")
_OPENING_WORDS = 3
# A word that is in more sentences than this says nothing about the question.
_MOST_SENTENCES_OF_RARE_WORD = 12
_Pair = tuple[str, str]
# 1 / temperature is an exponent. Below this temperature the model always takes the most frequent word.
_COLDEST = 0.05


class ToyModel:
    """Answers with sentences that sound like its text. It understands nothing.

    A prompt steers it in one way: an answer begins like sentences that share rare words with the prompt, and prefers
    the prompt's words as it goes on.

    Args:
        text: sentences, each ending with a full stop.
    """

    def __init__(self, text: str) -> None:
        self._followers: dict[_Pair, Counter[str]] = defaultdict(Counter)
        self._openings: list[tuple[str, ...]] = []
        self._frequency: Counter[str] = Counter()
        for sentence in text.splitlines():
            words = tuple(words_of(sentence))
            self._openings.append(words[:_OPENING_WORDS])
            self._frequency.update(set(words))
            before = _START
            for word in words:
                self._followers[before][word] += 1
                before = (before[1], word)
        self._sentences = [frozenset(words_of(sentence)) for sentence in text.splitlines()]

    def answer(self, prompt: str, *, sentences: int = 3, temperature: float = 1.0, seed: int = 0) -> Iterator[str]:
        """Yield an answer word by word, with the spaces between. The same arguments give the same answer.

        Args:
            prompt: the question.
            sentences: how many sentences the answer has.
            temperature: 0 takes the most frequent words, 1 draws words as often as the text has them, more evens them
                out.
            seed: selects one of the possible answers.
        """
        draw = random.Random(f"{seed} {prompt}")  # noqa: S311 - a toy's dice
        rare = (word for word in words_of(prompt) if self._frequency[word] <= _MOST_SENTENCES_OF_RARE_WORD)
        asked = frozenset(rare)
        told: set[tuple[str, ...]] = set()
        starts_answer = True
        for _ in range(sentences):
            opening = self._opening(asked, told, draw)
            told.add(opening)
            starts_sentence = True
            for word in self._sentence(opening, asked, temperature, draw):
                shown = _capitalised(word) if starts_sentence or word == "i" else word
                yield shown if word in ".," or starts_answer else f" {shown}"
                starts_sentence = starts_answer = False

    def _opening(self, asked: frozenset[str], told: set[tuple[str, ...]], draw: random.Random) -> tuple[str, ...]:
        """Choose a sentence's first words: most likely those of a sentence that shares rare words with the question."""
        weights = [
            0.0 if opening in told else 0.01 + sum(1 / self._frequency[word] for word in words & asked) ** 2
            for opening, words in zip(self._openings, self._sentences, strict=True)
        ]
        return draw.choices(self._openings, weights)[0]

    def _sentence(
        self, opening: tuple[str, ...], asked: frozenset[str], temperature: float, draw: random.Random
    ) -> Iterator[str]:
        before = _START
        for word in opening:
            yield word
            before = (before[1], word)
        while before[1] != _ENDS_SENTENCE:
            followers = self._followers[before]
            word = draw.choices(list(followers), self._weights(followers, asked, temperature))[0]
            yield word
            before = (before[1], word)

    def _weights(self, followers: Mapping[str, int], asked: frozenset[str], temperature: float) -> list[float]:
        largest = max(followers.values())
        exponent = 1 / max(temperature, _COLDEST)
        return [(count / largest) ** exponent * (4 if word in asked else 1) for word, count in followers.items()]


@cache
def toy_model() -> ToyModel:
    """Return the model of the embedded text."""
    return ToyModel(_TEXT.read_text(encoding="utf-8"))


def words_of(text: str) -> list[str]:
    """Return the words, commas and full stops of `text`, in lower case."""
    return _WORD.findall(text.lower().replace("’", "'"))


def _capitalised(word: str) -> str:
    return word[0].upper() + word[1:]
