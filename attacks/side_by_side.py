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

    def stop(self) -> None:
        """Without effect once the work is done."""
        self._answers.put(None)

    def next_question(self, answer: Answer) -> Question | None:
        """Answer the last question and wait for the next one."""
        self._answers.put(answer)
        return self.question()


def side_by_side(
    works: Sequence[Callable[[Callable[[Question], Answer]], object]],
    answers: Callable[[list[Question]], list[Answer]],
) -> None:
    """Do all works; each is given a function that answers its questions.

    Works run in threads of their own, but one at a time, as Python's lock lets no two run anyway and many that wait for
    it slow each other down. The answers are made in the thread of the caller (with its gradient modes and noise).

    Args:
        works: ask -> whatever. The answer to a question must not be None.
        answers: to one question of each work that is not done yet, in the order of the works.

    Raises:
        Whatever a work or `answers` raises; all other works are stopped then.
    """
    if not works:
        return
    workers = [_Worker[Question, Answer](work) for work in works]
    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            asked = []
            for worker in workers:
                pool.submit(worker.run)
                if (question := worker.question()) is not None:
                    asked.append((worker, question))
            while asked:
                given = answers([question for _, question in asked])
                asked = [
                    (worker, question)
                    for (worker, _), answer in zip(asked, given, strict=True)
                    if (question := worker.next_question(answer)) is not None
                ]
        finally:
            for worker in workers:
                worker.stop()
