"""Configs: their forms, what of them a kernel takes, and that a given one stays as it is."""

from __future__ import annotations

import inspect
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from examples.catalog import EXAMPLES
from helion import exc
from helion.config_keys import SINGULARS
from helion.config_keys import TABLE
from helion.config_spec import ConfigSpec

# -- the mapping ---------------------------------------------------------------------------------------------------


def test_a_config_is_what_was_given() -> None:
    config = helion.Config(block_size=[[8, 16], 32], num_warps=8, mine=None)
    assert dict(config) == {"num_warps": 8, "block_size": [[8, 16], 32], "mine": None}
    assert helion.Config.from_json(config.to_json()) == config == pickle.loads(pickle.dumps(config))


def test_its_items_are_a_live_dict() -> None:
    config = helion.Config(num_warps=8)
    before = hash(config)
    config.config["num_warps"] = 4
    assert config["num_warps"] == 4 and config.num_warps == 4 and config == helion.Config(num_warps=4)
    assert hash(config) == hash(helion.Config(num_warps=4)) != before


def test_a_key_that_is_none_is_absent_and_a_tunable_is_not() -> None:
    assert dict(helion.Config(maxnreg=None, mine=None)) == {"mine": None}


def test_every_key_is_a_named_parameter() -> None:
    parameters = inspect.signature(helion.Config).parameters
    assert list(parameters)[:-1] == list(TABLE)
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[:-1])
    with pytest.raises(TypeError):
        helion.Config([16])  # type: ignore[misc]


def test_absent_keys_are_neutral_as_attributes() -> None:
    config = helion.Config()
    assert (config.block_sizes, config.num_warps, config.num_stages, config.pid_type) == ([], 4, 1, "flat")
    assert (config.maxnreg, config.xcd_remap, config.advanced_controls_file) == (None, False, "")
    for key, row in TABLE.items():
        assert getattr(config, key) == row.neutral
    config.block_sizes.append(3)
    assert helion.Config().block_sizes == []
    with pytest.raises(AttributeError, match="num_wraps"):
        _ = config.num_wraps


def test_a_singular_key_is_the_plural_as_an_attribute() -> None:
    assert helion.Config(block_size=16).block_sizes == [16]
    assert helion.Config(block_size=16).block_size == 16
    assert helion.Config(loop_order=[1, 0]).loop_orders == [[1, 0]]


def test_a_plural_key_of_one_item_is_the_singular_as_an_attribute() -> None:
    assert helion.Config(block_sizes=[64]).block_size == helion.Config(block_sizes=64).block_size == 64
    assert helion.Config(loop_orders=[[1, 0]]).loop_order == [1, 0]
    config = helion.Config(block_sizes=[64, 32])
    assert config.block_size is None and config.loop_order is None and "block_size" not in config


def test_lists_are_plain_lists_as_attributes() -> None:
    config = helion.Config(block_sizes=[[8, 16], 32], l2_groupings=4, loop_orders=[1, 0], reduction_loops=[None])
    assert (config.block_sizes, config.l2_groupings, config.loop_orders) == ([8, 16, 32], [4], [[1, 0]])
    assert config.reduction_loops is config["reduction_loops"]
    assert config["block_sizes"] == [[8, 16], 32] and helion.Config(indexing="block_ptr").indexing == "block_ptr"


def test_saving_makes_folders(tmp_path: Path) -> None:
    config = helion.Config(block_sizes=[16], l2_grouping=4)
    config.save(tmp_path / "a" / "b" / "config.json")
    assert helion.Config.load(tmp_path / "a" / "b" / "config.json") == config
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["config.json"]


def test_the_runtime_knows_the_class_too() -> None:
    assert helion.runtime.Config is helion.Config


# -- what a kernel makes of one ------------------------------------------------------------------------------------


def spec_of(name: str) -> ConfigSpec:
    return EXAMPLES[name].kernel.bind(EXAMPLES[name].args()).config_spec


FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"block_sizes": ([16, 32], 64)}, {"block_sizes": [16, 32, 64]}),
    ({"block_sizes": [[[16]], [32, [64]]]}, {"block_sizes": [16, 32, 64]}),
    ({"block_size": (16, 32, 64)}, {"block_sizes": [16, 32, 64]}),
    ({"l2_grouping": 4}, {"l2_groupings": [4]}),
    ({"l2_groupings": 4}, {"l2_groupings": [4]}),
    ({"loop_order": [1, 0]}, {"loop_orders": [[1, 0]]}),
    ({"loop_orders": [1, 0]}, {"loop_orders": [[1, 0]]}),
    ({"loop_orders": []}, {"loop_orders": [[0, 1]]}),
    ({"flatten_loop": False}, {"flatten_loops": [False]}),
    ({"static_range": True}, {"static_ranges": [True]}),
    ({"range_num_stages": 3}, {"range_num_stages": [3, 0]}),
    ({"range_num_stages": [1, 2, 3, 4]}, {"range_num_stages": [1, 2]}),
    ({"range_num_stage": 2}, {"range_num_stages": [2, 0]}),
    ({"range_unroll_factors": []}, {"range_unroll_factors": [0, 0]}),
    ({"range_unroll_factor": 2}, {"range_unroll_factors": [2, 0]}),
    ({"range_multi_buffers": [None, False, True]}, {"range_multi_buffers": [None, False]}),
    ({"range_multi_buffer": True}, {"range_multi_buffers": [True, None]}),
    ({"range_flatten": True}, {"range_flattens": [True, None]}),
    ({"load_eviction_policies": "first"}, {"load_eviction_policies": ["first", ""]}),
    ({"load_eviction_policies": ["first"] * 5}, {"load_eviction_policies": ["first"] * 2}),
    ({"indexing": ["block_ptr"]}, {"indexing": ["block_ptr", "pointer", "pointer"]}),
    ({"load_cache_modifiers": ".cg"}, {"load_cache_modifiers": [".cg", ""]}),
    ({"store_cache_modifiers": [""]}, {}),
    ({"epilogue_subtile": True}, {"epilogue_subtile": 2}),
    ({"epilogue_subtile": False}, {}),
    ({"num_warps": None}, {}),
]


@pytest.mark.parametrize(("given", "plain"), FORMS, ids=str)
def test_forms_of_a_value(given: dict[str, Any], plain: dict[str, Any]) -> None:
    spec = spec_of("matmul")
    config = helion.Config(**given)
    before = json.dumps(dict(config))
    assert spec.normalize(config) == spec.normalize(plain) == spec.normalize(dict(given))
    assert json.dumps(dict(config)) == before, "a given Config stays as it is"
    full = spec.normalize(config)
    assert all(full[key] == value for key, value in plain.items()) and spec.normalize(full) == full


def test_each_singular_is_of_a_list() -> None:
    assert {SINGULARS[s] for s in SINGULARS} <= {k for k, row in TABLE.items() if row.form in ("list", "orders")}
    assert len(SINGULARS) == 11


def test_one_reduction_loop_is_for_every_reduction() -> None:
    @helion.kernel
    def two(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0)], device=x.device)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile, :].sum(-1) + y[tile, :].sum(-1)
        return out

    spec = two.bind((torch.ones(4, 100), torch.ones(4, 200))).config_spec
    assert spec.normalize({"reduction_loop": 32})["reduction_loops"] == [32, 32]
    assert spec.normalize({"reduction_loops": 32})["reduction_loops"] == [32, None]
    assert spec.normalize({"reduction_loops": [32, 1]})["reduction_loops"] == [32, 8]
    # A chunk as long as the dimension is the whole dimension.
    assert spec.normalize({"reduction_loop": 128})["reduction_loops"] == [None, 128]


