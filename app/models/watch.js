// Whether the page still shows the checkpoints that are loaded: other visitors load some too.

const SECONDS = 2, MOST_SECONDS = 60; // between two looks, and where no answer comes
let seconds = SECONDS;
let told = null; // the state that the page was asked to show last

async function look() {
    const shown = element.querySelector("[data-version]");
    if (document.hidden || !shown) return;
    let there = null;
    try {
        there = await server.version(null);
        seconds = SECONDS;
    } catch {
        seconds = Math.min(2 * seconds, MOST_SECONDS); // a server that has gone has no news
    }
    if (there === null || String(there) === shown.dataset.version || there === told) return;
    told = there;
    setTimeout(() => (told = null), 10_000); // asked again, where that came to nothing
    trigger("input"); // not "change", which Gradio itself says where a value was filled in
}

async function watch() {
    await look();
    setTimeout(watch, 1000 * seconds);
}

watch();
document.addEventListener("visibilitychange", look);
document.addEventListener("bt-models", look);
