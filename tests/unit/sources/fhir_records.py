"""FHIR resources as a hospital exports them, in the smallest form that is still R4."""

import json
from typing import Any

Resource = dict[str, Any]
LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"


def concept(text: str | None, code: str | None = None, system: str = SNOMED) -> Resource:
    coded = {"system": system, "code": code, "display": text}
    coding = [{key: value for key, value in coded.items() if value}] if code else []
    whole: Resource = {"text": text, "coding": coding}
    return {key: value for key, value in whole.items() if value}


def _of(kind: str, name: str, **more: Any) -> Resource:
    if isinstance(more.get("encounter"), str):
        more["encounter"] = {"reference": f"Encounter/{more['encounter']}"}
    who = "patient" if kind == "FamilyMemberHistory" else "subject"
    whole = {"resourceType": kind, "id": name, who: {"reference": "Patient/p"}, **more}
    return {key: value for key, value in whole.items() if value is not None}


def patient(name: str = "p", **more: Any) -> Resource:
    fixed = {"resourceType": "Patient", "id": name, "gender": "female", "birthDate": "1980-05-20"}
    return {**fixed, **more}


def encounter(
    name: str = "e1",
    start: str | None = "2020-03-01T09:00:00+01:00",
    end: str | None = "2020-03-01T09:30:00+01:00",
    **more: Any,
) -> Resource:
    period = {key: value for key, value in (("start", start), ("end", end)) if value}
    fixed = {"status": "finished", "class": {"code": "AMB"}, "period": period or None}
    return _of("Encounter", name, **(fixed | more))


def condition(
    name: str, text: str, code: str | None = None, system: str = SNOMED, **more: Any
) -> Resource:
    return _of("Condition", name, code=concept(text, code, system), **more)


def observation(
    name: str,
    text: str,
    category: str | None = "vital-signs",
    code: str | None = None,
    **more: Any,
) -> Resource:
    kind = [concept(None, category)] if category else None
    fixed = {"status": "final", "code": concept(text, code, LOINC), "category": kind}
    return _of("Observation", name, **(fixed | more))


def relative(name: str, whose: str, illness: str, **more: Any) -> Resource:
    fixed = {"status": "completed", "relationship": concept(whose)}
    return _of("FamilyMemberHistory", name, condition=[{"code": concept(illness)}], **fixed, **more)


def record() -> list[Resource]:
    """One patient: a first visit in 2020 with a cough, and Marfan syndrome named in 2022."""
    orphanet = "http://www.orpha.net"
    later = {"onsetDateTime": "1985-01-01", "recordedDate": "2022-06-01", "encounter": "e2"}
    temperature = {"valueQuantity": {"value": 38.50, "unit": "Cel"}, "encounter": "e1"}
    pressures = [
        {"code": concept(text), "valueQuantity": {"value": value, "unit": "mmHg"}}
        for text, value in (("systolic", 120), ("diastolic", 80))
    ]
    smoker = concept("Former smoker (finding)", "8517006")
    haemoglobin = {"valueQuantity": {"value": 13, "unit": "g/dL"}, "encounter": "e1"}
    return [
        patient(),
        encounter(reasonCode=[concept("Cough")]),
        encounter("e2", "2022-06-01T10:00:00Z", "2022-06-01T11:00:00Z"),
        condition("c0", "Asthma (disorder)", recordedDate="2015"),
        condition("c1", "Acute bronchitis", encounter="e1", recordedDate="2020-03-01"),
        condition("c2", "Marfan syndrome", "558", orphanet, **later),
        observation(
            "o1", "Body temperature", effectiveDateTime="2020-03-01T09:10:00+01:00", **temperature
        ),
        observation("o2", "Blood pressure", component=pressures, encounter="e1"),
        observation(
            "o3",
            "Tobacco smoking status",
            "social-history",
            valueCodeableConcept=smoker,
            effectiveDateTime="2019-11-11",
        ),
        observation(
            "o4", "Physical findings", None, "29545-1", valueString="Clear  chest.", encounter="e1"
        ),
        observation("o5", "Hemoglobin", "laboratory", **haemoglobin),
        relative("f1", "Mother", "Aortic dissection", date="2020-03-01"),
    ]


def records(*names: str) -> list[Resource]:
    """The resources of ``record`` once for each patient of ``names``, with ids of their own."""
    found: list[Resource] = []
    for name in names:
        text = json.dumps(record()).replace('"Patient/p"', f'"Patient/{name}"')
        copies = json.loads(text.replace('"Encounter/', f'"Encounter/{name}.'))
        ids = (name if each["id"] == "p" else f"{name}.{each['id']}" for each in copies)
        found += [each | {"id": own} for each, own in zip(copies, ids, strict=True)]
    return found


def bundle(resources: list[Resource]) -> Resource:
    entries = [{"fullUrl": f"urn:uuid:{r.get('id')}", "resource": r} for r in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def ndjson(resources: list[Resource]) -> str:
    return "".join(json.dumps(resource) + "\n" for resource in resources)
