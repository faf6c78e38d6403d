// The list of loaded checkpoints in the browser: a button of it, and whether the list is still true.

const SECONDS = 2, MOST_SECONDS = 60; // between two looks, and where no answer comes
let seconds = SECONDS;
let told = null; // the state that the page was asked to show last

element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-name]");
    if (button) trigger("select", { name: button.dataset.name });
});

async function look() {
    const list = element.querySelector("[data-version]");
    if (document.hidden || !list) return;
    let there = null;
    try {
        there = await server.version(null);
        seconds = SECONDS;
    } catch {
        seconds = Math.min(2 * seconds, MOST_SECONDS); // a server that has gone has no news
    }
    if (there === null || String(there) === list.dataset.version || there === told) return;
    told = there;
    setTimeout(() => (told = null), 10_000); // asked again, where that came to nothing
    trigger("change");
}

async function watch() {
    await look();
    setTimeout(watch, 1000 * seconds);
}

watch();
document.addEventListener("visibilitychange", look);
document.addEventListener("bt-models", look);
