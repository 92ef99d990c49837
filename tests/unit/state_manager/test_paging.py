"""Page tokens: opaque, and good for one list only."""

from dataclasses import dataclass

import pytest

from nodeflow_shared.errors import InvalidInput
from nodeflow_state_manager.domain.paging import PAGE_BYTES, cut, decode_token, encode_token, page_limit


def test_a_token_brings_back_its_position() -> None:
    token = encode_token((12, "b/c"), "executions", "default", "")
    assert decode_token(token, (int, str), "executions", "default", "") == (12, "b/c")
    assert token.isascii()
    assert "=" not in token


def test_no_token_is_the_first_page_and_no_position_the_last() -> None:
    assert decode_token("", (int,), "x") is None
    assert encode_token(None, "x") == ""


@pytest.mark.parametrize("listing", [("executions", "other", ""), ("executions", "default", 'state = "FAILED"')])
def test_a_token_of_another_list_is_refused(listing: tuple[str, ...]) -> None:
    token = encode_token((1, 2), "executions", "default", "")
    with pytest.raises(InvalidInput, match="another filter"):
        decode_token(token, (int, int), *listing)


@pytest.mark.parametrize("token", ["x", "!!!", "bnVsbA", "WyJhIl0", encode_token(("a",), "x"), "é"])
def test_a_malformed_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput, match="malformed") as caught:
        decode_token(token, (int,), "x")
    assert caught.value.violations[0].path == "page_token"


@pytest.mark.parametrize(("size", "limit"), [(0, 100), (1, 1), (1_000, 1_000), (5_000, 1_000)])
def test_page_sizes_have_a_default_and_a_limit(size: int, limit: int) -> None:
    assert page_limit(size) == limit


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidInput):
        page_limit(-1)


@dataclass(frozen=True)
class Entry:
    name: str
    size_bytes: int = 1


A, B, C = (Entry(name) for name in "abc")


def test_a_page_has_a_successor_only_if_one_entry_was_left_over() -> None:
    assert cut([A, B], [(1,), (2,)], 2).next_position is None
    page = cut([A, B, C], [(1,), (2,), (3,)], 2)
    assert (page.entries, page.next_position) == ([A, B], (2,))


def test_a_page_ends_behind_the_entry_with_which_it_is_large() -> None:
    large = Entry("large", PAGE_BYTES)
    page = cut([A, large, C], [(1,), (2,), (3,)], 2)
    assert (page.entries, page.next_position) == ([A, large], (2,))
    page = cut([large, B, C], [(1,), (2,), (3,)], 10)
    assert (page.entries, page.next_position) == ([large], (1,))
    assert cut([A, large], [(1,), (2,)], 10).next_position is None
    assert cut([], [], 10).next_position is None
