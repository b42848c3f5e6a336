"""What a training run costs: seconds, samples per second, peak memory, energy and CO2.

Energy comes from codecarbon's offline tracker, which reads the hardware's own counters where it may (RAPL for the
processor, NVML for NVIDIA cards) and else estimates: thermal design power x the share of the processor that this
process used, and a constant for the memory modules. `energy_method` in the record says which of these it was. An
estimate is fit for comparing runs on one machine, not for absolute claims. The tracker counts this process and its
children ("process" mode), so that other people's work on a shared machine is not charged to the run; hardware counters
cannot tell processes apart and count everything on their chip.

CO2 is energy times the carbon intensity of the electricity. Where the kit runs cannot be known offline, and any one
country as a default would be a guess, so the default is codecarbon's world average. MTKD_COUNTRY=FRA (a three-letter
ISO code) in the environment chooses a country; the record names what was used.

Nothing here touches the network, prints, or writes files; where a machine gives no measurement the value is None.
"""

import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
import torch

MIB = 2**20


def carbon_intensity(country: str | None = None) -> tuple[float, str]:
    """Kilograms of CO2 equivalent per kWh of electricity, and the name of what it is for.

    `country` is a three-letter ISO code; without one, or with one that codecarbon has no data on (a warning says so),
    the world average is used. Data: codecarbon's own tables.
    """
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    source = DataSource()
    if country:
        code = country.strip().upper()
        known = source.get_global_energy_mix_data().get(code)
        if known is not None:
            place = GeoMetadata(country_iso_code=code, country_name=known["country_name"])
            return Emissions(source).get_country_emissions(Energy.from_energy(kWh=1.0), place), code
        warnings.warn(
            f"MTKD_COUNTRY={country} is not a three-letter country code with known electricity data; "
            "the world average is used.", stacklevel=2,
        )  # fmt: skip
    return source.get_carbon_intensity_per_source_data()["world_average"] / 1000, "world average"


class EnergyCounter:
    """One codecarbon tracker for the process, used as a stop-watch: `lap` gives the kWh since the lap before it.

    Detection takes a second or two, once; a lap takes a few milliseconds. After any failure it stays silent: laps are
    None and `method` says why.
    """

    def __init__(self) -> None:
        self.tracker, self.running = None, False
        self.method, self.country, self.intensity = "not measured", None, None

    def prepare(self) -> None:
        """Find the hardware, the first time only."""
        if self.method != "not measured":
            return
        try:
            import codecarbon

            # Before it has read its own log level, the tracker announces itself on stderr.
            logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
            self.intensity, self.country = carbon_intensity(os.environ.get("MTKD_COUNTRY"))
            # A forced intensity also keeps a user's Electricity Maps token from being used, over the network.
            self.tracker = codecarbon.OfflineEmissionsTracker(
                country_iso_code="USA", cloud_provider=None, cloud_region=None, region=None,
                force_carbon_intensity_g_co2e_kwh=1000 * self.intensity, output_methods=[], output_handlers=[],
                emissions_endpoint=None, log_level="critical", allow_multiple_runs=True, tracking_mode="process",
                gpu_ids=gpu_ids())
            self.tracker.get_detected_hardware()
            parts = ", ".join(sorted(item.description() for item in getattr(self.tracker, "_hardware", [])))
            self.method = f"codecarbon {codecarbon.__version__} offline, process mode: {parts or 'hardware unknown'}"
        except Exception as error:  # an unknown machine must not stop a training run
            self.give_up(error)

    def lap(self, go_on: bool) -> float | None:
        """kWh since the lap before, None where nothing was counted; goes on counting if told so."""
        used = None
        try:
            if self.tracker is not None and self.running:
                used = self.tracker.stop_task().energy_consumed
            self.running = False
            if self.tracker is not None and go_on:
                self.tracker.start_task()
                self.running = True
        except Exception as error:
            self.give_up(error)
        return used

    def give_up(self, error: Exception) -> None:
        self.tracker, self.running = None, False
        self.method = f"unavailable ({type(error).__name__}: {error})"[:200]


