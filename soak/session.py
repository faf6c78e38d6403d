"""A visitor who runs and votes by the requests that the page sends, without a browser."""

import json
from uuid import uuid4

import httpx

from soak.stream import lines_of


class Session:
    """A page of a visitor, by the requests that it sends."""

    def __init__(self, url: str):
        self.url, self.hash = url, uuid4().hex
        self.config = httpx.get(f"{url}config", timeout=60).json()
        self.ids = {part["props"].get("elem_id"): part["id"] for part in self.config["components"]}
        self.values = {part["id"]: part["props"].get("value") for part in self.config["components"]}

    def listener(self, name: str, event: str) -> dict:
        """What happens on the page after an event of the component with this id."""
        return next(each for each in self.config["dependencies"] if [self.ids[name], event] in map(list, each["targets"]))

    def after(self, listener: dict) -> dict:
        return next(each for each in self.config["dependencies"] if each["trigger_after"] == listener["id"])

    def body(self, listener: dict) -> dict:
        data = [self.values.get(part) for part in listener["inputs"]]
        return {"data": data, "fn_index": listener["id"], "session_hash": self.hash, "trigger_id": listener["targets"][0][0]}

    def at_once(self, listener: dict) -> str:
        """What the server answers to an event that does not wait in the queue; what it sets is set on this page."""
        answer = httpx.post(f"{self.url}gradio_api/run/predict", json=self.body(listener), timeout=60)
        self.take(listener, answer.json().get("data", ()))
        return answer.text

    def queued(self, listener: dict) -> str:
        """All that the server sends of an event that waits in the queue."""
        httpx.post(f"{self.url}gradio_api/queue/join", json=self.body(listener), timeout=60).raise_for_status()
        sent = ""
        with httpx.stream("GET", f"{self.url}gradio_api/queue/data", params={"session_hash": self.hash}, timeout=60) as stream:
            for line in lines_of(stream.iter_text()):
                sent += line
                if '"process_completed"' in line:
                    self.take(listener, json.loads(line.removeprefix("data: "))["output"].get("data", ()))
                    return sent
        raise AssertionError(sent)

    def take(self, listener: dict, data: list) -> None:
        for part, value in zip(listener["outputs"], data, strict=False):
            is_update = isinstance(value, dict) and value.get("__type__") == "update"
            if not is_update or "value" in value:
                self.values[part] = value["value"] if is_update else value

    def set(self, name: str, value: object) -> None:
        self.values[self.ids[name]] = value

    def run(self, blind: bool = False) -> str:
        """Press Run and wait; all that came."""
        self.set("bt-prompt", "hello")
        self.set("bt-blind", blind)
        running = self.listener("bt-run", "click")
        return self.queued(running) + self.at_once(self.after(running))

    @property
    def run_id(self) -> int:
        """The box that holds the id of the run on the page."""
        return self.listener("bt-vote", "click")["inputs"][1]

    def vote(self, choice: object = "0", reasons: object = (), run: object = ...) -> str:
        self.set("bt-better", choice)
        self.set("bt-reasons", list(reasons))
        if run is not ...:
            self.values[self.run_id] = run
        return self.at_once(self.listener("bt-vote", "click"))
