"""The quick readings of an IO element, which need no call: what the dictionary says, worked out beforehand.

A slot is (how, parameter, argument):

    PLAIN     the value is the parameter
    DIVIDE    divided by the argument
    SIGNED    two's complement; the argument is (half, whole, divisor)
    LOOK_UP   the argument has the parameter's value for each of the 256 bytes; None: the byte means nothing
    UPDATE    the argument has a dict of parameters for each of the 256 bytes
    FORMAT    the parameter is text: the argument, a format, of the value
    SWITCH    0 or 1; the argument is (the parameter of the mask of all, the bit in it)
    LATER     a rule has to be called: the argument
    TOGETHER  what it means depends on other ids: the argument is (rule, width)
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from gateway.protocols.teltonika.avl_ids import AvlRow
from gateway.protocols.teltonika.enumerations import map_value, read_map
from gateway.protocols.teltonika.rules import Rule, make_rule, number_reader, switch_bit
from gateway.protocols.teltonika.values import LARGEST_EXACT, Message, keep_raw, scale_fraction

PLAIN, DIVIDE, SIGNED, LOOK_UP, UPDATE, FORMAT, SWITCH, LATER, TOGETHER = range(9)
Slot = tuple[int, str, Any]

# AVL id: the rule to call, and the value.
Later = dict[int, tuple[Rule, Any]]
# AVL id: the rule, the width in bytes, and the value.
Together = dict[int, tuple[Rule, int, Any]]


def make_slot(row: AvlRow, width: int, entangled: bool) -> Slot:
    """The slot of ``row`` for values of ``width`` bytes (0: any); what is ``entangled`` with other ids comes later."""
    if entangled:
        return TOGETHER, "", (make_rule(row, width), width)
    return _quick(row, width) or (LATER, "", make_rule(row, width))


def _quick(row: AvlRow, width: int) -> Slot | None:
    if row.kind == "number":
        if width == 1:
            return LOOK_UP, row.parameter, _byte_numbers(row.scale, row.signed)
        return _wide_number(row, width)
    if row.kind == "boolean" and width == 1:
        return LOOK_UP, row.parameter, _BOOLEANS
    if row.kind == "map" and width == 1:
        return _byte_map(row)
    if row.kind == "switch" and width == 1:
        return SWITCH, row.parameter, switch_bit(row.parameter)
    if row.kind == "hex" and width:
        return FORMAT, row.parameter, f"%0{2 * width}x"
    return None


_BOOLEANS = (False, True, *[None] * 254)


@functools.cache
def _byte_numbers(scale: str, signed: bool) -> tuple[int | float, ...]:
    read = number_reader(scale, signed, 1)
    return tuple(read(value) for value in range(256))


def _wide_number(row: AvlRow, width: int) -> Slot | None:
    numerator, divisor = scale_fraction(row.scale)
    if numerator != 1 or width not in (2, 4):
        return None
    if row.signed:
        return SIGNED, row.parameter, (1 << (8 * width - 1), 1 << (8 * width), divisor)
    return (PLAIN, row.parameter, 1) if divisor == 1 else (DIVIDE, row.parameter, divisor)


def _byte_map(row: AvlRow) -> Slot | None:
    """Only for enumerations whose values set the same parameters: of two elements with one id the last wins."""
    columns = read_map(row)
    if len(columns) > 1 and columns[0][1] is not None:
        return None
    meanings = []
    for value in range(256):
        meaning: Message = map_value(columns, value)
        if not meaning:
            keep_raw(meaning, row.avl_id, value)
        meanings.append(meaning)
    return UPDATE, "", tuple(meanings)


def take(
    message: Message, elements: Iterable[tuple[int, Any]], slots: dict[int, Slot], later: Later, together: Together
) -> None:
    """Put ``elements`` of one width into ``message``; those that need a rule go to the other two, the last of each id.

    One function, because a call for each element would cost more than what is done for it.
    """
    for avl_id, value in elements:
        slot = slots.get(avl_id)
        if slot is None:
            if type(value) is int and value <= LARGEST_EXACT:
                message[f"custom.param.{avl_id}"] = value
            else:
                keep_raw(message, avl_id, value)
            continue
        how, parameter, argument = slot
        if how == LOOK_UP:
            meaning = argument[value]
            if meaning is None:
                keep_raw(message, avl_id, value)
            else:
                message[parameter] = meaning
        elif how == DIVIDE:
            message[parameter] = value / argument
        elif how == LATER:
            later[avl_id] = (argument, value)
        elif how == PLAIN:
            message[parameter] = value
        elif how == UPDATE:
            message.update(argument[value])
        elif how == FORMAT:
            message[parameter] = argument % value
        elif how == SWITCH:
            if value > 1:
                keep_raw(message, avl_id, value)
                continue
            mask, bit = argument
            message[parameter] = value == 1
            message[mask] = message.get(mask, 0) & ~bit | bit * value
        elif how == TOGETHER:
            together[avl_id] = (*argument, value)
        else:
            half, whole, divisor = argument
            number = value - whole if value >= half else value
            message[parameter] = number if divisor == 1 else number / divisor
