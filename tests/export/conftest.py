import pytest

from lit_compress.benchmark.runtimes import runtime


@pytest.fixture
def way(request, monkeypatch):
    """A runtime whose libraries are there."""
    found = runtime(request.param)
    try:
        found.check()
    except ImportError as error:
        pytest.skip(str(error))
    if found.name.startswith("litert"):  # a graph for the longest texts only
        monkeypatch.setattr("lit_compress.export.litert._SHORTEST", 256)
    return found
