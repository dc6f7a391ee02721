"""Philox: known answers, Triton's own functions, and independence from block sizes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch._inductor import inductor_prims

import helion
import helion.language as hl
from helion import exc
from helion.language.random import philox
from helion.language.random import philox_rounds
from helion.runtime.eager.ref_mode import run_ref

# philox4x32-10 lines of kat_vectors in Random123 (counter, key, result).
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter, key, result):
    words = philox_rounds(*(torch.tensor([c]) for c in counter), *key)
    assert [int(w) for w in words] == result


def reference_philox(seed: int, offset: int) -> list[int]:
    """Philox 4x32-10 on Python integers."""
    c, k = [offset & 0xFFFFFFFF, offset >> 32 & 0xFFFFFFFF, 0, 0], [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def as_int32(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**40 + 17, 2**63 - 1])
def test_philox_equals_integer_arithmetic_for_wide_seeds_and_offsets(seed):
    offsets = [0, 1, 2**31 - 1, 2**31, 2**32, 2**33 + 5, 2**62]
    words = philox(seed, torch.tensor(offsets))
    assert torch.stack(words, dim=1).tolist() == [reference_philox(seed, o) for o in offsets]


@pytest.mark.spawns
def test_numbers_are_those_of_triton(tmp_path):
    """Triton's interpreter runs tl.rand, tl.rand4x and tl.randint for the same seeds and offsets."""
    script = tmp_path / "triton_numbers.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import torch, triton, triton.language as tl

            @triton.jit
            def kernel(offsets, uniform, bits, four, seed, N: tl.constexpr):
                at = tl.arange(0, N)
                o = tl.load(offsets + at)
                tl.store(uniform + at, tl.rand(seed, o))
                tl.store(bits + at, tl.randint(seed, o).to(tl.int32, bitcast=True))
                a, b, c, d = tl.rand4x(seed, o)
                tl.store(four + at, a)
                tl.store(four + N + at, b)
                tl.store(four + 2 * N + at, c)
                tl.store(four + 3 * N + at, d)

            results = []
            for seed in (0, 7, 2**31 - 1, 2**40 + 3):
                for dtype in (torch.int32, torch.int64):
                    step = 8388607 if dtype is torch.int32 else 10**10
                    offsets = (torch.arange(256, dtype=torch.int64) * step).to(dtype)
                    uniform, four = torch.empty(256), torch.empty(4, 256)
                    bits = torch.empty(256, dtype=torch.int32)
                    kernel[(1,)](offsets, uniform, bits, four, seed, 256)
                    results.append((seed, offsets, uniform, bits, four))
            torch.save(results, sys.argv[1])
            """
        )
    )
    output = tmp_path / "numbers.pt"
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, str(script), str(output)], check=True, env=env, timeout=300)
    for seed, offsets, uniform, bits, four in torch.load(output):
        assert torch.equal(hl.philox_rand.eager_rule(seed, offsets), uniform)
        assert torch.equal(hl.philox_bits.eager_rule(seed, offsets), bits)
        assert torch.equal(torch.stack(hl.philox_rand4x.eager_rule(seed, offsets)), four)


def fill_rand(x, seed):
    for tm, tn in hl.tile(list(x.shape)):
        x[tm, tn] = hl.rand([tm, tn], seed)
    return x


def test_rand_is_the_number_of_the_position_for_any_block_size(ref, blocks):
    got = ref(fill_rand, torch.empty(9, 20), 42, config=blocks)
    expected = hl.philox_rand.eager_rule(42, torch.arange(180).reshape(9, 20))
    assert torch.equal(got, expected)


def test_rand_accepts_block_sizes_and_plain_sizes(ref):
    def kernel(x, seed):
        for t in hl.tile(x.size(0), block_size=4):
            x[t, :] = hl.rand([t.block_size, 20], seed)
        return x

    got = ref(kernel, torch.empty(9, 20), 42)
    assert torch.equal(got, hl.philox_rand.eager_rule(42, torch.arange(180).reshape(9, 20)))


def test_randint_is_the_bits_modulo_the_range(ref, blocks):
    def kernel(x, seed):
        for t in hl.tile(x.size(0)):
            x[t] = hl.randint([t], -3, 10, seed)
        return x

    got = ref(kernel, torch.empty(500, dtype=torch.int32), 5, config=blocks)
    assert got.tolist() == [abs(as_int32(reference_philox(5, i)[0])) % 13 - 3 for i in range(500)]


def test_rand4x_gives_four_streams_the_first_of_which_is_rand(ref):
    def kernel(x, seed):
        for t in hl.tile(x.size(1)):
            a, b, c, d = hl.rand4x([t], seed)
            x[0, t], x[1, t], x[2, t], x[3, t] = a, b, c, d
        return x

    got = ref(kernel, torch.empty(4, 50), 11)
    assert torch.equal(got, torch.stack(hl.philox_rand4x.eager_rule(11, torch.arange(50))))
    assert len(got.unique()) == 200


def test_a_seed_may_be_loaded_from_a_tensor(ref):
    def kernel(x, seeds):
        for t in hl.tile(x.size(0)):
            x[t] = hl.rand([t], seeds[1])
        return x

    got = ref(kernel, torch.empty(8), torch.tensor([3, 4]))
    assert torch.equal(got, hl.philox_rand.eager_rule(4, torch.arange(8)))


def test_torch_rand_follows_torchs_generator_and_differs_by_place(ref):
    def kernel(x):
        for t in hl.tile(x.size(1)):
            x[0, t] = torch.rand([t])
            x[1, t] = torch.rand_like(x[0, t])
        return x

    def draw(seed):
        torch.manual_seed(seed)
        return ref(kernel, torch.empty(2, 300))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert len(draw(1).unique()) > 590


def test_torch_randn_has_the_moments_of_a_normal_distribution(ref):
    def kernel(x):
        for t in hl.tile(x.size(0)):
            x[t] = torch.randn([t])
        return x

    torch.manual_seed(0)
    got = ref(kernel, torch.empty(20000))
    assert abs(got.mean()) < 0.03 and abs(got.std() - 1) < 0.02 and abs((got**4).mean() - 3) < 0.2


def test_dropout_keeps_and_scales(ref):
    def kernel(x):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = torch.nn.functional.dropout(x[t], p=0.25)
        return out

    torch.manual_seed(0)
    got = ref(kernel, torch.full((8000,), 3.0))
    kept = got != 0
    assert torch.equal(got[kept], torch.full_like(got[kept], 4.0))
    assert abs(kept.float().mean() - 0.75) < 0.03


def test_a_float_seed_is_an_error(ref):
    with pytest.raises(exc.InvalidAPIUsage, match="seed must be an integer"):
        ref(fill_rand, torch.empty(4, 4), 0.5)


def test_an_empty_integer_range_is_an_error(ref):
    def kernel(x):
        for t in hl.tile(4):
            x[t] = hl.randint([t], 3, 3, 0)
        return x

    with pytest.raises(exc.InvalidAPIUsage, match=r"bad range \[3, 3\)"):
        ref(kernel, torch.empty(4))


# -- torch's own random functions in traced kernels ---------------------------------------------------------------


@helion.kernel
def torch_random(x: torch.Tensor) -> torch.Tensor:
    for t in hl.tile(x.size(1)):
        x[0, t] = torch.rand([t])
        x[1, t] = torch.rand_like(x[0, t])
        x[2, t] = torch.randn([t])
        x[3, t] = torch.nn.functional.dropout(x[0, t], p=0.5)
    return x


def test_traced_torch_rand_follows_torchs_generator_and_differs_by_place_and_launch():
    def draw(seed):
        torch.manual_seed(seed)
        return torch_random(torch.empty(4, 300)), torch_random(torch.empty(4, 300))

    first, second = draw(1)
    again, _ = draw(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert len(first[:2].unique()) > 590


@pytest.mark.compiles
@pytest.mark.softgpu(capability=80, software_only=True)
def test_traced_torch_rand_gives_the_same_numbers_in_every_mode(softgpu):
    torch.manual_seed(5)
    on_gpu = torch_random(torch.empty(4, 300))
    torch.manual_seed(5)
    reference = run_ref(torch_random.fn, (torch.empty(4, 300),))
    torch.testing.assert_close(on_gpu, reference)


@pytest.mark.compiles
@pytest.mark.softgpu(capability=80, software_only=True)
def test_places_that_draw_have_the_seeds_of_a_compiled_function_of_torchs(softgpu):
    def of_seeds(x, seeds):
        out = torch.empty([3, x.size(0), x.size(1)], device=x.device)
        for t, u in hl.tile([x.size(0), x.size(1)]):
            for place in hl.static_range(3):
                out[place, t, u] = hl.rand([t, u], seeds[place])
        return out

    def of_torch(x):
        out = torch.empty([3, x.size(0), x.size(1)], device=x.device)
        for t, u in hl.tile([x.size(0), x.size(1)]):
            out[0, t, u] = torch.rand_like(x[t, u]) + hl.rand([t, u], 0) * 0
            out[1, t, u] = torch.rand([t, u])
            out[2, t, u] = torch.rand(t, u)
        return out

    x = torch.empty(5, 30)
    torch.manual_seed(11)
    expected = run_ref(of_seeds, (x, inductor_prims.seeds(3, x.device)))
    for run in (run_ref, lambda fn, args: helion.kernel(fn, config=helion.Config(block_sizes=[4, 8]))(*args)):
        torch.manual_seed(11)
        assert torch.equal(run(of_torch, (x,)), expected)


@helion.kernel(config=helion.Config(block_sizes=[16]))
def draws_in_loops(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([4, 4, x.size(0)], device=x.device)
    for t in hl.tile(x.size(0)):
        for i in hl.grid(4):
            for u in range(2):
                out[i, u, t] = torch.rand([t])
            for j in hl.tile(2, block_size=1):
                out[i, 2 + j.begin, t] = torch.rand_like(x[t])
    return out


def test_torch_rand_draws_anew_in_every_iteration_of_a_loop_outside_its_shape():
    torch.manual_seed(0)
    got = draws_in_loops(torch.empty(40))
    assert len(got.unique()) == got.numel()


@pytest.mark.softgpu(capability=80, software_only=True)
@pytest.mark.compiles
def test_draws_in_loops_are_the_same_in_every_mode(softgpu):
    results = []
    for run in (draws_in_loops, draws_in_loops.bind((torch.empty(40),)).run_ref):
        torch.manual_seed(5)
        results.append(run(torch.empty(40)))
    torch.manual_seed(5)
    tiles = helion.kernel(draws_in_loops.fn, config=helion.Config(block_sizes=[8]))(torch.empty(40))
    assert torch.equal(*results) and torch.equal(results[0], tiles)


def test_hl_rand_is_a_function_of_seed_and_position_alone(ref):
    def kernel(x, seed):
        for t in hl.tile(x.size(1)):
            for i in hl.grid(2):
                x[i, t] = hl.rand([t], seed)
                x[2 + i, t] = hl.rand([t], seed + i)
        return x

    got = ref(kernel, torch.empty(4, 20), 7)
    assert torch.equal(got[0], got[1]) and torch.equal(got[0], got[2]) and not torch.equal(got[2], got[3])
