"""`traffic` counts the bytes that a compiled program moves in each kind of memory."""

import jax
import jax.numpy as jnp
import pytest

from vaejax.cost.hlo import Program
from vaejax.cost.traffic import Traffic, traffic

PROGRAM = """HloModule jit_f, is_scheduled=true

%fused (p: f32[8,128], q: f32[8,128]) -> (bf16[8,128], pred[8,128]) {
  %p = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)
  %q = f32[8,128]{1,0:T(8,128)} parameter(1)
  %less = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} convert(%p)
  %above = pred[8,128]{1,0:T(8,128)(4,1)} compare(%p, %q), direction=GT
  ROOT %both = (bf16[8,128]{1,0}, pred[8,128]{1,0}) tuple(%less, %above)
}

ENTRY %main.1 (x.1: f32[8,128]) -> (f32[8,128], s32[]) {
  %x.1 = f32[8,128]{1,0:T(8,128)} parameter(0), metadata={op_name="x"}
  %copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) \
copy-start(%x.1)
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %bitcast = f32[1024]{0:T(1024)S(1)} bitcast(%copy-done)
  %fusion = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, pred[8,128]{1,0:T(8,128)(4,1)}) \
fusion(%copy-done, %x.1), kind=kLoop, calls=%fused, metadata={op_name="%not.an.operand"}
  %part = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%fusion), index=0
  ROOT %out = f32[8,128]{1,0:T(8,128)} convert(%part)
}
"""


def test_bytes_are_counted_for_the_memory_that_holds_them():
    # The copy reads HBM and writes VMEM. The fusion reads both, and writes bf16 (2 bytes) to VMEM
    # and pred (1 byte) to HBM. The conversion reads VMEM and writes HBM.
    numbers = 8 * 128
    assert traffic(Program(PROGRAM)) == Traffic(
        hbm=numbers * (4 + 4 + 1 + 4), near=numbers * (4 + 4 + 2 + 2)
    )


def test_a_prefetched_slice_counts_its_own_bytes_and_its_buffer_none():
    fetch = """
  %room = f32[2,128]{1,0:S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %slice-start = ((f32[8,128]{1,0}), f32[2,128]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%x.1)
  %slice-done = f32[2,128]{1,0:S(1)} slice-done(%slice-start)
  ROOT %out ="""
    part = 4 * 2 * 128
    without = traffic(Program(PROGRAM))
    fetched = traffic(Program(PROGRAM.replace("\n  ROOT %out =", fetch)))
    assert fetched == without.plus(Traffic(hbm=part, near=part))


def test_an_asynchronous_all_reduce_reads_and_writes_its_bytes_once():
    summed = """
  %all-reduce-start = f32[8,128]{1,0} all-reduce-start(%x.1), replica_groups={{0,1}}
  %all-reduce-done = f32[8,128]{1,0} all-reduce-done(%all-reduce-start)
  ROOT %out ="""
    without = traffic(Program(PROGRAM))
    with_sum = traffic(Program(PROGRAM.replace("\n  ROOT %out =", summed)))
    assert with_sum == without.plus(Traffic(hbm=2 * 4 * 8 * 128, near=0))


def test_an_array_counts_in_whole_tiles():
    # A tile has 8 rows and 128 lanes. Arrays with 3 rows and 48 lanes are padded to whole tiles.
    narrow = PROGRAM.replace("8,128]", "2,3,48]").replace("{1,0:", "{2,1,0:")
    assert traffic(Program(narrow)) == traffic(Program(PROGRAM)).times(2)


def test_an_operand_is_counted_once_behind_bitcasts_and_fusions():
    convolution = """HloModule jit_h

%renamed (w: f32[16,8]) -> f32[128] {
  %w = f32[16,8]{1,0} parameter(0)
  ROOT %flat = f32[128]{0} bitcast(%w)
}

%both (a: f32[128], b: f32[16,8]) -> f32[128] {
  %a = f32[128]{0} parameter(0)
  %b = f32[16,8]{1,0} parameter(1)
  %again = f32[128]{0} fusion(%b), kind=kLoop, calls=%renamed
  ROOT %sum = f32[128]{0} add(%a, %again)
}

ENTRY %main (x: f32[128], y: f32[16,8]) -> f32[128] {
  %x = f32[128]{0} parameter(0)
  %y = f32[16,8]{1,0} parameter(1)
  ROOT %out = f32[128]{0} fusion(%x, %y), kind=kLoop, calls=%both
}
"""
    assert traffic(Program(convolution)) == Traffic(hbm=3 * 4 * 128, near=0)


def compiled(function, *arrays):
    return Program(jax.jit(function, donate_argnums=0).lower(*arrays).compile().as_text())


@pytest.mark.parametrize("rounds", [4, 256])
def test_a_loop_moves_the_slices_that_it_reads_and_writes(rounds):
    size = 1000

    def loop(carry, rows):
        return jax.lax.scan(lambda carry, row: (carry + row, jnp.exp(carry * row)), carry, rows)

    moved = traffic(compiled(loop, jnp.ones(size), jnp.ones((rounds, size)))).hbm
    # Each iteration reads a row, writes a row, and reads and writes the carry. The compiler may
    # add copies, but the bytes must not grow with the square of the number of iterations.
    least = 4 * rounds * 4 * size
    assert least <= moved <= 3 * least


def test_an_update_in_place_moves_only_the_updated_part():
    def update(table, row):
        return jax.lax.dynamic_update_slice(table, 2.0 * row[None], (3, 0))

    moved = traffic(compiled(update, jnp.ones((1000, 50)), jnp.ones(50))).hbm
    assert 2 * 4 * 50 <= moved <= 5 * 4 * 50


def test_the_sides_of_a_branch_count_by_how_often_they_are_taken():
    branches = """HloModule jit_b

%twice (x: f32[1000]) -> f32[1000] {
  %x = f32[1000]{0} parameter(0)
  %y = f32[1000]{0} negate(%x)
  ROOT %z = f32[1000]{0} negate(%y)
}

%once (s: f32[1000]) -> f32[1000] {
  %s = f32[1000]{0} parameter(0)
  ROOT %t = f32[1000]{0} negate(%s)
}

ENTRY %main (p: pred[], a: f32[1000]) -> f32[1000] {
  %p = pred[] parameter(0)
  %a = f32[1000]{0} parameter(1)
  ROOT %b = f32[1000]{0} conditional(%p, %a, %a), BRANCHES
}
"""
    once = 2 * 4 * 1000
    for named in (
        "true_computation=%twice, false_computation=%once",
        "branch_computations={%once, %twice}",
    ):
        program = Program(branches.replace("BRANCHES", named))
        assert traffic(program).hbm == 2 * once
        assert traffic(program, costlier=0.25).hbm == 1.25 * once


def test_a_loop_of_unknown_length_is_refused():
    def until(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 100.0, lambda x: 2.0 * x, x)

    with pytest.raises(ValueError, match="is unknown"):
        traffic(compiled(until, jnp.ones(3)))
