// The head is a line after the first look: when something was run, in the other tabs, and for who has been here before.

const SEEN = "bt-seen"; // in this browser
const head = element.querySelector(".bt-head"), more = element.querySelector(".bt-more");

function small(yes) {
    head.classList.toggle("bt-small", yes);
    more.textContent = yes ? "What is this?" : "Show less";
    more.setAttribute("aria-expanded", yes ? "false" : "true");
}

function seen() {
    try { return localStorage.getItem(SEEN) === "yes"; } catch { return false; }
}

document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button === more) return small(!head.classList.contains("bt-small"));
    const other = button?.getAttribute("role") === "tab" && button.textContent.trim() !== "Compare";
    if (!other && !["bt-run", "bt-read-attention"].includes(button?.id)) return;
    small(true);
    try { localStorage.setItem(SEEN, "yes"); } catch { /* then the head is whole again next time */ }
});
small(seen());
