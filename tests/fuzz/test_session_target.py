"""The fuzz target, run by hypothesis: on noise, and on streams that are nearly right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from session_target import check

from gateway.protocols.teltonika import frame
from gateway.protocols.teltonika.session import IdentReceived
from gateway.protocols.teltonika.wire import encode_packet
from tests.builders import IMEI, FrameFactory, any_packet

FACTORY = FrameFactory()

frames = st.one_of(
    any_packet().map(encode_packet).map(frame.build_frame),
    st.binary(max_size=60).map(frame.build_frame),
    st.builds(frame.build_frame, st.binary(max_size=60), st.integers(0, 2**32 - 1)),
    st.sampled_from([FACTORY.ping, FACTORY.command(), FACTORY.packet(bad_crc=True), FACTORY.packet(count_again=9)]),
)
streams = st.lists(frames, max_size=5).map(lambda parts: FACTORY.login() + b"".join(parts))
choices = st.integers(0, 255).map(lambda choice: bytes([choice]))


@given(st.binary(max_size=200))
def test_noise_keeps_the_invariant(data: bytes) -> None:
    """Internet noise on the port."""
    check(data)


@given(choices, st.binary(max_size=200))
def test_noise_behind_a_login_keeps_the_invariant(choice: bytes, data: bytes) -> None:
    """A tracker gone mad."""
    assert check(choice + FACTORY.login() + data)[0] == IdentReceived(IMEI)


@given(choices, streams)
def test_frames_keep_the_invariant(choice: bytes, stream: bytes) -> None:
    """Good ones, bad ones and pings in any order; framing is never lost."""
    assert not any(isinstance(event, str) for event in check(choice + stream))


@given(choices, streams, st.data())
def test_a_flipped_byte_keeps_the_invariant(choice: bytes, stream: bytes, data: st.DataObject) -> None:
    """Anywhere, in the lengths and the login too."""
    damaged = bytearray(stream)
    damaged[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    check(choice + bytes(damaged))
