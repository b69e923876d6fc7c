"""The table of functions; /storage/expressions/functions and the documentation are written from it."""

from __future__ import annotations

from gateway.expressions.function import Function
from gateway.expressions.math_functions import MATH_FUNCTIONS
from gateway.expressions.text_functions import TEXT_FUNCTIONS
from gateway.expressions.time_functions import TIME_FUNCTIONS
from gateway.expressions.travel_functions import TRAVEL_FUNCTIONS
from gateway.expressions.type_functions import TYPE_FUNCTIONS

FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in (*TYPE_FUNCTIONS, *MATH_FUNCTIONS, *TEXT_FUNCTIONS, *TIME_FUNCTIONS, *TRAVEL_FUNCTIONS)
}

ABSENT = {"geofence": "there are no geofences here; distance_to(lat, lon) tells how far a place is"}
"""What flespi has and we have not, and what to do instead."""
