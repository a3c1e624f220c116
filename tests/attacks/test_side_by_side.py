"""Questions of many works answered at once: in order, whatever ends first, and nobody waits for ever."""

import threading
import time
from collections.abc import Callable

import pytest

from attacks.side_by_side import side_by_side

Ask = Callable[[int], int]


def works(lengths: list[int], found: dict[int, list[int]]) -> list[Callable[[Ask], None]]:
    """Work k asks k, 10 + k, 20 + k, ... as often as said and keeps the answers."""

    def of(k: int, length: int) -> Callable[[Ask], None]:
        def work(ask: Ask) -> None:
            for number in range(length):
                time.sleep(0.001 * ((k + number) % 3))  # the threads overtake each other
                found.setdefault(k, []).append(ask(10 * number + k))

        return work

    return [of(k, length) for k, length in enumerate(lengths)]


def test_everybody_gets_his_own_answers_and_rounds_are_the_same_every_time() -> None:
    found: dict[int, list[int]] = {}
    rounds: list[list[int]] = []

    def answers(questions: list[int]) -> list[int]:
        assert threading.current_thread() is threading.main_thread()
        rounds.append(questions)
        return [-question for question in questions]

    side_by_side(works([3, 0, 1, 2], found), answers)
    assert found == {0: [0, -10, -20], 2: [-2], 3: [-3, -13]}
    assert rounds == [[0, 2, 3], [10, 13], [20]]


def test_without_work_nobody_is_asked() -> None:
    side_by_side([], lambda questions: pytest.fail("asked"))


@pytest.mark.timeout(20)
def test_an_error_of_a_work_or_of_the_answers_ends_all_threads() -> None:
    before = threading.active_count()

    def broken(ask: Ask) -> None:
        ask(1)
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        side_by_side([broken, *works([5, 5], {})], lambda questions: [-question for question in questions])

    def no_answers(questions: list[int]) -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(works([5, 5], {}), no_answers)
    assert threading.active_count() == before
