"""Which of Gradio's routes this page needs. All others are closed, whatever they do today or in a later version.

Among the closed ones: uploads (a file of any size was kept for ever), files, streams and recordings (nothing on the page has one), deep
links (each writes a file), the proxy, monitoring, the reloader and the editor of code, and routes that print what they are sent.
"""

import re

API = "/gradio_api"
NAME = r"[\w.~%-]{1,200}"

READING = ("GET", "HEAD")
NEEDED = {
    **dict.fromkeys(
        (
            "/",
            "/config/?",
            "/theme.css",
            "/favicon.ico",
            "/robots.txt",
            "/manifest.json",
            "/(assets|static|svelte)/.{1,300}",
            f"{API}/(info|openapi.json|app_id|startup-events|theme.css|queue/status)/?",
            f"{API}/heartbeat/{NAME}",
            f"{API}/queue/data",
            f"{API}/call/(v2/)?{NAME}/{NAME}",
        ),
        READING,
    ),
    **dict.fromkeys(
        (
            f"{API}/run/{NAME}/?",  # events of the page that are not queued; queue(api_open=False) refuses the others here
            f"{API}/call/(v2/)?{NAME}/?",
            f"{API}/queue/join",
            f"{API}/component_server/?",
            f"{API}/(cancel|reset)/?",
        ),
        ("POST",),
    ),
}
MCP = {f"{API}/mcp(/.{{0,200}})?": ("GET", "POST", "DELETE", "HEAD")}

# What keeps the model or a visitor busy: when the app ends, it waits for these.
WORK = re.compile(f"{API}/(run|call|queue|component_server|mcp)\\b.*")


class Routes:
    """The routes that are open. With `mcp`, also those for agents."""

    def __init__(self, *, mcp: bool = False):
        table = NEEDED | MCP if mcp else NEEDED
        self.open = [(re.compile(pattern), methods) for pattern, methods in table.items()]

    def is_for_agents(self, path: str) -> bool:
        """Whether a path belongs to the Model Context Protocol."""
        return path.startswith(f"{API}/mcp")

    def methods(self, path: str) -> tuple[str, ...]:
        """With which methods a path may be asked for, by all patterns that it fits; none where it is closed."""
        return tuple(method for pattern, methods in self.open if pattern.fullmatch(path) for method in methods)
