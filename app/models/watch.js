// Whether the page still shows what is loaded: other visitors load something too, and with another base the page ends and begins anew.

const SECONDS = 2, MOST_SECONDS = 60, SOON = 0.5; // between two looks; where no answer comes; where another page is about to be there
const THIS = "this", ANOTHER = "another"; // page at this address
let seconds = SECONDS;
let told = null; // the state that the page was asked to show last
let ends = null; // why it ends, once it does
let heard = Date.now(); // when the server last answered

async function look() {
    const shown = element.querySelector("[data-version]");
    if ((document.hidden && !ends) || !shown) return;
    // What answers after a silence may be another page, which knows nothing of this one.
    const late = Date.now() > heard + 2000 * SECONDS, page = ends || late ? await answering() : THIS;
    if (page === ANOTHER) return location.reload();
    seconds = ends ? SOON : page === THIS ? SECONDS : Math.min(2 * seconds, MOST_SECONDS); // a server that has gone has no news
    if (ends || page !== THIS) return;
    let there = null;
    try {
        const state = await server.state(null);
        [there, heard] = [state.version, Date.now()];
        if (state.ends) sayWhy(state.ends);
    } catch { /* it is late then, next time */ }
    if (there === null || String(there) === shown.dataset.version || there === told) return;
    told = there;
    setTimeout(() => (told = null), 10_000); // asked again, where that came to nothing
    trigger("input"); // not "change", which Gradio itself says where a value was filled in
}

// Which page is there at this address; null for none.
async function answering() {
    try {
        const answer = await fetch("gradio_api/app_id");
        return answer.ok ? ((await answer.json()).app_id === window.gradio_config.app_id ? THIS : ANOTHER) : null;
    } catch {
        return null;
    }
}

function sayWhy(words) {
    if (ends) return;
    [ends, seconds] = [words, SOON];
    const said = document.createElement("p");
    said.id = "bt-ends";
    said.setAttribute("role", "alert");
    document.querySelector(".gradio-container").append(said); // for its letters
    said.textContent = words;
}

async function watch() {
    await look();
    setTimeout(watch, 1000 * seconds);
}

watch();
document.addEventListener("visibilitychange", look);
document.addEventListener("bt-models", look);
