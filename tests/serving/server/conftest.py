import pytest
from bundles import SPEC, bundle, trained
from servers import serving

pytest.importorskip("uvicorn", reason='pip install "llm4sbr[serve]"')


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A bundle of a wrapped SR-GNN with known views of three sessions."""
    return bundle(tmp_path_factory.mktemp("shop") / "bundle", trained(), spec=SPEC)


@pytest.fixture(scope="session")
def running(shop, tmp_path_factory):
    """A server with small limits, for tests that leave it as it is."""
    limits = (
        "--body_bytes",
        "4000",
        "--sessions",
        "3",
        "--clicks",
        "20",
        "--limits.k",
        "50",
        "--listed",
        "9",
    )
    with serving(shop, tmp_path_factory.mktemp("running"), *limits, "--limits.timeout_s", "1") as server:
        yield server
