"""A value made quickly is the value that dataclasses make."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass, replace

import pytest

from broker import notice
from broker.quick import maker, quick


@dataclass(frozen=True, slots=True)
class Slow:
    first: int
    second: str = "b"
    third: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(self.second)


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    first: int
    second: str = "b"
    third: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(self.second)


def test_it_takes_the_same_and_holds_the_same() -> None:
    assert list(inspect.signature(Quick).parameters) == list(inspect.signature(Slow).parameters)
    for made in (Quick(1), Quick(1, "x"), Quick(first=1, third=[2]), replace(Quick(1), second="y")):
        slow = Slow(made.first, made.second, made.third)
        assert type(made) is Quick
        assert repr(made) == repr(slow).replace("Slow", "Quick")
        assert made == Quick(made.first, made.second, made.third)
    assert hash((Quick(1).first, Quick(1).second)) == hash((1, "b"))
    assert Quick(1).third is not Quick(1).third


def test_it_is_as_frozen_as_before() -> None:
    made = Quick(1)
    with pytest.raises(FrozenInstanceError):
        made.first = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Quick()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="wrong"):
        Quick(-1, "wrong")


def test_its_maker_makes_what_its_call_makes() -> None:
    made = maker(Quick)(1, "x", [2])
    assert type(made) is Quick
    assert made == Quick(1, "x", [2])
    with pytest.raises(FrozenInstanceError):
        made.first = 2  # type: ignore[misc]
    with pytest.raises(ValueError, match="wrong"):
        maker(Quick)(-1, "wrong", [])
    with pytest.raises(TypeError):
        maker(Quick)(1)
    assert maker(Slow) is Slow


def test_nothing_derives_from_it() -> None:
    with pytest.raises(TypeError, match="would be made as its base"):
        type("Derived", (Quick,), {})


def test_every_value_that_passes_through_the_broker_is_frozen() -> None:
    kinds = [each for each in vars(notice).values() if is_dataclass(each) and isinstance(each, type)]
    assert len(kinds) > 20
    for kind in kinds:
        for make in (kind, maker(kind)):
            made = make(*range(len(fields(kind))))
            assert type(made) is kind
            assert [getattr(made, each.name) for each in fields(kind)] == list(range(len(fields(kind))))
            with pytest.raises(FrozenInstanceError):
                setattr(made, fields(kind)[0].name, None)
