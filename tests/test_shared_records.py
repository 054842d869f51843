"""Small records that all workers share: found by their numbers, and few at any time."""

import ctypes

from routeproxy.shared_records import PLACES, Record, SharedRecords


class Count(Record):
    _fields_ = (("value", ctypes.c_uint32),)

    value: int


def records(size: int = 64) -> SharedRecords[Count]:
    return SharedRecords(Count, size, shared=False)


def test_a_record_is_found_again_by_its_number() -> None:
    kept = records()
    kept.find(7).value = 5
    assert kept.find(7).value == 5
    assert [record.id for record in kept] == [7]


def test_looking_for_one_makes_none() -> None:
    kept = records()
    assert kept.get(7) is None
    assert [*kept] == []


def test_numbers_that_want_one_place_have_records_of_their_own() -> None:
    kept = records()
    alike = [1 + 64 * number for number in range(PLACES)]
    for value, number in enumerate(alike):
        kept.find(number).value = value
    assert [kept.find(number).value for number in alike] == [*range(PLACES)]


def test_where_there_is_no_room_the_one_that_was_asked_for_longest_ago_goes() -> None:
    kept = records()
    alike = [1 + 64 * number for number in range(PLACES + 1)]
    for number in (*alike[:PLACES], alike[0], alike[PLACES]):
        kept.find(number).value = number
    assert {record.id for record in kept} == {*alike} - {alike[1]}
    assert (kept.find(alike[0]).value, kept.find(alike[1]).value) == (alike[0], 0)


def test_a_record_that_was_given_back_is_the_first_to_be_taken() -> None:
    kept = records()
    alike = [1 + 64 * number for number in range(PLACES + 1)]
    for number in alike[:PLACES]:
        kept.find(number)
    kept.find(alike[3]).id = 0
    kept.find(alike[PLACES])
    assert {record.id for record in kept} == {*alike} - {alike[3]}


def test_ever_new_numbers_are_looked_for_in_few_places_and_leave_nothing_behind() -> None:
    kept = records()
    looked_at = 0

    class Places:
        def __init__(self, array: object) -> None:
            self._array = array

        def __getitem__(self, place: int) -> Count:
            nonlocal looked_at
            looked_at += 1
            record: Count = self._array[place]  # type: ignore[index]
            return record

    kept._records = Places(kept._records)
    for number in range(1, 10_001):
        kept.find(number)
    assert looked_at <= 3 * PLACES * 10_000
    assert not any(isinstance(value, dict | list | set) and value for value in vars(kept).values())
