from lit_compress.benchmark.energy import EnergyMeter


def zone(root, name, energy, full=1_000_000):
    folder = root / name
    folder.mkdir()
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{full}\n")


def test_joules_of_all_packages_but_not_of_their_parts(tmp_path):
    zone(tmp_path, "intel-rapl:0", 100)
    zone(tmp_path, "intel-rapl:0:0", 50)
    zone(tmp_path, "intel-rapl:1", 1000)
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("600")
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("550")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("4000")
    assert meter.joules(before, meter.read()) == (500 + 3000) / 1e6


def test_counter_that_began_again_at_zero(tmp_path):
    zone(tmp_path, "intel-rapl:0", 900_000, full=1_000_000)
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50000")
    assert meter.joules(before, meter.read()) == 0.15


def test_no_energy_where_it_cannot_be_read(tmp_path):
    assert EnergyMeter(tmp_path).read() is None
    zone(tmp_path, "intel-rapl:0", "secret")
    meter = EnergyMeter(tmp_path)
    assert meter.read() is None
    assert meter.joules(None, [3]) is None
