"""A visit of the demo's page in a browser."""

from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request, expect

from tests.helpers.demo_process import Demo

CHAT = "/v1/chat/completions"
PROMPT = "Is my secret safe from the proxy?"

# Playwright's default of 5 s is too short for a busy machine.
expect.set_options(timeout=20_000)


class Visit:
    """One visit of the page, with its requests and the browser's complaints."""

    def __init__(self, browser: Browser, demo: Demo, **options: object) -> None:
        self.page: Page = browser.new_page(**options)  # type: ignore[arg-type]
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        # Not `self.requests.append`: Playwright sets an attribute on the handler, and a built-in method has none.
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        # The browser also logs refusals that the page recovers from.
        self.page.on(
            "console",
            lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        self.page.goto(demo.url)
        self.page.wait_for_selector("html[data-ready]")

    def reload_without_identity(self) -> None:
        """Let the page know no identity of the server, so that it takes keys that somebody has changed."""
        self.page.route("**/identity", lambda route: route.fulfill(json={"identity": None}))
        self.page.reload()
        self.page.wait_for_selector("html[data-ready]")

    def say(self, text: str) -> str:
        """Send a message and return the answer when it is complete."""
        notes = self.page.locator(".note")
        answered = notes.count()
        self.page.get_by_label("Your message").fill(text)
        self.page.keyboard.press("Enter")
        expect(notes).to_have_count(answered + 1)
        return self.page.locator(".theirs").last.inner_text()

    @property
    def chats(self) -> list[Request]:
        """The requests for chat completions."""
        return [request for request in self.requests if urlsplit(request.url).path == CHAT]
