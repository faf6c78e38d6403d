// Compare's answers in the browser: the columns as the server draws them, and what comes into them, set as text.

let drawn = null;

function fillText(box, column) {
    const text = box.firstChild;
    box.classList.toggle("bt-running", column.running);
    if (column.silent) {
        if (box.textContent === column.silent) return;
        const words = document.createElement("span");
        words.className = "bt-silent";
        words.textContent = column.silent;
        box.replaceChildren(words);
    } else if (text instanceof Text && column.text.startsWith(text.data)) {
        const more = column.text.slice(text.data.length);
        if (more) text.appendData(more); // what somebody has selected stays selected
    } else {
        box.textContent = column.text;
    }
}

function show({ html, live }) {
    if (html !== drawn) {
        element.querySelector('[data-part="answers"]').innerHTML = html;
        drawn = html;
    }
    const answers = element.querySelectorAll(".bt-answer");
    for (const [place, column] of live.entries()) {
        fillText(answers[place].querySelector(".bt-text"), column);
        const figures = answers[place].querySelectorAll("dd");
        for (const [which, words] of column.figures.entries()) {
            if (figures[which].textContent !== words) figures[which].textContent = words;
        }
    }
}

watch("value", () => show(props.value));
show(props.value);
