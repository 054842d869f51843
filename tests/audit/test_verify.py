"""What somebody may do to a trail, and what `routeproxy audit verify` says of it (docs/audit.md)."""

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.audit.trails import NOON, Trail, Writer, changed, public_key


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "audit")


@pytest.fixture
def writer(trail: Trail) -> Writer:
    """Its chain: 1 started, 2 to 7 three requests, 8 a signed head, 9 and 10 a request, 11 stopped, 12 a
    head."""
    writer = trail.writer()
    writer.answer("a", "b", "c")
    writer.sign()
    writer.answer("d")
    writer.stop()
    return writer


def test_a_trail_that_nobody_touched_is_whole_and_all_of_it_is_vouched_for(
    trail: Trail, writer: Writer
) -> None:
    found = trail.verified()
    assert found.findings == []
    assert (found.chains, found.records, found.requests, found.lost) == (1, 12, 4, 0)


def test_without_anchors_what_can_t_be_seen_is_said(trail: Trail, writer: Writer) -> None:
    found = trail.verified(anchors=False)
    assert found.is_whole
    assert [finding.severity for finding in found.findings] == ["unseen"]
    assert "without --anchors" in found.findings[0].words


@pytest.mark.parametrize("line", [2, 3, 7, 8, 10, 11])
@pytest.mark.parametrize("anchors", [True, False])
def test_a_changed_line_is_named(trail: Trail, writer: Writer, line: int, anchors: bool) -> None:
    def change(lines: list[bytes]) -> None:
        lines[line - 1] = changed(lines[line - 1], at="2026-12-01T13:00:00.000Z")

    writer.rewrite(change)
    (fault,) = trail.faults(anchors=anchors)
    # An anchor that names the line may say so before the next line does.
    assert re.match(rf"1:({line}|[1-9]) .*(changed|names another record {line})", fault)
    assert f"1:{line} it was changed" in fault or anchors


def test_a_changed_last_line_is_seen_by_an_anchor_only_if_one_names_it(trail: Trail) -> None:
    writer = trail.writer()
    writer.answer("a")
    writer.sign()
    writer.answer("b")  # records 5 and 6

    def change(lines: list[bytes]) -> None:
        lines[-1] = changed(lines[-1], status=500)

    writer.rewrite(change)
    found = trail.verified()
    assert found.is_whole
    assert [(finding.severity, finding.words) for finding in found.findings] == [
        ("unseen", "the last 2 records are behind the last anchor: nobody vouches for them")
    ]


@pytest.mark.parametrize("line", [1, 2, 5, 8, 11])
def test_a_missing_line_is_named(trail: Trail, writer: Writer, line: int) -> None:
    writer.rewrite(lambda lines: lines.pop(line - 1))
    (fault,) = trail.faults()
    words = {1: "1:1 the beginning is missing: the first line here is record 2"}
    assert fault == words.get(
        line, f"1:{line} record {line} is missing or elsewhere: this is record {line + 1}"
    )


def test_moved_lines_are_named(trail: Trail, writer: Writer) -> None:
    def swap(lines: list[bytes]) -> None:
        lines[3], lines[4] = lines[4], lines[3]

    writer.rewrite(swap)
    assert trail.faults() == ["1:4 record 4 is missing or elsewhere: this is record 5"]


def test_a_line_that_stands_there_twice_is_named(trail: Trail, writer: Writer) -> None:
    writer.rewrite(lambda lines: lines.insert(5, lines[3]))
    assert trail.faults() == ["1:6 this is record 4, which stands before: it was moved or copied here"]


def test_a_line_that_was_appended_behind_the_end_is_named(trail: Trail, writer: Writer) -> None:
    writer.rechain(lambda lines: lines.append(changed(lines[1], id="e")))
    (fault,) = trail.faults(anchors=False)
    # What follows a signed head unsigned has the right hash: its process had said that it stops.
    assert fault.startswith("1:13 this line was appended: its process had ended its chain before")


def test_what_is_no_record_is_named(trail: Trail, writer: Writer) -> None:
    writer.rewrite(lambda lines: lines.insert(4, b'{"kind":"mystery"}'))
    assert trail.faults() == ["1:5 this line is no record: it was changed, or torn"]


@pytest.mark.parametrize("left", [1, 4, 7])
def test_an_end_that_is_cut_off_is_named_with_anchors_and_without_they_say_that_they_can_t(
    trail: Trail, writer: Writer, left: int
) -> None:
    writer.rewrite(lambda lines: lines.__delitem__(slice(left, None)))
    (fault,) = trail.faults()
    assert fault == f"1:{left + 1} the end is cut off: store:2 names record 11, and the last here is {left}"
    without = trail.verified(anchors=False)
    assert without.is_whole
    assert any(finding.severity == "unseen" for finding in without.findings)


