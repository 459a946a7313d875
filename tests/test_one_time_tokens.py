"""Tickets: for one thing, once, and not for ever."""

from magistral_ui.client import CLIENT, MAX_PENDING, Client, OneTimeTokens


def test_a_ticket_is_for_one_thing_once() -> None:
    tickets = OneTimeTokens()
    one, two = tickets.issue("one"), tickets.issue("two")
    assert len(one) >= 40
    assert tickets.redeem(two) == "two"
    assert tickets.redeem(two) is None
    assert tickets.redeem(one) == "one"
    assert tickets.redeem("made up") is None


def test_a_ticket_is_worth_nothing_in_another_browser() -> None:
    tickets = OneTimeTokens()
    before = CLIENT.set(Client(browser="mine"))
    stolen, mine = tickets.issue("stolen"), tickets.issue("mine")
    CLIENT.set(Client(browser="theirs"))
    assert tickets.redeem(stolen) is None
    CLIENT.set(Client(browser="mine"))
    assert tickets.redeem(stolen) is None
    assert tickets.redeem(mine) == "mine"
    CLIENT.reset(before)


def test_a_ticket_ends() -> None:
    tickets = OneTimeTokens(life=-1.0)
    assert tickets.redeem(tickets.issue("late")) is None


def test_only_so_many_wait() -> None:
    tickets = OneTimeTokens()
    first = tickets.issue("first")
    for number in range(MAX_PENDING):
        tickets.issue(number)
    assert tickets.redeem(first) is None


def test_nobody_can_flush_the_tickets_of_others() -> None:
    tickets = OneTimeTokens()
    before = CLIENT.set(Client("192.0.2.1", browser="mine"))
    mine = tickets.issue("mine")
    for number in range(3 * MAX_PENDING):
        CLIENT.set(Client("192.0.2.2", browser=f"one of many {number}"))
        tickets.issue(number)
    CLIENT.set(Client("192.0.2.1", browser="mine"))
    assert tickets.redeem(mine) == "mine"
    CLIENT.reset(before)
