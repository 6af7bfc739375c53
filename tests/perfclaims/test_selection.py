"""Names that are known are found however they are written; unknown ones are told with their neighbours."""

import pytest

from perfclaims.selection import is_pattern, left_out_by_module, matching_claims, matching_modules

IDS = ["caching.generation", "caching.memory", "quantization.size", "odd[1]"]
MODULES = ["module_16_acceleration", "module_17_quantization", "module_07_attention", "serving"]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["caching.*"], {"caching.generation", "caching.memory"}),
        (["caching.*", "quantization.size"], {"caching.generation", "caching.memory", "quantization.size"}),
        (["*.s?ze"], {"quantization.size"}),
        (["odd[1]"], {"odd[1]"}),
        (["*"], set(IDS)),
        ([], set()),
    ],
)
def test_claims_are_found_by_id_and_by_pattern(patterns, found):
    assert matching_claims(patterns, IDS) == found


def test_case_matters_in_ids():
    with pytest.raises(ValueError, match=r"unknown claim 'CACHING\.memory'"):
        matching_claims(["CACHING.memory"], IDS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("caching.memry", "nearest are 'caching.memory'"),
        ("size", "nearest are 'quantization.size'"),
        ("caching", r"unknown claim 'caching'; 'caching\.\*' means all of that family, 2 in number$"),
        ("caching.", r"'caching\.\*' means all of that family"),
        ("quantization.*.x", "nearest are 'quantization.size'"),
        ("zzz", "known are: caching.generation, caching.memory, quantization.size, odd\\[1\\]$"),
        ("*.zzz.*", "known are: caching.generation"),
        ("?.*", "known are: caching.generation"),
    ],
)
def test_an_unknown_claim_is_told_with_the_nearest_ids(given, said):
    with pytest.raises(ValueError, match=said):
        matching_claims(["caching.memory", given], IDS)


def test_a_long_list_of_known_ids_is_cut_and_counted():
    with pytest.raises(
        ValueError, match=r"known are: c0, c1, c2, c3, c4, c5, c6, c7 and 92 more: --list shows all$"
    ):
        matching_claims(["zzz"], [f"c{i}" for i in range(100)])


@pytest.mark.parametrize(
    "word",
    [
        "16",
        "module_16_acceleration",
        "test_module_16_acceleration",
        "test_module_16_acceleration.py",
        "acceleration",
    ],
)
def test_a_module_answers_to_its_number_its_name_its_file_and_its_word(word):
    assert matching_modules([word], MODULES) == {"module_16_acceleration"}


def test_a_number_is_found_with_and_without_its_zero_and_never_inside_another():
    assert matching_modules(["7"], MODULES) == matching_modules(["07"], MODULES) == {"module_07_attention"}
    assert matching_modules(["serving", "17"], MODULES) == {"serving", "module_17_quantization"}
    for word in ("1", "6", "", "module"):
        with pytest.raises(ValueError, match="unknown module"):
            matching_modules([word], MODULES)


def test_an_unknown_module_is_told_with_the_nearest_names():
    with pytest.raises(
        ValueError, match="unknown module 'quantisation'; the nearest are 'module_17_quantization'"
    ):
        matching_modules(["16", "quantisation"], MODULES)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "accelerate",
            "the nearest are 'module_16_acceleration'; .*: 16 or acceleration for module_16_accel",
        ),
        ("zzz", "known are: .*; a number or a name will do: 16 or acceleration for module_16_acceleration$"),
    ],
)
def test_an_unknown_module_is_told_how_short_a_name_may_be(given, said):
    with pytest.raises(ValueError, match=f"unknown module '{given}'; {said}"):
        matching_modules([given], MODULES)
    with pytest.raises(ValueError, match=r"known are: serving$"):
        matching_modules(["zzz"], ["serving"])


def test_a_claim_of_another_module_is_told_with_its_module():
    homes = {"caching.memory": "module_19_caching", "quantization.size": "module_17_quantization"}
    chosen = ["quantization.size"]
    for pattern in ("caching.memory", "caching.*"):
        said = left_out_by_module(["quantization.size", pattern], chosen, homes)
        assert said == (
            f"unknown claim '{pattern}' in the modules chosen; it is in module_19_caching, which --module "
            "leaves out"
        )
    assert left_out_by_module(["nowhere"], chosen, homes) is None
    assert left_out_by_module(["*"], chosen, homes) is None


def test_nothing_known_is_said_to_be_nothing():
    with pytest.raises(ValueError, match="known are: none"):
        matching_claims(["x"], [])


def test_patterns_are_told_from_ids():
    assert [is_pattern(text) for text in ("a.b", "a.*", "a?", "a[bc]")] == [False, True, True, True]
