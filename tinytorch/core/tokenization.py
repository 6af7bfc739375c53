"""Tokenizers: text to whole numbers and back, character by character or in learned pieces."""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain, pairwise
from typing import Any, Self

from tinytorch.core.checks import indices, positive_int

Pair = tuple[int, int]
_BYTES = 256
# A word or a run of other signs takes the one space before it along; pieces never cross these borders.
_PIECES = re.compile(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+")


class CharTokenizer:
    """One token for each character of the text that the vocabulary was built from.

    Attributes:
        vocab: the characters in the order of their code points; a token is an index into it.
    """

    def __init__(self) -> None:
        self.vocab: list[str] = []
        self._tokens: dict[str, int] = {}

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self.vocab)

    @property
    def state(self) -> dict[str, Any]:
        """All that makes this tokenizer, as JSON can hold it; see `from_state`."""
        return {"vocab": list(self.vocab)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Make the tokenizer that `state` was taken from."""
        return cls().build_vocab(list(state["vocab"]))

    def build_vocab(self, texts: str | Iterable[str]) -> Self:
        """Take the characters that occur in one text or in several, and return this tokenizer.

        Raises:
            ValueError: there is no text, or something that is no string.
        """
        self.vocab = sorted(set().union(*_texts(texts)))
        self._tokens = {character: token for token, character in enumerate(self.vocab)}
        return self

    def encode(self, text: str) -> list[int]:
        """Return the token of every character.

        Raises:
            ValueError: a character that the vocabulary does not hold, named with its position.
        """
        _check_text(text, "text")
        try:
            return [self._tokens[character] for character in text]
        except KeyError:
            position = next(i for i, character in enumerate(text) if character not in self._tokens)
            raise ValueError(
                f"`text` must hold characters of the vocabulary ({self.vocab_size}, see build_vocab) only, "
                f"got {text[position]!r} at position {position}"
            ) from None

    def decode(self, ids: Any) -> str:
        """Return the text of tokens, given as a Tensor, an array or a list of one axis.

        Raises:
            ValueError: a token that does not exist (also an IndexError).
        """
        return "".join(self.vocab[token] for token in _ids(ids, self.vocab_size))


class BPETokenizer:
    """Byte-pair encoding: the pair of neighbours that occurs most becomes a token, again and again.

    It starts from the 256 bytes of UTF-8, so that every text has an encoding, and decoding gives exactly
    that text (Sennrich, Haddow and Birch 2016; on bytes, Radford et al. 2019).

    Args:
        vocab_size: how many tokens to learn, the 256 bytes among them.

    Attributes:
        merges: pairs of tokens, of which the i-th makes token 256 + i.

    Raises:
        ValueError: `vocab_size` is below 256.
    """

    def __init__(self, vocab_size: int = 1000) -> None:
        self.wanted_size = positive_int(vocab_size, "vocab_size")
        if self.wanted_size < _BYTES:
            raise ValueError(
                f"`vocab_size` must be at least {_BYTES}, one token for each byte, got {vocab_size}"
            )
        self._learned([])

    @property
    def vocab_size(self) -> int:
        """How many tokens there are: fewer than wanted before training, or where no more pairs recur."""
        return len(self._bytes)

    @property
    def state(self) -> dict[str, Any]:
        """All that makes this tokenizer, as JSON can hold it; see `from_state`."""
        return {"vocab_size": self.wanted_size, "merges": [list(pair) for pair in self.merges]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Make the tokenizer that `state` was taken from.

        Raises:
            ValueError: a merge of tokens that do not exist yet.
        """
        tokenizer = cls(state["vocab_size"])
        tokenizer._learned([(int(left), int(right)) for left, right in state["merges"]])
        return tokenizer

    def train(self, texts: str | Iterable[str]) -> Self:
        """Learn merges from one text or several, forget earlier ones, and return this tokenizer.

        Of pairs that occur equally often the one of the smaller tokens comes first: the same texts give the
        same merges. A pair that occurs once is not worth a token.

        Raises:
            ValueError: there is no text, or something that is no string.
        """
        words = Counter(chain.from_iterable(map(_PIECES.findall, _texts(texts))))
        self._learned(_merges({_utf8(word): n for word, n in words.items()}, self.wanted_size - _BYTES))
        return self

    def encode(self, text: str) -> list[int]:
        """Return the tokens of any text; each piece is merged in the order in which merges were learned."""
        _check_text(text, "text")
        pieces = _PIECES.findall(text)
        known = {piece: self._encoded(_utf8(piece)) for piece in set(pieces)}
        return [token for piece in pieces for token in known[piece]]

    def decode(self, ids: Any) -> str:
        """Return the text of tokens, given as a Tensor, an array or a list of one axis.

        Tokens that no text has, as a model may draw them, give U+FFFD for bytes that are no character.

        Raises:
            ValueError: a token that does not exist (also an IndexError).
        """
        data = b"".join(self._bytes[token] for token in _ids(ids, self.vocab_size))
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")

    def _learned(self, merges: list[Pair]) -> None:
        table = [bytes([value]) for value in range(_BYTES)]
        for left, right in merges:
            if not (0 <= left < len(table) and 0 <= right < len(table)):
                raise ValueError(
                    f"`merges` must join tokens below {len(table)} there, got {left} and {right}"
                )
            table.append(table[left] + table[right])
        self.merges = merges
        self._bytes = table
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}

    def _encoded(self, piece: bytes) -> list[int]:
        tokens = list(piece)
        while len(tokens) > 1:
            best = min(pairwise(tokens), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            tokens = _merged(tokens, best, _BYTES + self._ranks[best])
        return tokens


def _merges(words: Mapping[bytes, int], wanted: int) -> list[Pair]:
    """Return the first `wanted` merges of words, of which each occurs so many times.

    Counts are kept up to date by looking only at the words that hold the merged pair. The heap may hold
    counts that are out of date; one is believed when it equals the present count.
    """
    spelled = [list(word) for word in words]
    times = list(words.values())
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, tokens in enumerate(spelled):
        for pair in pairwise(tokens):
            counts[pair] += times[index]
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < wanted:
        count, best = heapq.heappop(heap)
        if -count != counts[best]:
            continue
        if -count < 2:  # what occurs once does not recur
            break
        changed: set[Pair] = set()
        for index in where.pop(best):
            old = spelled[index]
            new = spelled[index] = _merged(old, best, _BYTES + len(merges))
            for tokens, sign in ((old, -times[index]), (new, times[index])):
                for pair in pairwise(tokens):
                    counts[pair] += sign
                    changed.add(pair)
            for pair in pairwise(new):
                where[pair].add(index)
        merges.append(best)
        for pair in changed - {best}:
            heapq.heappush(heap, (-counts[pair], pair))
    return merges


def _merged(tokens: list[int], pair: Pair, new: int) -> list[int]:
    """Replace every occurrence of `pair`, from the left, by `new`."""
    left, right = pair
    result: list[int] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token == left and position + 1 < len(tokens) and tokens[position + 1] == right:
            result.append(new)
            position += 2
        else:
            result.append(token)
            position += 1
    return result


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _texts(texts: str | Iterable[str]) -> list[str]:
    found = [texts] if isinstance(texts, str) else list(texts)
    for text in found:
        _check_text(text, "texts")
    if not any(found):
        raise ValueError("`texts` must hold some text, got none")
    return found


def _check_text(text: Any, name: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"`{name}` must be text, got {type(text).__name__}")


def _ids(ids: Any, size: int) -> list[int]:
    tokens = indices(ids, "ids", size, "tokens in the vocabulary")
    if tokens.ndim != 1:
        raise ValueError(f"`ids` must have one axis, got shape {tokens.shape}; decode one row at a time")
    return [int(token) for token in tokens]
