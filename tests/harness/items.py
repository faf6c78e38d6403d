"""What is asked of lm-eval and of `bitune evaluate` alike. Knows no lm-eval."""

CHOICES = [
    {"task": "t", "question": f"What is {n} and {n}?", "choices": [f"{2 * n:03}", f"a{3 * n:02}", "not"], "label": n % 3}
    for n in range(1, 12)
]
OPEN = [{"task": "t", "question": f"Say {word}", "answer": "none"} for word in ("one", "two words", "three", "", "the fifth")]
END = "</s>"
