"""What the endpoint tests make their teachers and cases with."""

from fault_proxy import Proxy

from rarealert.teachers.endpoints.endpoint import EndpointTeacher
from rarealert.teachers.panel import EndpointSpec
from rarealert.visits.case import Case

KEY = "sk-test-0123456789abcdef"


def case(number: int, text: str = "") -> Case:
    return Case(
        case_id=f"case_{number}",
        source="simulated",
        age_years=9,
        history_of_present_illness=text or f"Ataxia since {number + 2} months.",
    )


def teacher(proxy: Proxy, name: str = "llama", **settings: object) -> EndpointTeacher:
    limits = {"backoff_s": 0.02, "timeout_s": 240, "concurrency": 2} | settings.pop("limits", {})
    entry = {
        "id": name,
        "kind": "endpoint",
        "base_url": proxy.base_url,
        "model": "smollm2",
        "key_variable": "TEST_KEY",
        "price": {"input": 100, "output": 1000},
        "limits": limits,
        "weights": "ranked",
        "max_tokens": 600,
        "max_text_chars": 20,
        "top_logprobs": 5,
    }
    return EndpointTeacher(EndpointSpec.model_validate(entry | settings))
