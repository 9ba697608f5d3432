"""What Prometheus learns of an app: of its requests, its keys and its group."""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.metrics import MetricWrapperBase

from server_keys import KeyRing, inject_key_lifespan, metrics, periodic_refresh, protect
from server_keys._keys.buffer_status import BufferStatus
from tests.helpers import asgi
from tests.helpers.arriving_upload import ArrivingUpload
from tests.helpers.held_time import HeldTime
from tests.helpers.key_source import Source
from tests.helpers.lost_folders import put_file, take_place
from tests.helpers.scrape import scraped
from tests.helpers.scripts import run_script
from tests.helpers.sealed_requests import Client
from tests.helpers.served_app import echo_app, sealed, served


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def instrumented(registry: CollectorRegistry, **arguments: object) -> FastAPI:
    app = protect(echo_app(), **arguments)  # type: ignore[arg-type]
    metrics.instrument(app, registry=registry)
    return app


def requests(registry: CollectorRegistry) -> dict[str, float]:
    """Return the counts of requests that are not 0, by outcome."""
    return counts(registry, "server_keys_requests_total{outcome=")


def refusals(registry: CollectorRegistry) -> dict[str, float]:
    return counts(registry, "server_keys_refusals_total{reason=")


def counts(registry: CollectorRegistry, beginning: str) -> dict[str, float]:
    found = {name: value for name, value in scraped(registry).items() if name.startswith(beginning)}
    assert found, "the series is there from the start"
    return {name.split('"')[1]: value for name, value in found.items() if value}


def test_requests_are_counted_by_their_end(registry: CollectorRegistry) -> None:
    app = instrumented(registry)
    assert requests(registry) == {}

    async def main() -> None:
        async with served(app):
            await sealed(app)
            await sealed(app, path="/nowhere")  # the app's own 404 is sealed, too
            await asgi.call(app, "POST", "/echo", headers=[("Content-Length", "5")], pieces=[b"plain"])
            await asgi.call(app, "POST", "/echo", headers=[("Transfer-Encoding", "chunked")], pieces=[b"plain"])
            await asgi.call(app, "POST", "/echo", http_version="2", pieces=[b"plain"])
            await asgi.call(app, "POST", "/echo", headers=[("Content-Length", "0")])
            await asgi.call(app, "GET", "/docs")
            await asgi.call(app, "GET", "/.well-known/hpke-keys")
            client = Client(app.state.ephemeral_keys.current)
            await asgi.call(app, "POST", "/echo", headers=client.headers, ends=False)
            await asgi.call(app, "POST", "/echo", headers=client.headers)

    asyncio.run(main())
    assert requests(registry) == {"sealed": 2, "plaintext": 3, "without_body": 3, "key": 1, "disconnected": 1}
    assert refusals(registry) == {}


def test_refusals_are_counted_by_reason(registry: CollectorRegistry) -> None:
    app = instrumented(registry, required=True)

    async def main() -> None:
        async with served(app):
            ring = app.state.ephemeral_keys
            strangers = Client(KeyRing(300).current)
            broken = [("Ehbp-Encapsulated-Key", "00")]
            first = Client(ring.current)
            await asgi.call(app, "POST", "/echo", headers=strangers.headers, pieces=strangers.seal(b"x"))
            await asgi.call(app, "POST", "/echo", headers=broken, pieces=[b"x"])
            await asgi.call(app, "POST", "/echo", headers=first.headers, pieces=[b"\xff\xff\xff\xff"])
            await asgi.call(app, "POST", "/echo", pieces=[b"plain"])
            await asgi.call(app, "DELETE", "/.well-known/hpke-keys")
            await asgi.call(app, "GET", "/docs")
            # Opened, and then wrong: refused after all, because the app has not answered.
            later = Client(ring.current)
            await asgi.call(app, "POST", "/echo", headers=later.headers, pieces=[*later.seal(b"x"), b"\0\0\0\x11" * 9])
        await asgi.call(app, "GET", "/.well-known/hpke-keys")

    asyncio.run(main())
    expected = {
        "key_mismatch": 1,
        "malformed": 2,
        "frame_too_large": 1,
        "plaintext": 1,
        "key_path_method": 1,
        "keys_unavailable": 1,
    }
    assert refusals(registry) == expected
    assert requests(registry) == {"refused": 7, "without_body": 1}


