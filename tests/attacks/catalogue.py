"""One or more instances of every attack, small enough for a test; a new attack needs a line here."""

from attacks import (
    APGD,
    BIM,
    DDN,
    DLR,
    FAB,
    FGSM,
    FMN,
    L1,
    L2,
    LBFGS,
    PGD,
    AdamCarliniWagner,
    AdditiveGaussian,
    AdditiveUniform,
    Adversary,
    Advertorch,
    Attack,
    AutoAttack,
    CarliniWagner,
    Closest,
    ContrastReduction,
    DeepFool,
    FixedCarliniWagner,
    GrowingFGSM,
    HopSkipJump,
    Linf,
    LocalSearch,
    Margin,
    MultiplePixels,
    RotationTranslation,
    SinglePixel,
    SmallestBall,
    Square,
    StraightThrough,
    TargetedAPGD,
    Worst,
)

# In a ball: the ball's `project` says what is allowed.
BALLED: dict[str, Attack] = {
    "FGSM": FGSM(Linf(0.1)),
    "BIM": BIM(Linf(0.1), 0.05, 3),
    "BIM, L1": BIM(L1(5.0), 1.0, 3),
    "PGD": PGD(Linf(0.1), 0.05, 3),
    "PGD, L2": PGD(L2(0.5), 0.2, 3, loss=DLR()),
    "PGD, L1": PGD(L1(5.0), 1.0, 3),
    "PGD, restarts, momentum": PGD(Linf(0.1), 0.05, 3, restarts=2, momentum=0.9, loss=Margin()),
    "APGD": APGD(Linf(0.1), steps=5),
    "APGD, L2": APGD(L2(0.5), DLR(), steps=5),
    "TargetedAPGD": TargetedAPGD(Linf(0.1), steps=4, targets=2),
    "Square": Square(Linf(0.1), 20),
    "Square, L2": Square(L2(0.5), 20),
    "AutoAttack": AutoAttack(Linf(0.1), steps=4, queries=10, targets=2),
    "AutoAttack, rand": AutoAttack(Linf(0.1), "rand", steps=4, draws=2),
    "Worst": Worst((PGD(Linf(0.1), 0.05, 2), FGSM(Linf(0.1)))),
    "Adversary": Adversary(PGD(Linf(0.1), 0.05, 3), StraightThrough(), draws=2),
    "Advertorch": Advertorch("LinfPGDAttack", {"nb_iter": 3, "eps_iter": 0.05}, Linf(0.1)),
    "Advertorch, FGM": Advertorch("FGM", ball=L2(0.5)),
}
# The smallest perturbation they find, or the image itself.
MINIMAL_NORM: dict[str, Attack] = {
    # In a wide box: else the saturated pixels of a test hardly move.
    "AdamCarliniWagner": AdamCarliniWagner(20, 3, learning_rate=0.1, initial_c=1.0, bounds=(-0.1, 1.1)),
    "CarliniWagner": CarliniWagner(steps=20, search_steps=3),
    "DDN": DDN(steps=15),
    "FMN": FMN(steps=15),
    "FMN, Linf": FMN("Linf", steps=15),
    "FMN, L1": FMN("L1", steps=15),
    "Closest": Closest((FMN(steps=15), DDN(steps=15))),
    "FAB": FAB(steps=8, targets=3),
    "FAB, L2": FAB(L2(3.0), steps=8, targets=3),
    "DeepFool": DeepFool(),
    "DeepFool, Linf": DeepFool("Linf"),
    "GrowingFGSM": GrowingFGSM(),
    "SmallestBall": SmallestBall(BIM(Linf(0.1), 0.05, 3), growths=5, bisections=4),
    "LBFGS": LBFGS(steps=10, searches=4),
    "HopSkipJump": HopSkipJump(queries=150, initial_evaluations=10),
    "HopSkipJump, Linf": HopSkipJump("Linf", queries=150, initial_evaluations=10),
    "Advertorch, DDN": Advertorch("DDNL2Attack", {"nb_iter": 20}),
}
# Neither a ball nor a norm: another set of images, or a constant that weighs the norm.
FREEZING = "FixedCarliniWagner, freezes saturated pixels"
OTHERS: dict[str, Attack] = {
    "FixedCarliniWagner": FixedCarliniWagner(1.0, steps=5, freeze_saturated=False),
    FREEZING: FixedCarliniWagner(1.0, steps=5),
    "SinglePixel": SinglePixel(10),
    "MultiplePixels": MultiplePixels(20, 5),
    "LocalSearch": LocalSearch(rounds=5),
    "AdditiveUniform": AdditiveUniform(0.1, 3),
    "AdditiveGaussian": AdditiveGaussian(0.1, 3),
    "ContrastReduction": ContrastReduction(0.9, 5),
    "RotationTranslation": RotationTranslation(30, 2, 4, 2),  # an odd grid would hold the image itself
}
ATTACKS: dict[str, Attack] = {**BALLED, **MINIMAL_NORM, **OTHERS}
# They look at answers only: a vanished gradient does not exist for them.
GRADIENT_FREE = frozenset(
    name
    for name, attack in ATTACKS.items()
    if isinstance(
        attack,
        Square
        | HopSkipJump
        | SinglePixel
        | MultiplePixels
        | LocalSearch
        | AdditiveUniform
        | AdditiveGaussian
        | ContrastReduction
        | RotationTranslation,
    )
)
