"""Work that asks one question at a time, done for many at once: what all of them wait for is answered together."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class _Stopped(Exception):
    """Nobody answers any more."""


class _Worker(Generic[Question, Answer]):
    """One piece of work in a thread of its own: at any time it has a question, or it is done."""

    def __init__(self, work: Callable[[Callable[[Question], Answer]], object]) -> None:
        self._work = work
        self._questions: SimpleQueue[Question | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer | None] = SimpleQueue()
        self._error: BaseException | None = None

    def run(self) -> None:
        """In the thread."""
        try:
            self._work(self._ask)
        except _Stopped:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._questions.put(None)

    def _ask(self, question: Question) -> Answer:
        self._questions.put(question)
        answer = self._answers.get()
        if answer is None:
            raise _Stopped
        return answer

    def question(self) -> Question | None:
        """The next one, for which this waits; None once the work is done."""
        question = self._questions.get()
        if self._error is not None:
            raise self._error
        return question

    def answer(self, answer: Answer | None) -> None:
        """To the question that was asked; None: stop."""
        self._answers.put(answer)


def side_by_side(
    works: Sequence[Callable[[Callable[[Question], Answer]], object]],
    answers: Callable[[list[Question]], list[Answer]],
) -> None:
    """Do all works; each is given a function that answers its questions.

    Works run in threads, the answers are made in the thread of the caller (with its gradient modes and noise), always
    for all works that are not done yet and in their order: nothing depends on which thread is faster.

    Args:
        works: ask -> whatever. The answer to a question must not be None.
        answers: to one question of each work that is not done yet.

    Raises:
        Whatever a work or `answers` raises; all other works are stopped then.
    """
    workers = [_Worker[Question, Answer](work) for work in works]
    if not workers:
        return
    with ThreadPoolExecutor(len(workers)) as pool:
        for worker in workers:
            pool.submit(worker.run)
        try:
            _answer_all(workers, answers)
        finally:
            for worker in workers:
                worker.answer(None)  # without effect on those that are done


def _answer_all(workers: list[_Worker[Question, Answer]], answers: Callable[[list[Question]], list[Answer]]) -> None:
    waiting = workers
    while waiting:
        asked = [(worker, question) for worker in waiting if (question := worker.question()) is not None]
        waiting = [worker for worker, _ in asked]
        if asked:
            for worker, answer in zip(waiting, answers([question for _, question in asked]), strict=True):
                worker.answer(answer)
