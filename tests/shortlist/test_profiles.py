"""User attributes become integer codes; attributes that don't distinguish groups are left out."""

import json
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shortlist.features.profiles import MAX_VALUES, ProfileEncoder

PROFILES = st.lists(
    st.dictionaries(st.sampled_from(["age", "group", "city"]), st.sampled_from("abcdef")),
    max_size=30,
)


@given(PROFILES)
def test_codes_tell_values_apart_and_survive_json(people):
    encoder = ProfileEncoder.fit(people)
    codes = encoder.encode(people)
    assert codes.shape == (len(people), len(encoder.names))
    for column, (name, values) in enumerate(zip(encoder.names, encoder.values, strict=True)):
        for person, code in zip(people, codes[:, column], strict=True):
            assert code == (values.index(person[name]) + 1 if person.get(name) in values else 0)
        assert codes[:, column].max(initial=0) < encoder.cardinalities[column]
    assert ProfileEncoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder


@given(PROFILES, st.randoms(use_true_random=False))
def test_the_order_of_the_people_changes_no_code(people, random):
    shuffled = random.sample(people, len(people))
    assert ProfileEncoder.fit(shuffled) == ProfileEncoder.fit(people)


def test_a_value_of_one_person_is_unknown():
    encoder = ProfileEncoder.fit([{"group": "x"}, {"group": "x"}, {"group": "only mine"}])
    assert encoder.values == (("x",),)
    assert encoder.encode([{"group": "only mine"}]).tolist() == [[0]]


def test_an_attribute_of_too_many_values_is_left_out():
    def people(count: int) -> list[dict[str, str]]:
        return [{"city": f"c{i}"} for i in range(count) for _ in range(2)]

    assert ProfileEncoder.fit(people(MAX_VALUES)).cardinalities == (MAX_VALUES + 1,)
    assert ProfileEncoder.fit(people(MAX_VALUES + 1)).names == ()


def test_attributes_that_training_never_saw_are_ignored():
    encoder = ProfileEncoder.fit([{"group": "x"}] * 2)
    assert np.array_equal(encoder.encode([{"group": "x", "shoe": "44"}]), [[1]])


def test_surface_and_device_are_codes_of_what_the_log_tells_apart():
    places = [("home", "phone"), ("search", "phone"), ("home", "phone"), ("search", "phone")]
    encoder = ProfileEncoder.fit([], places=Counter([*places, ("kiosk", "phone")]))
    # "kiosk" occurs only once, and all devices are phones.
    assert encoder.places == (("home", "search"), ())
    codes = encoder.encode_places(["search|phone|06", "home|tv|23", "kiosk|phone|00", ""])
    assert codes.tolist() == [[2, 0], [1, 0], [0, 0], [0, 0]]
    assert ProfileEncoder.fit([], places={("home", None): 2, ("home", "tv"): 2}).places == (
        (),
        ("tv",),  # a missing device is a group too, so "tv" distinguishes requests
    )
    assert ProfileEncoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder
