"""Balancers and Prometheus ask these routes."""

from prometheus_client import CONTENT_TYPE_LATEST

from tests.serving import Api


async def test_metrics_come_as_the_one_media_type_that_prometheus_reads(api: Api):
    reply = await api.with_key(None).get("/metrics")
    assert (reply.status, reply.headers["Content-Type"]) == (200, CONTENT_TYPE_LATEST)
    assert b"connect_events_total" in reply.body


async def test_probes_need_no_credential(api: Api):
    assert (await api.with_key(None).get("/healthz")).json == {"status": "ok"}
    assert (await api.with_key(None).get("/readyz")).json["status"] == "ready"