def test_an_app_that_fails_counts_as_one_that_was_given_the_request(registry: CollectorRegistry) -> None:
    app = instrumented(registry)

    @app.post("/fails")
    async def fails() -> None:
        raise LookupError("a fault of the app")

    async def main() -> None:
        async with served(app):
            client = Client(app.state.ephemeral_keys.current)
            answer = await asgi.call(app, "POST", "/fails", headers=client.headers, pieces=client.seal(b"x"))
            assert isinstance(answer.error, LookupError)

    asyncio.run(main())
    assert requests(registry) == {"sealed": 1}


def test_frames_bytes_and_the_time_of_opening_are_counted(registry: CollectorRegistry) -> None:
    app = instrumented(registry)
    parts = [b"a" * 1000, b"", b"b" * 3000]

    async def main() -> int:
        async with served(app):
            client = Client(app.state.ephemeral_keys.current)
            pieces = client.seal(*parts)
            answer = await asgi.call(app, "POST", "/echo", headers=client.headers, pieces=pieces)
            assert client.open(answer)[0] == b'"' + b"".join(parts) + b'"'
            return len(answer.body)

    sent = asyncio.run(main())
    found = scraped(registry)
    # A seal of nothing is no frame.
    assert found['server_keys_frames_total{direction="received"}'] == 2
    assert found['server_keys_sealed_bytes_total{direction="received"}'] == 4000 + 2 * 20
    assert found['server_keys_frames_total{direction="sent"}'] == 1
    assert found['server_keys_sealed_bytes_total{direction="sent"}'] == sent == 4002 + 20
    assert found["server_keys_opening_seconds_count"] == 1
    assert 0 < found["server_keys_opening_seconds_sum"] < 0.1
    assert found['server_keys_opening_seconds_bucket{le="+Inf"}'] == 1


def test_long_messages_are_counted_as_the_frames_that_they_become(registry: CollectorRegistry) -> None:
    app = instrumented(registry)
    longest = 64 * 1024

    @app.post("/long")
    async def long(length: int) -> object:
        from fastapi import Response

        return Response(b"x" * length)

    async def main(length: int) -> None:
        async with served(app):
            client = Client(app.state.ephemeral_keys.current)
            query = f"length={length}".encode()
            body = client.seal(b"x")
            await asgi.call(app, "POST", "/long", headers=client.headers, pieces=body, query_string=query)

    frames = []
    for length in (0, longest, longest + 1):
        before = scraped(registry)['server_keys_frames_total{direction="sent"}']
        asyncio.run(main(length))
        frames.append(scraped(registry)['server_keys_frames_total{direction="sent"}'] - before)
    assert frames == [0, 1, 2]


def test_the_age_of_the_key_is_told_as_the_time_when_it_was_made(registry: CollectorRegistry) -> None:
    before = time.time()
    app = instrumented(registry, refresh_time=100, overlap=40)
    found = scraped(registry)
    assert found["server_keys_available_rings"] == 0
    assert found["server_keys_key_created_timestamp_seconds"] == float("inf")
    with TestClient(app):
        found = scraped(registry)
        created = found["server_keys_key_created_timestamp_seconds"]
        assert before - 0.01 <= created <= time.time() + 0.01
        assert found["server_keys_next_refresh_timestamp_seconds"] == pytest.approx(created + 100, abs=0.01)
        assert found["server_keys_refresh_period_seconds"] == 100
        assert found["server_keys_overlap_seconds"] == 40
        assert found["server_keys_available_rings"] == 1
        assert found["server_keys_shared_rings"] == found["server_keys_group_members"] == 0
        app.state.ephemeral_keys.refresh()
        again = scraped(registry)
        assert again["server_keys_key_created_timestamp_seconds"] > created
        assert again["server_keys_refreshes_total"] == 1
    after = scraped(registry)
    assert after["server_keys_available_rings"] == 0
    assert after["server_keys_key_created_timestamp_seconds"] == float("inf")
    assert after["server_keys_refreshes_total"] == 1


def test_counters_go_on_when_the_app_starts_again(registry: CollectorRegistry) -> None:
    app = instrumented(registry)
    for refreshes in (1, 2):
        with TestClient(app):
            app.state.ephemeral_keys.refresh()
        assert scraped(registry)["server_keys_refreshes_total"] == refreshes


