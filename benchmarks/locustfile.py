"""What the load generator does: one visit a request, as an EHR would send them."""

import random

from locust import FastHttpUser, constant, task

WORDS = ["tired", "weak", "cough", "fever", "rash", "pain", "dizzy", "numb", "pale", "stiff"]
WORDS += ["falls often", "muscle cramps", "dark urine", "no weight loss", "short of breath"]


class Clinic(FastHttpUser):
    """Sends one made-up visit after the other, without a pause."""

    wait_time = constant(0)

    @task
    def screen(self) -> None:
        """One visit of 12 to 60 words."""
        words = random.choices(WORDS, k=random.randint(12, 60))  # noqa: S311 - no secret
        visit = {
            "age_years": random.randint(1, 90),  # noqa: S311
            "sex": random.choice(("female", "male")),  # noqa: S311
            "chief_complaint": " ".join(words[:8]),
            "history_of_present_illness": " ".join(words[8:]),
        }
        self.client.post("/v1/screen", json={"visits": [visit]})
