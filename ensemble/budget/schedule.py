"""The schedule of jobs on the target's devices, and its makespan.

A job is one process: a checkpoint loaded once, and the work of its members' rows. A narrow job takes one device, or all of
them as replicas that share out its rows (each loads, the work divides). A wide job, one model over several devices, takes
them all while it runs. Narrow jobs come first, so that a valid submission is there early, then wide ones, then phase by phase
what gates let through.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.plan import Job

# Starting, reading and checking battles, joining tables, blending, writing. `ensemble predict --scores` on two cores of a
# 2.8 GHz Xeon, 2026-11-22: 250 short battles 2.1 s (1.1 s of processor time, load 3), 25,000 of real length (77 MB) 12.1 s
# (5.7 s, load 4).
START_SECONDS = 4.0
SECONDS_PER_ROW = 4e-4
_ENUMERATED = 10_000  # assignments; beyond it the greedy ones are tried
_REPLICAS = -1  # in an assignment: on all devices


@dataclass(frozen=True)
class Load:
    """What a job asks for.

    `load_seconds` on each device it touches, and `work_seconds` on one copy of the model. `wide`: one copy occupies all
    devices.
    """

    members: tuple[str, ...]
    load_seconds: float
    work_seconds: float
    wide: bool = False
    phase: int = 0


def overhead_seconds(rows: int) -> float:
    """What a prediction takes beside its members: process start, reading, blending and writing."""
    return START_SECONDS + SECONDS_PER_ROW * rows


def fixed_seconds(jobs: Sequence[Job], load_seconds: Mapping[str, float], overhead: float, rows: int) -> float:
    """Seconds of a schedule that a file of more or fewer rows would take as well.

    Starting, and the loading of the jobs on the device that each phase ends on. `load_seconds` by member; `overhead`: that of
    `rows` rows (`overhead_seconds`).
    """
    fixed = max(0.0, overhead - SECONDS_PER_ROW * rows)
    for phase in {job.phase for job in jobs}:
        own = [job for job in jobs if job.phase == phase]
        device = max(own, key=lambda job: job.end_seconds).devices[0]
        fixed += sum(max(load_seconds[name] for name in job.members) for job in own if device in job.devices)
    return fixed


def lower_bound(loads: Sequence[Load], devices: int) -> float:
    """No schedule of these loads ends earlier.

    Total work over all devices, each job's own least, phase after phase.
    """
    total = 0.0
    for phase in {load.phase for load in loads}:
        wide = sum(x.load_seconds + x.work_seconds for x in loads if x.phase == phase and x.wide)
        narrow = [x for x in loads if x.phase == phase and not x.wide]
        area = sum(x.load_seconds + x.work_seconds for x in narrow) / devices
        longest = max((x.load_seconds + x.work_seconds / devices for x in narrow), default=0.0)
        total += wide + max(area, longest)
    return total


def makespan(loads: Sequence[Load], devices: int) -> float:
    """Seconds from the first job's start to the last one's end."""
    return sum(_phase(list(group), devices)[0] for group in _phases(loads))


def fits(loads: Sequence[Load], devices: int, seconds: float) -> bool:
    """Whether a schedule within `seconds` is found.

    The two bounds decide most cases without a search.
    """
    if lower_bound(loads, devices) > seconds:
        return False
    replicated = sum(x.load_seconds + x.work_seconds / (1 if x.wide else devices) for x in loads)
    return replicated <= seconds or makespan(loads, devices) <= seconds


def place(loads: Sequence[Load], devices: int, *, start_seconds: float = 0.0) -> tuple[Job, ...]:
    """The jobs of the best schedule found, in the order they start.

    Exact for up to eight narrow jobs a phase on two devices, four on eight.
    """
    jobs: list[Job] = []
    clock = start_seconds
    for group in _phases(loads):
        length, assignment = _phase(group, devices)
        narrow = [load for load in group if not load.wide]
        jobs += _narrow_jobs(narrow, assignment, devices, clock)
        ready = max((job.end_seconds for job in jobs), default=clock)
        for load in sorted((x for x in group if x.wide), key=lambda x: x.work_seconds):
            end = ready + load.load_seconds + load.work_seconds
            everywhere = tuple(range(devices))
            jobs.append(Job(members=load.members, devices=everywhere, phase=load.phase, start_seconds=ready, end_seconds=end))
            ready = end
        clock += length
    return tuple(sorted(jobs, key=lambda job: (job.phase, job.start_seconds, job.devices)))


def _phases(loads: Sequence[Load]) -> list[list[Load]]:
    return [[x for x in loads if x.phase == phase] for phase in sorted({load.phase for load in loads})]


def _phase(loads: list[Load], devices: int) -> tuple[float, tuple[int, ...]]:
    """(seconds, assignment of the narrow jobs: a device, or _REPLICAS) of one phase."""
    wide = sum(x.load_seconds + x.work_seconds for x in loads if x.wide)
    narrow = [x for x in loads if not x.wide]
    if not narrow:
        return wide, ()
    if devices == 1:
        return wide + sum(x.load_seconds + x.work_seconds for x in narrow), (0,) * len(narrow)
    few = (devices + 1) ** len(narrow) <= _ENUMERATED
    candidates = _all_assignments(len(narrow), devices) if few else _greedy_assignments(narrow, devices)
    seconds = _assignment_seconds(narrow, candidates, devices)
    best = int(np.argmin(seconds))
    return wide + float(seconds[best]), tuple(int(d) for d in candidates[best])


@functools.cache
def _all_assignments(jobs: int, devices: int) -> np.ndarray:
    """Every choice of a device or of replicas for each job.

    The first job on a single device takes device 0, since devices are alike.
    """
    choices = np.array(list(itertools.product((_REPLICAS, *range(devices)), repeat=jobs)), dtype=np.int64)
    single = choices != _REPLICAS
    first = choices[np.arange(len(choices)), single.argmax(axis=1)]
    kept: np.ndarray = choices[~single.any(axis=1) | (first == 0)]
    return kept


def _greedy_assignments(narrow: list[Load], devices: int) -> np.ndarray:
    """Longest first on the device that is free first, with no, one, two or all jobs as replicas."""
    order = sorted(range(len(narrow)), key=lambda i: -(narrow[i].load_seconds + narrow[i].work_seconds))
    replicated: list[tuple[int, ...]] = [(), tuple(order), *((i,) for i in order), *itertools.combinations(order[:6], 2)]
    candidates = np.zeros((len(replicated), len(narrow)), dtype=np.int64)
    for row, chosen in enumerate(replicated):
        busy = [0.0] * devices
        for i in order:
            if i in chosen:
                candidates[row, i] = _REPLICAS
                continue
            device = busy.index(min(busy))
            busy[device] += narrow[i].load_seconds + narrow[i].work_seconds
            candidates[row, i] = device
    return candidates


def _assignment_seconds(narrow: list[Load], assignments: np.ndarray, devices: int) -> np.ndarray:
    """Makespan of each assignment, a row of `assignments` each.

    Replicas' work flows to where there is room.
    """
    load = np.array([x.load_seconds for x in narrow])
    work = np.array([x.work_seconds for x in narrow])
    replicas = assignments == _REPLICAS
    everywhere = (replicas * load).sum(axis=1)
    flowing = (replicas * work).sum(axis=1)
    fixed = np.stack([((assignments == d) * (load + work)).sum(axis=1) for d in range(devices)], axis=1) + everywhere[:, None]
    seconds: np.ndarray = np.maximum(fixed.max(axis=1), (fixed.sum(axis=1) + flowing) / devices)
    return seconds


def _narrow_jobs(narrow: list[Load], assignment: tuple[int, ...], devices: int, clock: float) -> list[Job]:
    """Jobs of one phase's narrow loads, shortest first.

    On each device the replicas' shares fill what the whole jobs leave.
    """
    queues: list[list[tuple[float, Load, int, float]]] = [[] for _ in range(devices)]
    busy = np.zeros(devices)
    for load, device in zip(narrow, assignment, strict=True):
        if device != _REPLICAS:
            queues[device].append((load.load_seconds + load.work_seconds, load, 0, 1.0))
            busy[device] += load.load_seconds + load.work_seconds
        else:
            busy += load.load_seconds
    split = [load for load, device in zip(narrow, assignment, strict=True) if device == _REPLICAS]
    for load, shares in zip(split, _shares(split, busy), strict=True):
        for device in range(devices):
            queues[device].append((load.load_seconds + load.work_seconds * shares[device], load, device, float(shares[device])))
    jobs = []
    for device, queue in enumerate(queues):
        now = clock
        for seconds, load, replica, share in sorted(
            queue, key=lambda item: (item[1].load_seconds + item[1].work_seconds, item[1].members)
        ):
            whole = all(load is not other for other in split)
            jobs.append(
                Job(
                    members=load.members,
                    devices=(device,),
                    phase=load.phase,
                    replica=replica,
                    replicas=1 if whole else devices,
                    row_share=share,
                    start_seconds=now,
                    end_seconds=now + seconds,
                )
            )
            now += seconds
    return jobs


def _shares(split: list[Load], busy: np.ndarray) -> list[np.ndarray]:
    """Share of each replicated job's rows on each device.

    All devices end together where that is possible.
    """
    flowing = sum(load.work_seconds for load in split)
    room = _fill(busy, flowing)
    share = room / room.sum() if room.sum() > 0 else np.full(len(busy), 1 / len(busy))
    return [share for _ in split]


def _fill(busy: np.ndarray, amount: float) -> np.ndarray:
    """How much of `amount` each device gets so that the least busy ones end level."""
    level = np.sort(busy)
    for count in range(len(busy), 0, -1):
        top = (amount + level[:count].sum()) / count
        if top >= level[count - 1]:
            break
    poured: np.ndarray = np.maximum(top - busy, 0.0)
    return poured