def test_keys_that_nobody_asks_for_are_told_of_all_the_same(registry: CollectorRegistry) -> None:
    app = instrumented(registry, refresh_time=0.05)
    with TestClient(app):
        until = time.monotonic() + 20
        while scraped(registry)["server_keys_refreshes_total"] < 3:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_refreshes_that_fail_are_counted_and_the_key_looks_as_old_as_it_is(registry: CollectorRegistry) -> None:
    held, source, app = HeldTime(), Source(), echo_app()
    with KeyRing(10, overlap_s=4, generate=source, clock=held.boot) as ring:
        app.state.ephemeral_keys = ring
        metrics.instrument(app, registry=registry)
        source.error = MemoryError()
        held.pass_s(12)
        ring.refresh_if_due()
        found = scraped(registry)
        assert found["server_keys_refresh_failures_total"] == 1
        assert time.time() - found["server_keys_key_created_timestamp_seconds"] == pytest.approx(12, abs=1)
        assert found["server_keys_available_rings"] == 1
        held.pass_s(5)
        ring.refresh_if_due()
        found = scraped(registry)
        assert found["server_keys_available_rings"] == 0
        assert found["server_keys_refresh_failures_total"] == 2


def test_a_ring_of_ones_own_is_told_of_while_a_task_refreshes_it(registry: CollectorRegistry) -> None:
    app = echo_app()
    metrics.instrument(app, registry=registry)

    async def main() -> None:
        with KeyRing(0.02) as ring:
            app.state.ephemeral_keys = ring
            task = asyncio.create_task(periodic_refresh(app, 0.02))
            while scraped(registry)["server_keys_refreshes_total"] < 2:  # noqa: ASYNC110 - another task turns it, and tells nobody
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(asyncio.wait_for(main(), 20))


MIB = 1024 * 1024


