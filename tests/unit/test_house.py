"""The counts of the house that must not get worse. Whoever makes one better lowers it here."""

from __future__ import annotations

from tests import house

LONGEST_FUNCTION = 70
OVER_FIFTY = 9
POKES = 115
ARROWS = 91
FLOORS = 10


def test_the_rooms_of_the_host_form_no_circle() -> None:
    """A floor that is added, or an arrow, is a decision: it changes the number here."""
    rooms = house.host()
    assert not rooms.circles()
    assert rooms.floors() <= FLOORS
    assert len(rooms.arrows) <= ARROWS


def test_the_rooms_of_the_guest_form_no_circle() -> None:
    """Rooms that know each other are changed together."""
    assert not house.guest().circles()


def test_functions_stay_short() -> None:
    """One that needs scrolling wants to be two."""
    lengths = sorted(house.functions())
    assert lengths[-1][0] <= LONGEST_FUNCTION, lengths[-1]
    over = [name for lines, name in lengths if lines > 50]
    assert len(over) <= OVER_FIFTY, over


def test_tests_do_not_touch_more_of_what_is_private() -> None:
    """What a test needs to see is public, or it tests something else than users see."""
    assert sum(house.pokes().values()) <= POKES, house.pokes().most_common(10)
