"""One or more instances of every attack, small enough for a test; a new attack needs a line here."""

from attacks import DLR, EOT, L2, PGD, Adversary, Attack, Linf, Margin, StraightThrough

__all__ = ["ATTACKS", "EOT"]

# In a ball: the ball's `project` says what is allowed.
BALLED: dict[str, Attack] = {
    "PGD": PGD(Linf(0.1), 0.05, 3),
    "PGD, L2": PGD(L2(0.5), 0.2, 3, loss=DLR()),
    "PGD, restarts, momentum": PGD(Linf(0.1), 0.05, 3, restarts=2, momentum=0.9, loss=Margin()),
    "Adversary": Adversary(PGD(Linf(0.1), 0.05, 3), StraightThrough(), draws=2),
}
# The smallest perturbation they find, or the image itself.
MINIMAL_NORM: dict[str, Attack] = {}
# Neither a ball nor a norm: another set of images.
OTHERS: dict[str, Attack] = {}
ATTACKS: dict[str, Attack] = {**BALLED, **MINIMAL_NORM, **OTHERS}
# They look at answers only: a vanished gradient does not exist for them.
GRADIENT_FREE: frozenset[str] = frozenset()
