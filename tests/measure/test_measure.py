"""The meter: that it adds up, nests, survives failures, and neither prints, writes nor connects."""

import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mtkd.measure import meter as measure
from mtkd.measure.meter import Meter, carbon_intensity


def burn(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))


@pytest.fixture(autouse=True)
def nothing_left_open():
    assert Meter._open == []
    yield
    assert Meter._open == []


@pytest.fixture
def counter(monkeypatch):
    """A counter whose kWh are set by hand: every lap is one kWh."""

    class Fake(measure.EnergyCounter):
        def prepare(self):
            self.method, self.country, self.intensity, self.tracker = "fake", "here", 0.5, self

        def start_task(self):
            assert not self.running

        def stop_task(self):
            assert self.running
            self.energy_consumed = 1.0
            return self

    fake = Fake()
    monkeypatch.setattr(Meter, "_counter", fake)
    return fake


def test_seconds_samples_and_record():
    with Meter(energy=False) as meter:
        for _ in range(3):
            meter.count(32)
        time.sleep(0.01)
        assert meter.seconds >= 0.01
    assert meter.seconds == meter.seconds  # stopped
    assert meter.samples == 96
    assert meter.samples_per_second == pytest.approx(96 / meter.seconds)
    record = json.loads(json.dumps(meter.record()))
    assert record["energy_kwh"] is None
    assert record["co2_kg"] is None
    assert record["energy_method"] == "not measured"
    assert record["samples"] == 96


def test_peak_memory_is_that_of_the_block():
    if not measure.Path("/proc/self/clear_refs").exists():
        pytest.skip("the system cannot forget an earlier peak")
    with Meter(energy=False) as before:
        pass
    with Meter(energy=False) as outer:
        with Meter(energy=False) as big:
            held = torch.ones(64 * 2**20 // 4)  # 64 MiB
            del held
        with Meter(energy=False) as after:
            pass
    assert big.peak_memory_mib > before.peak_memory_mib + 50
    assert after.peak_memory_mib < big.peak_memory_mib - 30
    assert outer.peak_memory_mib >= big.peak_memory_mib


def test_nested_meters_share_the_energy(counter):
    with Meter() as outer, Meter() as inner:
        pass
    assert (outer.energy_kwh, inner.energy_kwh) == (3.0, 1.0)  # laps: outer alone, both, outer alone
    assert outer.co2_kg == 1.5
    assert not counter.running
    with Meter() as next_one, Meter(energy=False) as silent:
        pass
    assert next_one.energy_kwh == 3.0
    assert silent.energy_kwh is None
    assert not counter.running


def test_threads(counter):
    barrier, meters = threading.Barrier(4), []

    def work():
        with Meter() as meter:
            barrier.wait(5)
        meters.append(meter)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: work(), range(4)))
    assert len(meters) == 4
    assert sum(m.energy_kwh for m in meters) >= 4  # every one saw at least the lap in which all were open
    assert not counter.running


def test_a_meter_closes_after_a_failure_and_can_be_used_again_but_not_inside_itself(counter):
    meter = Meter()
    with pytest.raises(ZeroDivisionError), meter:  # noqa: PT012
        meter.count(5)
        with pytest.raises(RuntimeError), meter:
            pass
        1 / 0  # noqa: B018
    assert (meter.samples, meter.energy_kwh) == (5, 1.0)
    assert not counter.running
    with meter:
        pass
    assert (meter.samples, meter.energy_kwh) == (0, 1.0)


@pytest.mark.parametrize("when", ["detection", "start", "stop"])
def test_a_machine_that_cannot_be_measured_gives_none(monkeypatch, when):
    class Broken:
        def __init__(self, **settings):
            if when == "detection":
                raise OSError("no such hardware")

        def get_detected_hardware(self):
            pass

        def start_task(self):
            if when == "start":
                raise OSError("no such hardware")

        def stop_task(self):
            return None  # what codecarbon answers when it has lost its task

    import codecarbon

    monkeypatch.setattr(codecarbon, "OfflineEmissionsTracker", Broken)
    monkeypatch.setattr(Meter, "_counter", measure.EnergyCounter())
    for _ in range(2):
        with Meter() as outer, Meter() as inner:
            outer.count(1)
        assert outer.energy_kwh is None
        assert inner.co2_kg is None
        assert outer.record()["energy_method"].startswith("unavailable (")


def test_the_real_tracker_counts_offline_and_in_silence(monkeypatch, tmp_path, capfd):
    asked = []  # kept in a list too, since codecarbon swallows the error

    def refuse(*arguments, **settings):
        asked.append(arguments)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("CODECARBON_ELECTRICITYMAPS_API_TOKEN", "token")  # would make codecarbon ask a server
    monkeypatch.delenv("MTKD_COUNTRY", raising=False)
    monkeypatch.setattr(Meter, "_counter", measure.EnergyCounter())
    monkeypatch.chdir(tmp_path)
    with Meter() as whole:
        with Meter() as first:
            burn(0.1)
        burn(0.1)
    assert asked == []
    if whole.energy_kwh is None:
        pytest.skip(f"this machine cannot be measured: {whole.record()['energy_method']}")
    assert whole.energy_kwh > first.energy_kwh > 0
    assert whole.co2_kg == pytest.approx(whole.energy_kwh * 0.475)
    assert whole.record()["country"] == "world average"
    assert "codecarbon" in whole.record()["energy_method"]
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_module_does_not_import_codecarbon():
    code = "import sys, mtkd.measure.meter as m; m.Meter(energy=False).__enter__(); sys.exit('codecarbon' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_carbon_intensity_of_countries():
    assert carbon_intensity() == (0.475, "world average")
    france, code = carbon_intensity("fra")
    poland, _ = carbon_intensity("POL")
    assert code == "FRA"
    assert 0 < france < 0.15 < 0.4 < poland < 1.2  # nuclear against coal
    with pytest.warns(UserWarning, match="MTKD_COUNTRY=Atlantis"):
        assert carbon_intensity("Atlantis") == (0.475, "world average")