async def half_sent(app: FastAPI) -> ArrivingUpload:
    """Return a request of which half of a frame of 1 MiB has arrived."""
    upload = ArrivingUpload(Client(app.state.ephemeral_keys.current))
    (frame,) = upload.client.seal(bytes(MIB - 16))
    upload.start(app)
    await upload.arrives(frame[: MIB // 2])
    return upload


def test_the_memory_that_unfinished_requests_hold_is_told(registry: CollectorRegistry) -> None:
    app = instrumented(registry, max_frame_bytes=MIB, max_buffered_bytes=4 * MIB)

    def told() -> tuple[float, float]:
        app.state.ephemeral_keys.refresh_if_due()  # a running app does so once a second at least
        found = scraped(registry)
        return found["server_keys_buffered_bytes"], found["server_keys_max_buffered_bytes"]

    async def main() -> None:
        async with served(app):
            assert told() == (0, 4 * MIB)
            # Its pages, and what the server may read of its client in the meantime.
            one = (640 + 256) * 1024
            first = await half_sent(app)
            assert told() == (one, 4 * MIB)
            others = [await half_sent(app) for _ in range(3)]
            assert told() == (4 * one, 4 * MIB)
            too_much = await half_sent(app)
            assert told() == (4 * one, 4 * MIB)
            await too_much.arrives(b"", more_body=False)
            await first.disconnects()
            assert told() == (3 * one, 4 * MIB)
            for upload in others:
                await upload.disconnects()
            assert told() == (0, 4 * MIB)
            assert app.state.ephemeral_keys.status.buffers == BufferStatus(held_bytes=0, most_bytes=4 * MIB)

    asyncio.run(main())
    assert refusals(registry) == {"buffers_full": 1}
    assert requests(registry) == {"disconnected": 4, "refused": 1}


def test_an_app_tells_of_its_bound_before_anything_arrives(registry: CollectorRegistry) -> None:
    app = instrumented(registry)
    assert scraped(registry)["server_keys_max_buffered_bytes"] == 0
    with TestClient(app):
        app.state.ephemeral_keys.refresh_if_due()
        assert scraped(registry)["server_keys_max_buffered_bytes"] == 256 * MIB


def test_who_is_given_up_is_counted_and_told_in_the_log(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = HeldTime()
    monkeypatch.setattr("time.clock_gettime", held.clock_gettime)
    app = instrumented(registry, max_frame_bytes=MIB, max_buffered_bytes=4 * MIB)

    async def main() -> None:
        async with served(app):
            uploads = []
            for _ in range(6):
                uploads.append(await half_sent(app))
                held.pass_s(1)
            assert [upload.status for upload in uploads] == [408, 408, None, None, None, None]
            for upload in uploads:
                await upload.disconnects()

    asyncio.run(main())
    assert refusals(registry) == {"given_up": 2}
    (said,) = (record.message for record in caplog.records if "given_up" in record.message)
    assert said.startswith("refused a request (given_up, status 408): its client had sent nothing for a second")


@pytest.mark.parametrize("instrumented_first", [True, False])
def test_the_order_does_not_matter_and_a_second_time_changes_nothing(
    registry: CollectorRegistry, instrumented_first: bool
) -> None:
    app = echo_app()
    steps: list[Callable[[], object]] = [lambda: metrics.instrument(app, registry=registry), lambda: protect(app)]
    for step in steps if instrumented_first else reversed(steps):
        step()
        step()

    async def main() -> None:
        async with served(app):
            metrics.instrument(app, registry=registry)  # also while it runs
            await sealed(app)

    asyncio.run(main())
    assert requests(registry) == {"sealed": 1}


def test_keys_alone_are_told_of_without_sealing(registry: CollectorRegistry) -> None:
    app = inject_key_lifespan(FastAPI, 300)()
    metrics.instrument(app, registry=registry)
    with TestClient(app):
        assert scraped(registry)["server_keys_available_rings"] == 1


def test_two_apps_in_one_registry_add_up_and_show_the_older_key(registry: CollectorRegistry) -> None:
    first, second = instrumented(registry, refresh_time=100), instrumented(registry, refresh_time=200)

    async def main() -> None:
        async with served(first), served(second):
            created = scraped(registry)["server_keys_key_created_timestamp_seconds"]
            second.state.ephemeral_keys.refresh()
            await sealed(first)
            await sealed(second)
            found = scraped(registry)
            assert found["server_keys_key_created_timestamp_seconds"] == pytest.approx(created, abs=0.002)
            assert found["server_keys_available_rings"] == 2
            assert found["server_keys_refresh_period_seconds"] == 200
        assert scraped(registry)["server_keys_available_rings"] == 0

    asyncio.run(main())
    assert requests(registry) == {"sealed": 2}
    assert scraped(registry)["server_keys_refreshes_total"] == 1


def test_two_apps_with_a_registry_each_are_told_apart() -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    first, second = (instrumented(registry) for registry in registries)

    async def main() -> None:
        async with served(first), served(second):
            await sealed(first)
            await sealed(first)
            await sealed(second)

    asyncio.run(main())
    assert [requests(registry) for registry in registries] == [{"sealed": 2}, {"sealed": 1}]
    with pytest.raises(RuntimeError, match="instrumented already, with another registry"):
        metrics.instrument(first, registry=registries[1])


@pytest.mark.parametrize(
    "theirs",
    [
        lambda registry: Counter("server_keys_requests_total", "Somebody else's.", registry=registry),
        lambda registry: Gauge("server_keys_available_rings", "Somebody else's.", registry=registry),
        lambda registry: Gauge("server_keys_opening_seconds_bucket", "Somebody else's.", registry=registry),
    ],
)
def test_a_registry_that_has_such_names_already_is_refused_and_left_as_it_was(theirs: object) -> None:
    registry = CollectorRegistry()
    metric: MetricWrapperBase = theirs(registry)  # type: ignore[operator]
    before = scraped(registry)
    app = protect(echo_app())
    with pytest.raises(ValueError, match=r"names of server-keys \(Duplicated .*server_keys_.*registry=CollectorReg"):
        metrics.instrument(app, registry=registry)
    assert scraped(registry) == before
    registry.unregister(metric)
    metrics.instrument(app, registry=registry)
    assert "server_keys_available_rings" in scraped(registry)


@pytest.mark.parametrize(
    ("app", "registry", "named"),
    [("app", None, "app must be a FastAPI app, not 'app'"), (FastAPI(), "mine", "registry must be .*, not 'mine'")],
)
def test_wrong_arguments_are_named(app: object, registry: object, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        metrics.instrument(app, registry=registry)  # type: ignore[arg-type]


def test_scrapes_while_keys_rotate_never_miss_the_key_and_never_count_back(registry: CollectorRegistry) -> None:
    app = instrumented(registry)
    rotated = threading.Event()

    def scrape() -> list[dict[str, float]]:
        found = []
        while not rotated.is_set():
            found.append(scraped(registry))
        return found

    with TestClient(app), ThreadPoolExecutor(3) as threads:
        scrapes = [threads.submit(scrape) for _ in range(3)]
        until = time.monotonic() + 1
        while time.monotonic() < until:
            app.state.ephemeral_keys.refresh()
        rotated.set()
    for found in (future.result() for future in scrapes):
        assert {sample["server_keys_available_rings"] for sample in found} == {1}
        assert all(abs(time.time() - sample["server_keys_key_created_timestamp_seconds"]) < 10 for sample in found)
        counted = [sample["server_keys_refreshes_total"] for sample in found]
        assert counted == sorted(counted)
        assert counted[-1] > counted[0]


@pytest.fixture
def shared_folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "group"
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_group_is_told_of_and_so_is_a_store_that_stops(
    registry: CollectorRegistry, shared_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    share = f"file://{shared_folder}"
    apps = [instrumented(registry, refresh_time=1, overlap=1, share=share) for _ in range(2)]

    def wait_for(**expected: float) -> dict[str, float]:
        until = time.monotonic() + 20
        while True:
            found = scraped(registry)
            if all(found[f"server_keys_{name}"] == value for name, value in expected.items()):
                return found
            assert time.monotonic() < until, found
            time.sleep(0.02)

    with TestClient(apps[0]), TestClient(apps[1]):
        found = wait_for(shared_rings=2, group_members=2, available_rings=2)
        assert found["server_keys_group_epoch"] >= 1
        assert abs(time.time() - found["server_keys_group_contact_timestamp_seconds"]) < 5
        take_place(put_file, shared_folder)
        stopped_at = time.time()
        found = wait_for(shared_rings=0, available_rings=2)
        assert found["server_keys_group_contact_timestamp_seconds"] <= stopped_at + 0.5
        assert found["server_keys_refresh_failures_total"] == 0  # both make keys of their own
        shared_folder.unlink()
        wait_for(shared_rings=2)


def test_without_prometheus_client_nothing_changes_but_the_call() -> None:
    run_script("""
        import sys
        sys.modules["prometheus_client"] = None
        import server_keys
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

        with TestClient(server_keys.protect(FastAPI())) as client:
            assert client.get("/.well-known/hpke-keys").status_code == 200
        try:
            server_keys.metrics
        except ModuleNotFoundError as error:
            assert "needs prometheus_client" in str(error) and "extra `metrics`" in str(error), error
        else:
            raise AssertionError("metrics without prometheus_client")
    """)


def test_an_app_that_is_not_instrumented_does_not_import_it() -> None:
    run_script("""
        import sys
        import server_keys
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

        with TestClient(server_keys.protect(FastAPI())) as client:
            assert client.get("/.well-known/hpke-keys").status_code == 200
        assert not {"prometheus_client", "server_keys.metrics"} & set(sys.modules)
    """)


def test_the_default_registry_is_the_one_that_everybody_scrapes() -> None:
    run_script("""
        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        from prometheus_client import REGISTRY
        from server_keys import metrics, protect

        app = protect(FastAPI())
        metrics.instrument(app)
        with TestClient(app):
            assert REGISTRY.get_sample_value("server_keys_available_rings") == 1
    """)


def test_a_forked_worker_counts_for_itself() -> None:
    registry = CollectorRegistry()
    app = instrumented(registry)
    child = os.fork()
    if not child:
        with TestClient(app):
            os._exit(int(scraped(registry)["server_keys_available_rings"] != 1))
    assert os.waitpid(child, 0)[1] == 0
    assert scraped(registry)["server_keys_available_rings"] == 0


def test_metrics_that_fail_stop_neither_requests_nor_refreshes(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    app = instrumented(registry, refresh_time=0.02)
    monkeypatch.setattr(Gauge, "set", full)
    monkeypatch.setattr(Counter, "inc", full)

    async def main() -> None:
        async with served(app):
            assert await sealed(app) == (200, b'"sealed"')
            while app.state.ephemeral_keys.status.refreshes < 3:  # noqa: ASYNC110 - another task turns it, and tells nobody
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 20))
    (record,) = [record for record in caplog.records if "metrics" in record.getMessage()]
    assert record.exc_info is not None


def test_nothing_of_this_module_stays_in_the_default_registry() -> None:
    assert REGISTRY.get_sample_value("server_keys_available_rings") is None
