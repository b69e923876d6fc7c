"""Who guesses keys is refused for a while, and costs no more memory than anybody else."""

from __future__ import annotations

import pytest

from gateway.store.failures import ADDRESSES_MOST, Failures

ADDRESS = "192.0.2.1"


def fail(failures: Failures, times: int, address: str = ADDRESS, now: float = 1000.0) -> bool:
    """Wrong keys, each another; whether the last of them blocked the address."""
    return [failures.failed(address, now, f"key {n} at {now}") for n in range(times)][-1]


def test_too_many_wrong_keys_block_an_address_for_a_while():
    """And only this one; the twentieth is the last."""
    failures = Failures()
    assert not fail(failures, 19)
    assert not failures.is_blocked(ADDRESS, 1000)
    assert fail(failures, 1, now=1010.0)
    assert failures.is_blocked(ADDRESS, 1010)
    assert failures.is_blocked(ADDRESS, 1069.9)
    assert not failures.is_blocked(ADDRESS, 1070)
    assert not failures.is_blocked("192.0.2.2", 1010)


def test_after_a_block_counting_begins_anew():
    """One more wrong key does not block again."""
    failures = Failures()
    fail(failures, 20)
    assert not fail(failures, 19, now=1060.0)
    assert fail(failures, 1, now=1061.0)


def test_failures_that_are_far_apart_block_nobody():
    """They are counted in a window of time."""
    failures = Failures()
    for minute in range(100):
        assert not fail(failures, 19, now=1000.0 + 60 * minute)


def test_the_same_wrong_key_counts_once():
    """A program with a token that was deleted tries for ever, and must not lock out its neighbors."""
    failures = Failures()
    for _ in range(1000):
        assert not failures.failed(ADDRESS, 1000, "withdrawn")
    assert not failures.is_blocked(ADDRESS, 1000)
    assert fail(failures, 19)


def test_failures_without_a_key_count_each():
    """Where there is nothing to compare."""
    failures = Failures()
    assert [failures.failed(ADDRESS, 1000) for _ in range(20)] == [False] * 19 + [True]


@pytest.mark.parametrize(
    ("first", "second", "are_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("local", "local", True),
        ("not:an:address", "not:an:address", True),
    ],
)
def test_a_network_of_one_host_is_one_address(first: str, second: str, are_one: bool):
    """An IPv6 host has a /64 to choose from, and an IPv4 client may come in IPv6's clothes."""
    failures = Failures()
    fail(failures, 20, first)
    assert failures.is_blocked(second, 1000) is are_one


def test_memory_is_bounded():
    """Who failed longest ago is forgotten."""
    failures = Failures()
    fail(failures, 20, "first")
    for n in range(ADDRESSES_MOST):
        failures.failed(f"host-{n}", 1000)
    assert len(failures) == ADDRESSES_MOST
    assert not failures.is_blocked("first", 1000)


def test_a_clock_that_is_set_back_blocks_nobody_for_long():
    """What was counted in the future is forgotten when the next failure comes."""
    failures = Failures()
    fail(failures, 20, "192.0.2.2", now=1_000_000.0)
    assert not failures.is_blocked("192.0.2.2", 1000)
    fail(failures, 19, now=1_000_000.0)
    assert not fail(failures, 19, now=1000.0)
    assert fail(failures, 1, now=1001.0)
