import functools
import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.core.tokenization import _PIECES, BPETokenizer, CharTokenizer

TEXT = "low lower lowest newer newest widest, lower the lowest! " * 3 + "naïve café 東京 \n\t  x"


@functools.cache
def trained():
    return BPETokenizer(300).train(TEXT)


@functools.cache
def characters():
    return CharTokenizer().build_vocab(TEXT)


def slow_merges(text, wanted):
    """Count all pairs anew for every merge; ties go to the smaller tokens."""
    words = [list(piece.encode()) for piece in _PIECES.findall(text)]
    merges = []
    while len(merges) < wanted:
        counts = Counter(pair for word in words for pair in pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        new = 256 + len(merges)
        for word in words:
            at = 0
            while at < len(word) - 1:
                if (word[at], word[at + 1]) == best:
                    word[at : at + 2] = [new]
                at += 1
        merges.append(best)
    return merges


@given(st.text())
def test_bytes_pairs_give_back_any_text(text):
    assert trained().decode(trained().encode(text)) == text
    assert BPETokenizer().decode(BPETokenizer().encode(text)) == text


@given(st.text(st.characters(exclude_categories=[])))
def test_lone_surrogates_come_back_too(text):
    assert trained().decode(trained().encode(text)) == text


@given(st.text(alphabet="aab c.\n", min_size=1, max_size=60), st.integers(0, 20))
def test_counting_as_it_goes_gives_the_merges_of_counting_anew(text, wanted):
    assert BPETokenizer(256 + wanted).train(text).merges == slow_merges(text, wanted)


@given(st.text())
def test_pieces_cover_every_text(text):
    assert "".join(_PIECES.findall(text)) == text


def test_the_first_merge_is_the_most_frequent_pair():
    tokenizer = BPETokenizer(258).train("abab abab ab")
    assert tokenizer.merges == [(ord("a"), ord("b")), (ord(" "), 256)]
    assert tokenizer.encode("ab ab") == [256, 257]
    assert tokenizer.vocab_size == 258


def test_of_equal_pairs_the_smaller_tokens_come_first():
    assert BPETokenizer(257).train("dc,dc,ab,ab").merges == [(ord("a"), ord("b"))]
    assert BPETokenizer(257).train("ab,ab,dc,dc").merges == [(ord("a"), ord("b"))]


def test_merging_makes_text_shorter():
    assert len(trained().encode(TEXT)) < 0.6 * len(TEXT.encode())


def test_several_texts_are_learned_together_but_not_across_their_borders():
    assert BPETokenizer(300).train(["ab", "ab"]).merges == [(97, 98)]
    assert BPETokenizer(300).train(["a", "b"] * 9).merges == []


def test_training_again_forgets_what_was_learned():
    assert BPETokenizer(300).train("xyxy").train("abab").merges == BPETokenizer(300).train("abab").merges


@pytest.mark.parametrize("make", [trained, characters])
def test_a_tokenizer_comes_back_from_its_state_through_json(make):
    tokenizer = make()
    again = type(tokenizer).from_state(json.loads(json.dumps(tokenizer.state)))
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert again.state == tokenizer.state


def test_ids_that_are_no_text_decode_without_an_error():
    assert BPETokenizer().decode([0xE6, ord("a")]) == "\ufffda"


@given(st.text(alphabet=sorted(set(TEXT))))
def test_characters_give_back_any_text_of_their_vocabulary(text):
    tokenizer = CharTokenizer().build_vocab(TEXT)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_characters_are_numbered_in_their_order():
    tokenizer = CharTokenizer().build_vocab(["ca", "b"])
    assert tokenizer.vocab == ["a", "b", "c"]
    assert tokenizer.encode("cab") == [2, 0, 1]


def test_an_unknown_character_is_named_with_its_position():
    with pytest.raises(ValueError, match="got 'z' at position 2"):
        CharTokenizer().build_vocab("abc").encode("abzc")


@pytest.mark.parametrize("make", [trained, characters])
def test_wrong_ids_are_refused(make):
    tokenizer = make()
    with pytest.raises(IndexError, match="`ids` must lie in 0 to"):
        tokenizer.decode([0, tokenizer.vocab_size])
    with pytest.raises(ValueError, match="`ids` must lie in 0 to"):
        tokenizer.decode([-1])
    with pytest.raises(ValueError, match="one axis"):
        tokenizer.decode([[0, 1]])
    with pytest.raises(ValueError, match="whole numbers"):
        tokenizer.decode([0.5])
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("learn", [CharTokenizer().build_vocab, BPETokenizer().train])
def test_texts_that_are_no_text_are_refused(learn):
    with pytest.raises(ValueError, match="`texts` must hold some text"):
        learn([])
    with pytest.raises(ValueError, match="`texts` must hold some text"):
        learn("")
    with pytest.raises(ValueError, match="`texts` must be text, got int"):
        learn(["a", 3])


def test_text_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match="`text` must be text, got bytes"):
        trained().encode(b"a")


@pytest.mark.parametrize("size", [255, -1, 300.0, True])
def test_impossible_vocabularies_are_refused(size):
    with pytest.raises(ValueError, match="`vocab_size` must be"):
        BPETokenizer(size)


def test_a_merge_of_tokens_that_come_later_is_refused():
    with pytest.raises(ValueError, match="`merges` must join tokens below 256"):
        BPETokenizer.from_state({"vocab_size": 300, "merges": [[256, 97]]})
