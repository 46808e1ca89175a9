"""Which unique-id a message has: what is kept, what a list says, what the name gives; and never two with one."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from pop3d.stores.maildir.given_ids import GivenIds, IdGiver, id_of_name


def given_to(names: list[bytes], ids: GivenIds) -> tuple[list[bytes], IdGiver]:
    names = sorted(names)

    def is_one(uid: bytes) -> bool:
        place = bisect_left(names, uid)
        return names[place : place + 1] == [uid]

    giver = IdGiver(ids, names, is_one)
    return [giver.give(name, name) for name in names], giver


def test_what_is_kept_comes_before_the_list_and_the_list_before_the_name() -> None:
    ids = GivenIds({b"1": b"told"}, {b"1": b"listed-1", b"2": b"listed-2"}, keeps=True)
    uids, giver = given_to([b"1", b"2", b"3"], ids)
    assert uids == [b"told", b"listed-2", b"3"]
    assert giver.fresh == {b"2": b"listed-2", b"3": b"3"}
    assert giver.troubles == []


def test_nothing_is_to_be_kept_without_another_servers_ids() -> None:
    uids, giver = given_to([b"1", b"2"], GivenIds({b"1": b"imported"}))
    assert uids == [b"imported", b"2"]
    assert giver.fresh == {}


def test_an_id_that_was_told_for_another_message_is_not_told_again() -> None:
    """A new list of Dovecot's counts from 1 again: with %u a client would take the message for one that it has."""
    uids, giver = given_to([b"2", b"3"], GivenIds({b"1": b"7"}, {b"2": b"7", b"3": b"8"}, keeps=True))
    assert uids == [b"2", b"8"]
    assert giver.troubles == ["message '2': the unique-id 7 was given to another message; it has that of its file name"]


def test_of_two_messages_with_one_id_the_first_has_it() -> None:
    uids, giver = given_to([b"1", b"2"], GivenIds({}, {b"1": b"same", b"2": b"same"}, keeps=True))
    assert uids == [b"same", b"2"]
    assert len(giver.troubles) == 1
    uids, giver = given_to([b"1", b"2"], GivenIds({b"1": b"same", b"2": b"same"}))
    assert uids == [b"same", b"2"]
    assert giver.fresh == {b"2": b"2"}  # from now on it is kept
    assert len(giver.troubles) == 1


def test_a_name_whose_id_another_message_was_told_gets_a_hash() -> None:
    uids, _ = given_to([b"1", b"2"], GivenIds({b"2": b"1"}))
    assert uids[1] == b"1"
    assert len(uids[0]) == 64


def test_what_is_made_of_a_name() -> None:
    ids = GivenIds(unlisted=lambda name: b"<%b>" % name if name != b"2" else None)
    assert given_to([b"1", b"2"], ids)[0] == [b"<1>", b"2"]
    # another file's name is not taken
    assert given_to([b"1", b"2"], GivenIds(unlisted=lambda _: b"2"))[0] == [b"1", b"2"]


NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"x y"])
UIDS = st.sampled_from([b"a", b"b", b"1", b"2", id_of_name(b"x y")])


@given(st.lists(NAMES, unique=True), st.dictionaries(NAMES, UIDS), st.dictionaries(NAMES, UIDS), st.booleans())
def test_ids_are_unique_and_stay(
    names: list[bytes], kept: dict[bytes, bytes], listed: dict[bytes, bytes], keeps: bool
) -> None:
    uids, giver = given_to(names, GivenIds(kept, listed, keeps=keeps))
    assert len(set(uids)) == len(uids)
    if len(set(kept.values())) == len(kept):
        assert all(uid == kept[name] for name, uid in zip(sorted(names), uids, strict=True) if name in kept)
    # whatever happens to the list, what was told and kept stays
    again, _ = given_to(names, GivenIds({**kept, **giver.fresh}, {}, keeps=keeps))
    if keeps:
        assert again == uids