def test_loops_over_two_dimensions_of_one_value_are_refused_before_anything_is_compiled() -> None:
    @helion.kernel
    def slabs(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, means = x.new_empty([x.size(0)]), x.new_empty([x.size(0), x.size(1)])
        for tile in hl.tile(x.size(0)):
            value = x[tile, :, :]
            out[tile] = value.sum(dim=(1, 2))
            means[tile, :] = value.mean(-1)
        return out, means

    bound = slabs.bind((torch.ones(7, 5, 9),))
    assert bound.config_spec.fields["reduction_loops"].labels == ("a dimension of 9", "a dimension of 5")
    with pytest.raises(
        exc.InvalidConfig, match=r"'slabs'.*reduction_loops=\[2, 4\].*of 9 and the one of 5.*\n.*test_config.py"
    ):
        bound.config_spec.normalize({"reduction_loops": [2, 4]})
    for one in ([2, None], [None, 4]):
        bound.to_triton_code(bound.config_spec.normalize({"reduction_loops": one}))


def test_keys_with_nothing_to_schedule_are_ignored() -> None:
    spec = spec_of("add")
    assert spec.normalize(
        {
            "reduction_loops": [32],
            "loop_orders": [[1, 0]],
            "static_ranges": [True],
            "tcgen05_ab_stages": 4,
            "epilogue_subtile": 2,
            "num_threads": [128],
            "atomic_indexing": "pointer",
            "xcd_remap": True,
            "cute_vector_widths": 4,
            "waves_per_eu": 2,
            "matrix_instr_nonkdim": 16,
            "num_ctas": 2,
            "occupancy": 2,
            "pallas_load_buffer_count": 2,
        }
    ) == spec.normalize({})


BAD: list[dict[str, Any]] = [
    {"reduction_loops": [3]},
    {"loop_orders": [[0, 2]]},
    {"static_ranges": [2]},
    {"num_threads": "many"},
    {"load_cache_modifiers": ["cg"]},
    {"advanced_controls_file": 3},
    {"advanced_controls_file": "/a file"},
    {"num_ctas": 3},
    {"block_sizes": [24]},
    {"block_sizes": [0]},
    {"num_sm_multiplier": 256, "pid_type": "persistent_blocked"},
    {"indexing": "descriptor"},
    {"block_sizes": [True]},
]


@pytest.mark.parametrize("config", BAD, ids=str)
def test_type_and_range_of_every_key_are_checked(config: dict[str, Any]) -> None:
    with pytest.raises(exc.InvalidConfig, match=next(iter(config))):
        spec_of("add").normalize(config)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_wrong_number_of_block_sizes_names_both_counts(count: int) -> None:
    with pytest.raises(exc.InvalidConfig, match=rf"block_sizes.*expected 3 item.*got {count}"):
        spec_of("matmul").normalize({"block_sizes": [16] * count})


@pytest.mark.parametrize(
    "given", [{"block_sizes": [16] * 3, "block_size": 16}, {"block_size": 16, "block_sizes": [16]}]
)
def test_both_spellings_of_a_key_are_an_error(given: dict[str, Any]) -> None:
    with pytest.raises(exc.InvalidConfig, match=r"both 'block_sizes?' and 'block_sizes?' were given"):
        spec_of("matmul").normalize(helion.Config(**given))


@pytest.mark.parametrize("pid_type", ["flat", "xyz"])
@pytest.mark.parametrize(("key", "value"), [("num_sm_multiplier", 2), ("maxnreg", 64)])
def test_what_needs_persistent_programs_says_so(pid_type: str, key: str, value: int) -> None:
    spec = spec_of("matmul")
    with pytest.raises(exc.InvalidConfig, match=f"{key}={value} needs a persistent pid_type"):
        spec.normalize({"pid_type": pid_type, key: value})
    assert spec.normalize({"pid_type": "persistent_blocked", key: value})[key] == value
    assert spec.normalize({"pid_type": pid_type, "num_sm_multiplier": 1})
    both = r"num_sm_multiplier=2 and maxnreg=64 need .* pid_type='persistent_blocked'"
    with pytest.raises(exc.InvalidConfig, match=both):
        spec.normalize({"pid_type": pid_type, "num_sm_multiplier": 2, "maxnreg": 64})


def test_block_sizes_may_be_smaller_than_what_tensor_cores_take() -> None:
    spec = spec_of("matmul")
    assert spec.normalize({"block_sizes": [1, 2, 4]})["block_sizes"] == [1, 2, 4]
    assert spec.fields["block_sizes"].items[0].low == 16  # type: ignore[attr-defined]


def test_block_sizes_may_be_larger_than_the_dimension_and_than_searches_go() -> None:
    assert spec_of("add").normalize({"block_sizes": [1 << 17]})["block_sizes"] == [1 << 17]


def test_a_misspelt_key_warns_with_the_right_name_once() -> None:
    spec = spec_of("matmul")
    with pytest.warns(exc.MisspelledConfigKey, match="num_warp'.*'num_warps'"):
        assert spec.normalize({"num_warp": 8}) == spec.normalize({})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec.normalize({"num_warp": 8})
    with pytest.raises(exc.InvalidConfig, match="does not take key 'tile_shape'"):
        spec.normalize({"tile_shape": 8})


def test_a_tunable_called_like_another_key_is_the_tunable() -> None:
    @helion.kernel
    def scaled(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        occupancy = hl.register_tunable("occupancy", helion.autotuner.IntegerFragment(1, 4, 2))
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * occupancy
        return out

    x = torch.randn(20)
    bound = scaled.bind((x,))
    torch.testing.assert_close(bound.compile_config({"occupancy": 3})(x), x * 3)
    with pytest.raises(exc.InvalidConfig, match="occupancy"):
        bound.compile_config({"occupancy": 9})


def test_minimize_keeps_what_is_not_default_in_its_spelling() -> None:
    bound = EXAMPLES["matmul"].kernel.bind(EXAMPLES["matmul"].args())
    config = helion.Config(l2_grouping=8, num_warps=4, num_stages=3, num_threads=4)
    assert dict(config.minimize(bound.config_spec)) == {"num_stages": 3, "l2_grouping": 8}


def test_a_config_is_read_the_same_in_ref_mode() -> None:
    def count(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * 0 + tile.id
        return out

    x = torch.zeros(64)
    config = helion.Config(block_size=16)
    expected = torch.arange(64.0) // 16
    torch.testing.assert_close(helion.kernel(count, config=config)(x), expected)
    torch.testing.assert_close(helion.kernel(count, config=config, ref_mode=helion.RefMode.EAGER)(x), expected)


def test_of_ref_mode_too_a_registered_minimum_raises_a_block_size() -> None:
    def count(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        block = hl.register_block_size(16, 64)
        for tile in hl.tile(x.size(0), block_size=block):
            out[tile] = x[tile] * 0 + tile.id
        return out

    x, expected = torch.zeros(64), torch.arange(64.0) // 16
    for mode in helion.RefMode:
        torch.testing.assert_close(helion.kernel(count, config={"block_size": 4}, ref_mode=mode)(x), expected)
