"""Traces: what of a build or a prediction took how long, in MLflow, linked to its run.

Written once the run is there, from the spans that its own file keeps (`zoo.tracking.spans`). A trace's id and those of its
spans follow from the run's fingerprint, so that logging again makes no second one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.tracking.bounded import SECONDS, Patient
from zoo.tracking.home import database, one_line, public, public_data, unreachable

if TYPE_CHECKING:
    from mlflow.entities import Span
    from mlflow.tracking import MlflowClient

logger = logging.getLogger("zoo")
SPANS_AT_ONCE = 100  # a request: each span is a row of the database


def log_trace(
    client: MlflowClient,
    run: Any,
    fingerprint: str,
    spans: Sequence[Mapping[str, Any]],
    *,
    asked: Mapping[str, Any],
    came: Mapping[str, Any],
) -> None:
    """Log kept spans as the trace of a run; nothing where there are none.

    `asked`, `came`: its inputs and outputs; the list of traces shows the first of each. A server that takes no traces, of an
    MLflow before 3.4, is told of in a line and loses nothing else; where nobody answers, that is raised.
    """
    try:
        if spans:
            _log(client, run, fingerprint, spans, asked, came)
    except Exception as error:
        if unreachable(error):
            raise
        logger.warning("the trace of run %s is not in MLflow: %s", run.info.run_name, one_line(error))


def _log(
    client: MlflowClient,
    run: Any,
    fingerprint: str,
    spans: Sequence[Mapping[str, Any]],
    asked: Mapping[str, Any],
    came: Mapping[str, Any],
) -> None:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    sides = {"mlflow.spanInputs": public_data(dict(asked)), "mlflow.spanOutputs": public_data(dict(came))}
    root, trace = {**spans[0], "attributes": spans[0].get("attributes", {}) | sides}, trace_id(fingerprint)
    experiment = str(run.info.experiment_id)
    info = TraceInfo(
        trace_id=trace,
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=root["start"] // 1_000_000,
        execution_duration=(root["end"] - root["start"]) // 1_000_000,
        state=TraceState.ERROR if root.get("error") else TraceState.OK,
        request_preview=public(str(next(iter(asked.values()), "")))[:1000],
        response_preview=public(str(next(iter(came.values()), "")))[:1000],
        trace_metadata={TraceMetadataKey.SOURCE_RUN: str(run.info.run_id)},
        tags={TraceTagKey.TRACE_NAME: root["name"], "zoo.fingerprint": fingerprint},
    )
    store = _traces_of(client)
    store.start_trace(info)
    made = [_span(trace, place, span) for place, span in enumerate([root, *spans[1:]])]
    for start in range(0, len(made), SPANS_AT_ONCE):
        store.log_spans(experiment, made[start : start + SPANS_AT_ONCE])


def delete_traces(client: MlflowClient, run: Any) -> None:
    """Delete the traces of a run, which MLflow leaves where the run is removed for good."""
    experiment = str(run.info.experiment_id)
    found = client.search_traces(
        locations=[experiment], filter_string=f"attribute.run_id = '{run.info.run_id}'", include_spans=False
    )
    if found:
        client.delete_traces(experiment, trace_ids=[trace.info.trace_id for trace in found])


def trace_id(fingerprint: str) -> str:
    """The id of the trace of the run with this fingerprint."""
    return f"tr-{_digest(fingerprint, 16).hex()}"  # as MLflow makes them of OpenTelemetry's


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def _traces_of(client: MlflowClient) -> Any:
    """The part of a client that takes whole traces, as patient as the client is."""
    store: Any = client._tracing_client  # MlflowClient itself hands on only traces that it times
    return Patient(store, None if database() else SECONDS)


def _span(trace: str, place: int, span: Mapping[str, Any]) -> Span:
    from mlflow.entities import Span, SpanType

    own = {"mlflow.traceRequestId": trace, "mlflow.spanType": SpanType.CHAIN if place == 0 else SpanType.TASK}
    return Span.from_dict(
        {
            "trace_id": base64.b64encode(bytes.fromhex(trace.removeprefix("tr-"))).decode(),
            "span_id": _span_id(trace, place),
            "parent_span_id": None if span["parent"] is None else _span_id(trace, span["parent"]),
            "name": public(span["name"]),
            "start_time_unix_nano": span["start"],
            "end_time_unix_nano": span["end"],
            "attributes": {name: json.dumps(value) for name, value in {**span.get("attributes", {}), **own}.items()},
            "events": [
                {"name": event["name"], "time_unix_nano": event["at"], "attributes": event.get("attributes", {})}
                for event in span.get("events", [])
            ],
            "status": {"code": "ERROR" if span.get("error") else "OK", "message": span.get("error", "")},
        }
    )


def _span_id(trace: str, place: int) -> str:
    return base64.b64encode(_digest(f"{trace} {place}", 8)).decode()
