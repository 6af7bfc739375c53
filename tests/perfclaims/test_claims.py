"""A claim says what is claimed, by whom and what would make it true; anything else is refused by name."""

import json

import numpy as np
import pytest

from perfclaims.claims import Claim
from perfclaims.criteria import OutputsMatch, Speedup
from perfclaims.records import claim_record


def declare(**changes):
    fields = {"id": "a.b", "statement": "It is fast", "criteria": [Speedup(2)]}
    return Claim(**{**fields, **changes})


def test_criteria_and_requirements_become_tuples_and_one_criterion_needs_no_list():
    declared = declare(criteria=[OutputsMatch(), Speedup(2)], requires=["avx2"])
    assert declared.criteria == (OutputsMatch(), Speedup(2))
    assert declared.requires == ("avx2",)
    assert declare(criteria=Speedup(2)).criteria == (Speedup(2),)
    assert declare(criteria=(c for c in [Speedup(3)])).criteria == (Speedup(3),)


def test_a_claim_is_asserted_with_one_thread_unless_it_says_otherwise():
    assert (declare().status, declare().threads, declare().slow) == ("asserted", 1, False)
    assert declare(threads="all", status="audited").threads == "all"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "two words"}, "`id` of a claim must be a non-empty string without spaces, got 'two words'"),
        ({"id": ""}, "`id` of a claim must be a non-empty string"),
        ({"id": 17}, "`id` of a claim must be a non-empty string without spaces, got 17"),
        ({"statement": " "}, "`statement` of claim 'a.b' is empty; say what is claimed"),
        ({"statement": None}, "`statement` of claim 'a.b' must be a string, got None"),
        ({"source": 3}, "`source` of claim 'a.b' must be a string, got 3"),
        ({"criteria": []}, "claim 'a.b' has no criteria: say what would make it true"),
        ({"criteria": ["fast"]}, "`criteria` of claim 'a.b' must be criteria such as Speedup, got 'fast'"),
        ({"criteria": 2.2}, "`criteria` of claim 'a.b' must be criteria such as Speedup, got 2.2"),
        ({"criteria": [Speedup]}, "`criteria` of claim 'a.b' must be criteria such as Speedup, got <class"),
        ({"status": "proven"}, "`status` of claim 'a.b' must be 'asserted' or 'audited', got 'proven'"),
        ({"threads": 0}, "`threads` of claim 'a.b' must be a positive integer or 'all', got 0"),
        ({"threads": True}, "`threads` of claim 'a.b' must be a positive integer or 'all', got True"),
        ({"slow": "no"}, "`slow` of claim 'a.b' must be True or False, got 'no'"),
        ({"time_limit_s": 0}, "`time_limit_s` of claim 'a.b' must be a positive number or None, got 0"),
        ({"expected_s": float("nan")}, "`expected_s` of claim 'a.b' must be a positive number or None"),
        ({"requires": "avx2"}, "`requires` of claim 'a.b' must be a tuple of CPU flags or .* got 'avx2'"),
        ({"requires": 3}, "`requires` of claim 'a.b' must be a tuple of CPU flags or callables, got 3"),
        ({"requires": [None]}, "`requires` of claim 'a.b' must be a tuple of CPU flags or callables"),
    ],
)
def test_fields_that_make_no_sense_are_refused_by_name(changes, said):
    with pytest.raises(ValueError, match=said):
        declare(**changes)


def test_durations_given_as_numpy_scalars_can_be_archived():
    record = claim_record(declare(time_limit_s=np.float32(2.5), expected_s=np.int64(3)))
    assert json.loads(json.dumps(record))["time_limit_s"] == 2.5
    assert record["expected_s"] == 3
