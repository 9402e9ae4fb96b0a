"""One run of teachers on the cluster of RAY_ADDRESS, in a process of its own that can be killed.

Its argument is a JSON file: the specs of endpoints and of a local model, cases, cap and folder.
Prints what became of it as JSON.
"""

import json
import sys
from pathlib import Path

from endpoint_kit import case


def main(given: dict) -> dict:
    import ray

    from rarealert.teachers.cache import RationaleCache
    from rarealert.teachers.endpoints.endpoint import EndpointTeacher
    from rarealert.teachers.endpoints.limits import Budget
    from rarealert.teachers.local import LocalTeacher, ask_local
    from rarealert.teachers.on_ray import ask_endpoints_on_ray, judge_on_ray
    from rarealert.teachers.panel import EndpointSpec, LocalSpec

    cases = [case(number) for number in range(given["cases"])]
    endpoints = [EndpointTeacher(EndpointSpec.model_validate(one)) for one in given["endpoints"]]
    with RationaleCache(Path(given["folder"])) as cache:
        _, known = cache.set_aside_damage()
        tallies = {}
        if given["local"]:
            local = LocalTeacher(LocalSpec.model_validate(given["local"]))
            tallies[local.id] = ask_local(local, cases, cache, known, judging=judge_on_ray)
        spent = sum(one.cost_usd for one in cache.stats().values())
        budget = Budget(given["cap"], spent)
        asked = ask_endpoints_on_ray(endpoints, cases, cache.folder, known, budget, trace_sample=1)
    tallies |= asked.tallies
    actors = ray._private.state.actors().values()
    return {
        "tallies": {name: vars(tally) for name, tally in tallies.items()},
        "notes": asked.notes,
        "samples": len(asked.samples),
        "machines": {
            kind: sorted(
                {one["Address"]["NodeID"] for one in actors if one["ActorClassName"] == kind}
            )
            for kind in ("_Asker", "_Reader", "Keeper")
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
