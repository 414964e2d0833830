"""Generated requests to the real service: no 5xx, and responses as in the OpenAPI document."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from tests.services.conftest import Served

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@pytest.mark.parametrize("route", ["/recommend", "/similar", "/events", "/items"])
def test_generated_bodies_get_the_answers_of_the_document(service: Served, route: str) -> None:
    document = httpx.get(f"{service.url}/docs.json").json()
    operation = schemathesis.openapi.from_dict(document)[route]["POST"]
    calls: list[int] = []

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(*(operation.as_strategy(mode) for mode in GenerationMode)))
    def check(case: schemathesis.Case) -> None:
        answer = case.call(base_url=service.url)
        case.validate_response(answer, checks=list(CHECKS))
        calls.append(answer.status_code)

    check()
    assert 400 in calls
    if route == "/recommend":  # generated ids and times of the others are rarely valid
        assert 200 in calls
