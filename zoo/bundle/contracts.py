"""What a bundle holds, as `job/bundle.json` says it.

A bundle is a folder of `wheels/`, `job/`, `model-1/`, `model-2/`, ... and `notebook/`. All but the last become data sets, which
are mounted at places that nobody knows beforehand: the notebook finds the job by `bundle.json`, and the other parts by the
digest in their marker file `part.json`. The script in the notebook reads both as plain JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from zoo.contracts import SCHEMA_VERSION, Contract, Positive, Seconds

BUNDLE = "bundle.json"  # in job/: what the notebook looks for
MARKER = "part.json"  # in every other part
METADATA = "dataset-metadata.json"  # in each folder that becomes a data set: for the host's command line
UNCOUNTED = (BUNDLE, MARKER, METADATA)  # no part of what a part's digest says

Kind = Literal["wheels", "model"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9](-?[a-z0-9])*$", min_length=6, max_length=50)]


def _below(path: str) -> str:
    """A relative path that stays where it is put, of names that every system takes."""
    if any(part in ("", ".", "..") for part in path.split("/")) or set(path) & set("\\\0"):
        raise ValueError(f"{path!r} is no plain path below a folder")
    return path


PlainPath = Annotated[str, AfterValidator(_below)]


class BundledFile(Contract):
    """A file of a part: what it must be, where it comes from, and on which terms it may be used."""

    path: PlainPath = Field(description="below the part's folder")
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    origin: str = Field(description="a package with its version, an artifact of the store, or `made here`; never a host's name")
    licence: str = Field(description="as its maker states it; `unknown` where it says nothing")


class Marker(Contract):
    """`part.json`: by this the notebook knows a part wherever it is mounted."""

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    digest: Sha256


class Part(Contract):
    """A folder of the bundle that becomes a data set of its own."""

    name: Annotated[str, Field(pattern=r"^(wheels|model-[1-9][0-9]*)$")]
    kind: Kind
    slug: Slug
    digest: Sha256
    artifact: str | None = Field(None, description="a model's folder in the store, `<stage>-<fingerprint>`; None: wheels")
    members: tuple[str, ...] = Field((), description="the plan's members that it serves; of wheels none by name")
    files: tuple[BundledFile, ...]

    @model_validator(mode="after")
    def _check(self) -> Part:
        if (self.kind == "model") != (self.artifact is not None):
            raise ValueError(f"{self.name}: a model names its artifact, wheels have none")
        if self.digest != digest_of(self.files):
            raise ValueError(f"{self.name}: its digest is not that of its files")
        return self


class BundleTarget(Contract):
    """The machine that the bundle is for, with the engine that it brings."""

    name: str
    gpus: Annotated[int, Field(ge=0)]
    gpu: str = Field(description="a part of the name that the driver gives the GPU")
    compute_capability: tuple[int, int] | None
    usable_bytes: Positive | None = Field(description="what the driver leaves to a process, a GPU")
    engine: str = Field(description="version of vLLM that serves its language models")


class Image(Contract):
    """The notebook's image that the wheels are for."""

    python: str = "3.12"
    glibc: str = "2.35"
    driver: int | None = Field(None, description="the oldest major version of NVIDIA's driver that runs the wheels")
    docker_image: str | None = Field(None, description="the image by digest, where it is known")


class Bundle(Contract):
    """`job/bundle.json`, written last: a folder without it is no bundle."""

    schema_version: int = SCHEMA_VERSION
    task: Literal["predict", "train"]
    created_at: datetime
    name: Annotated[str, Field(pattern=r"^[0-9a-f]{8,16}$")] = Field(description="the beginning of `plan_sha256`")
    owner: str
    competition: str = Field(description="whose files are read: its address, or to train on also a data set, OWNER/SLUG")
    target: BundleTarget
    image: Image
    budget_seconds: Seconds = Field(description="counted from the notebook's start, installing included")
    prior: tuple[float, float, float] | None = Field(
        None, description="label shares A, B, tie: what a row gets that nothing has scored; None: nothing is predicted"
    )
    plan: PlainPath = Field(description="in job/: the plan, or what is to be trained")
    plan_sha256: Sha256
    lock: PlainPath = Field(description="in wheels/: names, versions and hashes, for --require-hashes")
    light: tuple[str, ...] = Field(description="file names of the wheels that a plan needs whose members need no engine")
    parts: tuple[Part, ...]
    files: tuple[BundledFile, ...] = Field(description="of job/ itself, without bundle.json and dataset-metadata.json")

    @model_validator(mode="after")
    def _check(self) -> Bundle:
        for what, values in (("names", [p.name for p in self.parts]), ("slugs", [p.slug for p in self.parts])):
            if len(set(values)) != len(values):
                raise ValueError(f"parts share {what}: {', '.join(values)}")
        if [part.kind for part in self.parts].count("wheels") > 1:
            raise ValueError("one part of wheels at most")
        if missing := {self.plan} - {file.path for file in self.files}:
            raise ValueError(f"job has no {', '.join(missing)}")
        if (self.task == "predict") != (self.prior is not None):
            raise ValueError("a prior is what a task to predict has, and no other")
        return self

    def part(self, name: str) -> Part:
        """The part called `name`; KeyError where there is none."""
        return {part.name: part for part in self.parts}[name]


def digest_of(files: Iterable[BundledFile]) -> str:
    """SHA-256 of the canonical JSON list of [path, bytes, sha256], sorted by path."""
    records = sorted([file.path, file.bytes, file.sha256] for file in files)
    return hashlib.sha256(json.dumps(records, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()
