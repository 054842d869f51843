"""Provider keys: read at use, rotated, and never lost because a file is being replaced."""

import logging
from pathlib import Path

import pytest

from routeproxy.policy.providers import Provider
from routeproxy.policy.secrets import Secret
from routeproxy.upstream.keys import Keys


def provider(*secrets: Secret) -> Provider:
    return Provider(name="p", type="anthropic", keys=secrets)


def env(value: str | None, name: str = "KEY") -> Secret:
    return Secret("env", name, value)


THREE = provider(env("a"), env("b"), env("c"))


def test_keys_come_in_their_order() -> None:
    assert Keys().of(THREE) == ["a", "b", "c"]


def test_those_that_are_not_set_are_left_out() -> None:
    assert Keys().of(provider(env(None), env("b"), env("  "))) == ["b"]


def test_a_line_break_at_the_end_is_not_part_of_a_key() -> None:
    assert Keys().of(provider(env("a\n"))) == ["a"]


def test_a_refused_key_goes_to_the_back() -> None:
    keys = Keys()
    keys.refused(THREE, "a")
    assert keys.of(THREE) == ["b", "c", "a"]


def test_many_requests_refused_at_once_move_on_once() -> None:
    keys = Keys()
    for _ in range(3):
        keys.refused(THREE, "a")
    assert keys.of(THREE)[0] == "b"


def test_a_key_that_is_taken_out_of_the_rules_is_forgotten() -> None:
    keys = Keys()
    keys.refused(THREE, "a")
    assert keys.of(provider(env("a"), env("c"))) == ["a", "c"]


def test_a_key_file_is_read_at_use(tmp_path: Path) -> None:
    path, keys = tmp_path / "key", Keys()
    asked = provider(Secret("file", str(path)))
    assert keys.of(asked) == []
    path.write_text("old\n")
    assert keys.of(asked) == ["old"]
    path.write_text("new\n")
    assert keys.of(asked) == ["new"]


@pytest.mark.parametrize("gone", ["removed", "emptied", "garbage"])
def test_a_key_file_that_vanishes_leaves_the_last_key_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    path, keys = tmp_path / "key", Keys()
    asked = provider(Secret("file", str(path)))
    path.write_text("sk-last-value")
    keys.of(asked)
    if gone == "removed":
        path.unlink()
    else:
        path.write_bytes(b"" if gone == "emptied" else b"\xff\xfe\x00")
    with caplog.at_level(logging.WARNING):
        assert [keys.of(asked) for _ in range(3)] == [["sk-last-value"]] * 3
    assert [record.message for record in caplog.records] == [
        f"the key file {path} is gone or empty: the key that it held before stays in use"
    ]
    path.write_text("sk-next")
    assert keys.of(asked) == ["sk-next"]


def test_a_key_is_in_nothing_that_is_printed() -> None:
    asked = provider(env("sk-very-secret"), Secret("literal", "", "sk-very-secret"))
    assert "sk-very-secret" not in repr(asked) + str(asked) + repr(asked.keys) + f"{asked.keys[0]}"
