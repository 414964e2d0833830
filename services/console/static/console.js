// Keys of the console: "/" focuses the first search field, "g" and a letter opens a page.
"use strict";
let afterG = false;
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    const closed = document.querySelector("details.find");
    if (closed) closed.open = true;
    const field = document.querySelector("input[type=search]");
    if (field) { event.preventDefault(); field.focus(); field.select(); }
  } else if (afterG) {
    const link = document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
    if (link) link.click();
  }
  afterG = event.key === "g" && !afterG;
});
