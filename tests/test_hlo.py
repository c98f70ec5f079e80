"""Tests of parsing the HLO text of a compiled program."""

import pytest

from vaejax.cost.hlo import Collective, Program

# A loop of three iterations. Each all-reduces a gradient and all-gathers sharded parameters; the
# compiler has split the all-gather into two instructions on one channel.
LOOP = """HloModule jit_g

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%gather (p: f32[2,8]) -> f32[8,8] {
  ROOT %all-gather.2 = f32[8,8]{1,0} all-gather(%p), channel_id=7, replica_groups=[2,4]<=[8]
}

%body (carry: (s32[], f32[16])) -> (s32[], f32[16]) {
  %part = f32[2,8]{1,0} parameter(0)
  %all-gather.1 = f32[8,8]{1,0} all-gather(%part), channel_id=7, replica_groups=[2,4]<=[8]
  %again = f32[8,8]{1,0} fusion(%part), kind=kCustom, calls=%gather
  %all-reduce = f32[16]{0} all-reduce(%g), channel_id=1, replica_groups=\
mesh['axis_0'=4,'axis_1'=2] {'axis_0', 'axis_1'}, to_apply=%sum
}

%condition (carry: (s32[], f32[16])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  ROOT %compare = pred[] compare(%i, %three), direction=LT
}

ENTRY %main (x: f32[16]) -> f32[16] {
  %loop = (s32[], f32[16]) while(%x), condition=%condition, body=%body
  %send = (f32[4]{0}, u32[], token[]) send(%x, %t), is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  ROOT %out = f32[16]{0} copy(%x)
}
"""


def test_collectives_are_counted_by_channel_and_round():
    gather = Collective("all-gather", result=4 * 64, group=4)
    total = Collective("all-reduce", result=4 * 16, group=8)
    between = Collective("send", result=4 * 4, group=2)
    assert sorted(Program(LOOP).collectives()) == sorted([gather, total] * 3 + [between])


def test_a_device_sends_its_share_of_a_collective():
    assert Collective("all-reduce", 800, 8).sent == pytest.approx(2 * 700)
    assert Collective("all-gather", 800, 8).sent == pytest.approx(700)
    assert Collective("reduce-scatter", 100, 8).sent == pytest.approx(700)
    assert Collective("collective-permute", 100, 2).sent == 100


def test_a_loop_of_unknown_length_is_refused():
    endless = LOOP.replace("%three = s32[]{:T(128)} constant(3)", "%three = s32[] parameter(1)")
    with pytest.raises(ValueError, match="iterations of the loop %loop is unknown"):
        Program(endless).collectives()


@pytest.mark.parametrize(
    "line",
    [
        "%x = token[] outfeed(%y), outfeed_shape=f32[3]",
        "%x = (f32[4]{0}, token[]) send(%y), is_host_transfer=true",
        '%x = f32[3]{0} custom-call(%y), custom_call_target="xla_python_cpu_callback"',
    ],
)
def test_transfers_to_the_host_are_found(line):
    assert not Program(LOOP).host_transfers(), "a send between slices is not a transfer to the host"
    assert Program(LOOP.replace("%loop =", f"{line}\n  %loop =")).host_transfers() == ["%x"]


def test_doubles_are_found():
    assert not Program(LOOP).has_doubles()
    assert Program(LOOP.replace("f32[16]", "f64[16]")).has_doubles()


def test_an_empty_list_of_groups_means_all_devices():
    text = """HloModule jit_f, num_partitions=8

ENTRY %main (x: f32[16]) -> f32[16] {
  ROOT %sum = f32[16]{0} all-reduce(%x), channel_id=1, replica_groups={}, to_apply=%add
}
"""
    assert Program(text).collectives() == [Collective("all-reduce", result=64, group=8)]


def test_both_branches_of_a_condition_are_searched():
    text = """HloModule jit_f

%yes (a: f32[4]) -> f32[4] {
  ROOT %moved = f32[4]{0} collective-permute(%a), channel_id=1, source_target_pairs={{0,1},{1,0}}
}

%no (b: f32[4]) -> f32[4] {
  ROOT %callback = f32[4]{0} custom-call(%b), custom_call_target="xla_python_cpu_callback"
}

ENTRY %main (p: pred[], x: f32[4]) -> f32[4] {
  ROOT %either = f32[4]{0} conditional(%p, %x, %x), true_computation=%yes, false_computation=%no
}
"""
    program = Program(text)
    assert program.collectives() == [Collective("collective-permute", result=16, group=2)]
    assert program.host_transfers() == ["%callback"]
