/* A button on every block of code that copies it; of a console's prompt nothing is in these pages. */
"use strict";

function copied(button, text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  // The clipboard's own interface is closed to pages that are read from a file.
  const done = document.execCommand("copy");
  area.remove();
  button.textContent = done ? "copied" : "not copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

document.addEventListener("DOMContentLoaded", () => {
  for (const block of document.querySelectorAll("article div.highlight")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "copy";
    button.setAttribute("aria-label", "Copy this block");
    button.addEventListener("click", () => copied(button, block.querySelector("pre").textContent));
    block.append(button);
  }
});
