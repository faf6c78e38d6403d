// The list of loaded checkpoints in the browser: a button of it, and whether the list is still true.

const SECONDS = 2;
let told = null; // the state that the page was asked to show last

element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-name]");
    if (button) trigger("select", { name: button.dataset.name });
});

async function look() {
    const list = element.querySelector("[data-version]");
    if (document.hidden || !list || !element.isConnected) return;
    const there = await server.version().catch(() => null); // a server that has gone has no news
    if (there === null || String(there) === list.dataset.version || there === told) return;
    told = there;
    setTimeout(() => (told = null), 5000 * SECONDS); // asked again, where that came to nothing
    trigger("change");
}

setInterval(look, 1000 * SECONDS);
document.addEventListener("visibilitychange", look);
document.addEventListener("bt-models", look);