def gpu_ids() -> list[int] | None:
    # Without this, codecarbon charges every card of the machine; NVML and CUDA may also number them differently.
    with contextlib.suppress(Exception):
        return [torch.cuda._get_nvml_device_index(None)] if torch.cuda.is_available() else None


def peak_memory(device: torch.device) -> float | None:
    """Largest memory in bytes since the last `reset_peak`: allocated on the card, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):  # only Linux has it
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows, which has no module `resource`
        return info.peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the high-water mark of the resident size


class Meter:
    """Measures one piece of work.

    >>> with Meter() as meter:
    ...     for batch in range(3):
    ...         meter.count(32)
    >>> meter.samples
    96

    After the block: `seconds` (CUDA synchronised at both ends; the meter's own few milliseconds are left out),
    `samples`, `samples_per_second`, `peak_memory_mib`, `energy_kwh`, `co2_kg`, and `record()` with all of them.

    Peak memory is what torch held on a CUDA device, or the resident size of this whole process, interpreter and
    libraries included, on the CPU; where the system cannot forget an earlier peak (anything but Linux) it is the peak
    since the process began.

    Meters may be nested (the outer one has the inner one's cost too) and used in threads (each has the cost of the
    whole process while it was open, since energy and memory cannot be split by thread).

    Args:
        device: where the work happens, "cpu" if not given.
        energy: False leaves energy and CO2 out, and with them codecarbon's one or two seconds of detection.
    """

    _lock = threading.RLock()
    _open: "list[Meter]" = []  # noqa: RUF012  (shared by all meters on purpose)
    _counter = EnergyCounter()

    def __init__(self, device: str | torch.device | None = None, *, energy: bool = True):
        self.device, self.energy = torch.device(device or "cpu"), energy
        self._clear()

    def _clear(self) -> None:
        self.samples = 0
        self.energy_kwh: float | None = 0.0 if self.energy else None
        self._peak = self._started = self._seconds = None

    def __enter__(self) -> "Meter":
        if self in Meter._open:
            raise RuntimeError("this meter is already running")
        self._clear()
        with Meter._lock:
            if self.energy:
                Meter._counter.prepare()
            self._settle(go_on=self.energy or Meter._counter.running)
            reset_peak(self.device)
            Meter._open.append(self)
        self._synchronise()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *exception) -> None:
        try:
            self._synchronise()
        finally:  # a card that failed must not leave the meter open
            self._seconds = time.perf_counter() - self._started
            with Meter._lock:
                self._settle(go_on=any(meter.energy for meter in Meter._open if meter is not self))
                Meter._open.remove(self)

    @staticmethod
    def _settle(go_on: bool) -> None:
        """Give every open meter its share of what happened since a meter was last opened or closed."""
        used = Meter._counter.lap(go_on)
        for meter in Meter._open:
            if meter.energy:
                meter.energy_kwh = None if used is None or meter.energy_kwh is None else meter.energy_kwh + used
        for device in {meter.device for meter in Meter._open}:
            peak = peak_memory(device)
            for meter in Meter._open:
                if meter.device == device:
                    meter._peak = max(meter._peak or 0, peak)
            reset_peak(device)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def count(self, samples: int) -> None:
        """Add to the number of samples worked on."""
        self.samples += samples

    @property
    def seconds(self) -> float:
        """Wall-clock seconds: of the block, or so far while it runs."""
        if self._started is None:
            return 0.0
        return self._seconds if self._seconds is not None else time.perf_counter() - self._started

    @property
    def samples_per_second(self) -> float | None:
        return self.samples / self.seconds if self.samples and self.seconds else None

    @property
    def peak_memory_mib(self) -> float | None:
        return self._peak / MIB if self._peak is not None else None

    @property
    def co2_kg(self) -> float | None:
        known = self.energy_kwh is not None and Meter._counter.intensity is not None
        return self.energy_kwh * Meter._counter.intensity if known else None

    def record(self) -> dict[str, Any]:
        """All measurements as JSON values, and how the energy and the CO2 were found."""
        names = ("seconds", "samples", "samples_per_second", "peak_memory_mib", "energy_kwh", "co2_kg")
        return {name: getattr(self, name) for name in names} | {
            "energy_method": Meter._counter.method if self.energy else "not measured",
            "country": Meter._counter.country if self.energy else None}
