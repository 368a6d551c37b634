import importlib.metadata
import json

import pytest

from lit_compress.benchmark import environment
from lit_compress.benchmark.environment import describe_environment, library_version, same_environment


def test_cpu_and_its_instructions_are_read_from_the_system(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Fast CPU @ 2.00GHz\nflags\t\t: fpu sse2 avx2 avx512_vnni amx_int8 fma\n\n"
    )
    governor = tmp_path / "scaling_governor"
    governor.write_text("performance\n")
    monkeypatch.setattr(environment, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(environment, "_GOVERNOR", governor)
    found = describe_environment()
    assert found["cpu"] == "Fast CPU @ 2.00GHz"
    assert found["cpu_flags"] == ["amx_int8", "avx2", "avx512_vnni", "fma"]
    assert found["governor"] == "performance"
    monkeypatch.setattr(environment, "_GOVERNOR", tmp_path / "none")
    assert environment.governor() is None


def test_environment_is_plain_data_with_library_versions():
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == importlib.metadata.version("torch")
    assert found["gpu"] is None and found["load_after"] is None
    assert library_version("no-such-library") is None


@pytest.mark.parametrize("name", ["cpu", "cores", "torch", "gpu", "onnxruntime", "cpu_flags"])
def test_another_machine_or_library_is_another_environment(name):
    here = describe_environment()
    assert same_environment(here, here | {"load_before": 9.9, "load_after": 1.0})
    assert not same_environment(here, here | {name: "other"})
