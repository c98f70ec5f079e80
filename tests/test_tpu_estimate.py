"""What the TPU's compiler says of a step, and how its text is read."""

import importlib.util
import json

import pytest
from test_benchmarks import benchmark
from tiny import CONFIG_FILE

from benchmarks.memory_spaces import Traffic, traffic

PROGRAM = """HloModule jit_f, is_scheduled=true

%fused (p: f32[8,128]) -> f32[8,128] {
  ROOT %inner = f32[8,128]{1,0:T(8,128)} add(%p, %p)
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


def test_bytes_are_told_apart_by_the_memory_they_lie_in():
    # The copy reads HBM and writes VMEM; the fusion reads both and writes two bytes a number to
    # VMEM and one to HBM; the conversion goes back.
    numbers = 8 * 128
    assert traffic(PROGRAM) == Traffic(
        hbm=numbers * (4 + 4 + 1 + 4), vmem=numbers * (4 + 4 + 2 + 2)
    )


def test_a_program_with_a_loop_is_refused():
    loop = PROGRAM.replace("convert(%part)", "while(%part)")
    with pytest.raises(ValueError, match="has a while"):
        traffic(loop)


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install -e '.[tpu]'"
)
def test_the_step_is_compiled_for_a_tpu(tmp_path):
    out = tmp_path / "tpu.json"
    result = benchmark("tpu_estimate", f"--config={CONFIG_FILE}", f"--out={out}")
    assert result.returncode == 0, result.stderr
    assert "nothing was run" in result.stdout
    (row,) = json.loads(out.read_text())["rows"]
    # A picture and its gradient's way through the network must at least be read once.
    assert row["HBM MB/image"] > 0 and row["peak MB"] > 0
    assert 0 < row["of peak %"] <= 100


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is not None, reason="the TPU compiler is here"
)
def test_a_missing_compiler_is_named():
    result = benchmark("tpu_estimate", f"--config={CONFIG_FILE}")
    assert result.returncode == 2 and "pip install -e '.[tpu]'" in result.stderr
