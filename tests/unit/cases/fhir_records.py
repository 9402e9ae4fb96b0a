"""FHIR resources as a hospital exports them, in the smallest form that is still R4."""

from typing import Any

Resource = dict[str, Any]
LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"


def concept(text: str | None, code: str | None = None, system: str = SNOMED) -> Resource:
    coded = {"system": system, "code": code, "display": text}
    coding = [{key: value for key, value in coded.items() if value}] if code else []
    whole: Resource = {"text": text, "coding": coding}
    return {key: value for key, value in whole.items() if value}


def _of(kind: str, id: str, patient: str = "p", **more: Any) -> Resource:  # noqa: A002 - FHIR's word
    who = "patient" if kind == "FamilyMemberHistory" else "subject"
    whole = {"resourceType": kind, "id": id, who: {"reference": f"Patient/{patient}"}, **more}
    return {key: value for key, value in whole.items() if value is not None}


def patient(id: str = "p", **more: Any) -> Resource:  # noqa: A002
    return {
        "resourceType": "Patient",
        "id": id,
        "gender": "female",
        "birthDate": "1980-05-20",
        **more,
    }


def encounter(
    id: str = "e1",  # noqa: A002
    start: str | None = "2020-03-01T09:00:00+01:00",
    end: str | None = "2020-03-01T09:30:00+01:00",
    **more: Any,
) -> Resource:
    period = {key: value for key, value in (("start", start), ("end", end)) if value}
    fixed = {"status": "finished", "class": {"code": "AMB"}, "period": period or None}
    return _of("Encounter", id, **(fixed | more))


def condition(id: str, name: str, code: str | None = None, **more: Any) -> Resource:  # noqa: A002
    if isinstance(more.get("encounter"), str):
        more["encounter"] = {"reference": f"Encounter/{more['encounter']}"}
    system = more.pop("system", SNOMED)
    return _of("Condition", id, code=concept(name, code, system), **more)


def observation(
    id: str,  # noqa: A002
    name: str,
    category: str | None = "vital-signs",
    code: str | None = None,
    **more: Any,
) -> Resource:
    if isinstance(more.get("encounter"), str):
        more["encounter"] = {"reference": f"Encounter/{more['encounter']}"}
    kind = [concept(None, category)] if category else None
    fixed = {"status": "final", "code": concept(name, code, LOINC), "category": kind}
    return _of("Observation", id, **(fixed | more))


def relative(id: str, whose: str, illness: str, **more: Any) -> Resource:  # noqa: A002
    return _of(
        "FamilyMemberHistory",
        id,
        status="completed",
        relationship=concept(whose),
        condition=[{"code": concept(illness)}],
        **more,
    )


def record() -> list[Resource]:
    """One patient: a first visit in 2020 with a cough, and Marfan syndrome named in 2022."""
    return [
        patient(),
        encounter(reasonCode=[concept("Cough")]),
        encounter("e2", "2022-06-01T10:00:00Z", "2022-06-01T11:00:00Z"),
        condition("c0", "Asthma (disorder)", recordedDate="2015"),
        condition("c1", "Acute bronchitis", encounter="e1", recordedDate="2020-03-01"),
        condition(
            "c2",
            "Marfan syndrome",
            "558",
            system="http://www.orpha.net",
            onsetDateTime="1985-01-01",
            recordedDate="2022-06-01",
            encounter="e2",
        ),
        observation(
            "o1",
            "Body temperature",
            valueQuantity={"value": 38.50, "unit": "Cel"},
            effectiveDateTime="2020-03-01T09:10:00+01:00",
            encounter="e1",
        ),
        observation(
            "o2",
            "Blood pressure",
            component=[
                {
                    "code": concept("systolic"),
                    "valueQuantity": {"value": 120, "unit": "mmHg"},
                },
                {
                    "code": concept("diastolic"),
                    "valueQuantity": {"value": 80, "unit": "mmHg"},
                },
            ],
            encounter="e1",
        ),
        observation(
            "o3",
            "Tobacco smoking status",
            "social-history",
            valueCodeableConcept=concept("Former smoker (finding)", "8517006"),
            effectiveDateTime="2019-11-11",
        ),
        observation(
            "o4",
            "Physical findings",
            None,
            "29545-1",
            valueString="Clear  chest.",
            encounter="e1",
        ),
        observation(
            "o5",
            "Hemoglobin",
            "laboratory",
            valueQuantity={"value": 13, "unit": "g/dL"},
            encounter="e1",
        ),
        relative("f1", "Mother", "Aortic dissection", date="2020-03-01"),
    ]


def bundle(resources: list[Resource]) -> Resource:
    entries = [{"fullUrl": f"urn:uuid:{r.get('id')}", "resource": r} for r in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}
