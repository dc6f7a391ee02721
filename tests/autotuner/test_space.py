"""SearchSpace: points, moves and features."""

from __future__ import annotations

import random

import pytest
from autotune_landscapes import LANDSCAPES
from autotune_landscapes import Landscape

from helion import exc
from helion.autotuner.space import SearchSpace
from helion.autotuner.strategy import FiniteStrategy
from helion.config import Config
from helion.config_spec import ConfigSpec
from helion.fragments import BlockSizeFragment
from helion.fragments import BooleanFragment
from helion.fragments import EnumFragment
from helion.fragments import Fragment
from helion.fragments import ListOf
from helion.fragments import OneOrPerItem
from helion.fragments import PermutationFragment
from helion.fragments import PowerOfTwoFragment

SEED = 20


@pytest.mark.parametrize("landscape", LANDSCAPES, ids=lambda landscape: landscape.name)
def test_every_config_has_one_point_and_comes_back_from_it(landscape: Landscape) -> None:
    space, rng = landscape.space(), random.Random(SEED)
    for _ in range(50):
        config = space.random(rng)
        assert config is not None
        assert space.config(space.point(config)) == config


@pytest.mark.parametrize("landscape", LANDSCAPES, ids=lambda landscape: landscape.name)
def test_neighbors_are_valid_and_differ_in_one_dimension(landscape: Landscape) -> None:
    space, rng = landscape.space(), random.Random(SEED)
    config = space.random(rng)
    assert config is not None
    around = space.neighbors(config)
    assert around and len(set(around)) == len(around)
    for other in around:
        assert landscape.spec.is_valid(other)
        assert sum(a != b for a, b in zip(space.point(config), space.point(other))) == 1


def test_spellings_of_one_schedule_are_one_config() -> None:
    spec = ConfigSpec("k", {"indexing": OneOrPerItem(EnumFragment(("pointer", "block_ptr")), 2)})
    space = SearchSpace(spec)
    assert space.canonical(Config(indexing=["pointer", "pointer"])) == space.canonical(Config(indexing="pointer"))
    assert space.cardinality() == 4


def test_a_tile_larger_than_the_loop_is_measured_as_given_and_searched_around_as_the_largest() -> None:
    space = SearchSpace(ConfigSpec("k", {"block_sizes": ListOf(BlockSizeFragment(1, 64, 16, accepted=1024), 1)}))
    large = Config(block_sizes=[256])
    assert space.complete(large) == large
    assert space.canonical(large) == Config(block_sizes=[64])
    assert FiniteStrategy(space, [large]).ask(1) == [large]


def test_none_among_numbers_is_above_them() -> None:
    space = SearchSpace(ConfigSpec("k", {"reduction_loops": ListOf(EnumFragment((None, 64, 16)), 1)}))
    (dimension,) = space.dimensions
    assert dimension.ordered and list(dimension.values) == [16, 64, None]


def test_overrides_stay_fixed_and_are_not_searched() -> None:
    landscape = LANDSCAPES[0]
    space, rng = SearchSpace(landscape.spec, {"num_warps": 8, "pid_type": "xyz"}), random.Random(SEED)
    assert not any(d.name in ("num_warps", "pid_type") for d in space.dimensions)
    for _ in range(20):
        config = space.random(rng)
        assert config is not None and config["num_warps"] == 8 and config["pid_type"] == "xyz"
    default = space.default()
    assert default is not None and default["num_warps"] == 8


def test_an_override_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(exc.InvalidConfig, match="num_warps"):
        SearchSpace(LANDSCAPES[0].spec, {"num_warps": 3})


def test_the_filter_and_the_constraints_exclude_configs() -> None:
    fields = {"a": PowerOfTwoFragment(1, 64), "b": BooleanFragment()}
    spec = ConfigSpec("k", fields, constraints=[lambda c: "too much" if c["a"] > 16 else None])
    space, rng = SearchSpace(spec, config_filter=lambda c: c["b"]), random.Random(SEED)
    assert space.default() is None
    seen = {space.random(rng) for _ in range(200)}
    assert {c["a"] for c in seen if c is not None} == {1, 2, 4, 8, 16}
    assert all(c is not None and c["b"] for c in seen)


def test_features_are_finite_have_one_length_and_tell_configs_apart() -> None:
    for landscape in LANDSCAPES:
        space, rng = landscape.space(), random.Random(SEED)
        configs = {c for c in (space.random(rng) for _ in range(100)) if c is not None}
        vectors = {tuple(space.encode(c)) for c in configs}
        assert len(vectors) == len(configs)
        assert len({len(v) for v in vectors}) == 1
        assert all(-1 <= x <= 4 for v in vectors for x in v)


def test_mutations_move_and_crossovers_mix() -> None:
    space, rng = LANDSCAPES[0].space(), random.Random(SEED)
    a, b = space.random_point(rng), space.random_point(rng)
    assert any(space.mutate(a, rng, 1) != a for _ in range(5))
    child = space.crossover(a, b, rng)
    assert all(c in (x, y) for c, x, y in zip(child, a, b)) and child not in (a, b)


def test_an_unknown_kind_of_fragment_is_an_error_that_names_it() -> None:
    class Odd(Fragment):
        default = validate = pattern_neighbors = cardinality = lambda self, *a: 1  # type: ignore[assignment]

    with pytest.raises(exc.AutotuneError, match="Odd"):
        SearchSpace(ConfigSpec("k", {"odd": Odd()}))


def test_too_many_loop_orders_are_an_error_that_says_what_to_fix() -> None:
    with pytest.raises(exc.AutotuneError, match="autotune_config_overrides"):
        SearchSpace(ConfigSpec("k", {"loop_orders": ListOf(PermutationFragment(7), 1)}))


def test_hopeless_configs_are_not_searched_but_the_default_and_given_ones_are() -> None:
    spec = ConfigSpec(
        "k",
        {"num_warps": PowerOfTwoFragment(1, 16, 8)},
        unpromising=[lambda c: "too wide" if c["num_warps"] >= 8 else None],
    )
    space = SearchSpace(spec)
    assert {c["num_warps"] for c in space.all()} == {1, 2, 4}
    assert space.default() == Config(num_warps=8)
    assert space.canonical(Config(num_warps=16)) == Config(num_warps=16)
    assert {c["num_warps"] for c in space.neighbors(Config(num_warps=4))} == {2, 8}