def test_a_chain_that_was_made_whole_again_after_a_change_does_not_hold_against_its_signed_heads(
    trail: Trail, writer: Writer
) -> None:
    def change(lines: list[bytes]) -> None:
        lines[2] = changed(lines[2], status=500)

    writer.rechain(change)
    (by_anchor,) = trail.faults()
    assert by_anchor.startswith("1:1 between here and line 7, store:1 names another record 7")
    (by_head,) = trail.faults(anchors=False)
    assert by_head.startswith("1:8 this head signs another record 7")
    assert "between record 1 and here" in by_head


def test_without_a_public_key_a_chain_that_was_made_whole_again_is_not_seen_which_is_said(
    trail: Trail, writer: Writer
) -> None:
    writer.rechain(lambda lines: lines.__setitem__(2, changed(lines[2], status=500)))
    found = trail.verified(anchors=False, keys=())
    assert found.is_whole
    assert [finding.words for finding in found.findings if "public key" in finding.words]


def test_a_head_that_another_key_signed_is_forged(trail: Trail) -> None:
    writer = trail.writer()
    writer.answer("a")
    writer.sign(key=Ed25519PrivateKey.generate())
    forged = "a forged head: none of the public keys signed it"
    assert trail.faults() == [f"store:1 {forged}", f"1:4 {forged}"]
    assert trail.faults(anchors=False) == [f"1:4 {forged}"]


def test_a_head_whose_words_were_changed_is_forged(trail: Trail, writer: Writer) -> None:
    def change(lines: list[bytes]) -> None:
        lines[7] = lines[7].replace(b'\\"at\\":\\"2026', b'\\"at\\":\\"2025')

    writer.rechain(change)
    assert trail.faults(anchors=False) == ["1:8 a forged head: none of the public keys signed it"]


def test_both_keys_count_after_a_change_of_keys(trail: Trail) -> None:
    writer, other = trail.writer(), Ed25519PrivateKey.generate()
    writer.answer("a")
    writer.sign()
    writer.answer("b")
    writer.sign(key=other)
    assert trail.faults(keys=[public_key(), other.public_key()]) == []
    forged = "a forged head: none of the public keys signed it"
    assert trail.faults(keys=[public_key()]) == [f"store:2 {forged}", f"1:7 {forged}"]


def test_a_writer_that_was_removed_is_missed_by_the_anchors_and_by_the_heads_of_others(trail: Trail) -> None:
    first, second = trail.writer(), trail.writer()
    first.answer("a")
    second.answer("b")
    first.sign(second)
    second.path.unlink()
    words = f"the chain {second.name} is missing"
    assert any(words in fault for fault in trail.faults())
    assert any(words in fault for fault in trail.faults(anchors=False))


def test_the_end_of_another_chain_is_missed_by_the_heads_of_others(trail: Trail) -> None:
    first, second = trail.writer(), trail.writer()
    second.answer("b", "c")
    first.sign(second)
    second.rewrite(lambda lines: lines.__delitem__(slice(3, None)))
    (fault,) = trail.faults(anchors=False)
    assert "4 the end is cut off" in fault
    assert "names record 5, and the last here is 3" in fault


def test_a_chain_under_another_name_is_named(trail: Trail, writer: Writer) -> None:
    writer.path.rename(writer.path.with_name("other.jsonl"))
    faults = trail.faults()
    assert any(f"this is the chain {writer.name} under another name" in fault for fault in faults)
    assert any("is missing" in fault for fault in faults)


def test_a_request_without_its_end_is_reported_and_one_in_flight_is_not(trail: Trail) -> None:
    gone, live = trail.writer(), trail.writer()
    gone.begin("lost")
    gone.chain.close()
    live.begin("in flight")
    found = trail.verified(anchors=False)
    assert found.is_whole
    words = [finding.words for finding in found.findings if finding.severity == "open"]
    assert words == ["requests without an end, since their process did not live to see it: lost"]


def test_an_end_without_its_beginning_is_reported(trail: Trail) -> None:
    writer = trail.writer()
    writer.end("never begun")
    assert trail.faults() == ["1:2 never begun ends here and never began"]


def test_records_that_could_not_be_written_are_reported(trail: Trail) -> None:
    writer = trail.writer()
    writer.answer("a")
    writer.rechain(lambda lines: lines.__setitem__(1, changed(lines[1], lost=3)))
    found = trail.verified(anchors=False)
    assert found.lost == 3
    assert any("3 records could not be written" in finding.words for finding in found.findings)


def test_an_empty_folder_is_no_trail(trail: Trail) -> None:
    trail.folder.mkdir()
    assert trail.faults() == ["audit there is no chain in this folder"]


def test_a_line_that_is_being_written_is_no_fault_and_a_torn_one_of_the_dead_is(trail: Trail) -> None:
    writer = trail.writer()
    writer.answer("a")
    with writer.path.open("ab") as file:
        file.write(b'{"kind":"begun","n":4,')
    assert trail.faults(anchors=False) == []
    writer.chain.close()
    assert trail.faults(anchors=False) == ["1:4 this line is no record: it was changed, or torn"]


def test_times_are_written_as_records_write_them() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", NOON)
